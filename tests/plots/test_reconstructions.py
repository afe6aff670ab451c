"""Grids of images: the input, what is visible, the prediction, and the prediction pasted in."""
# Also tests plots/figures.py.

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.errors import raises

from mae_kit.encoders.patches import patchify
from mae_kit.objectives.targets import normalize_patches, unnormalize_patches
from mae_kit.plots.reconstructions import GAP, reconstruction_grid, save_png

SIZE, PATCH = 96, 24
INPUT, HIDDEN, PREDICTION, PASTED = range(4)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.rand(3, 16, generator=torch.Generator().manual_seed(1)).argsort(dim=1) < 12


def tiles(grid: np.ndarray, rows: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """uint8 [rows, 4, height, width, 3]: a grid of one panel without its header and gaps."""
    body = grid[len(grid) - rows * (height + GAP) :, GAP:]
    cut = body.reshape(rows, height + GAP, 4, width + GAP, 3).transpose(0, 2, 1, 3, 4)
    return cut[:, :, :height, :width]


def levels(images: torch.Tensor) -> np.ndarray:
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def spread(hidden: torch.Tensor) -> np.ndarray:
    """Bool [b, SIZE, SIZE]: the hidden pixels."""
    return hidden.reshape(-1, 4, 4).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2).numpy()


def test_each_column_shows_exactly_what_its_header_says(images: torch.Tensor, hidden: torch.Tensor) -> None:
    predicted = 1 - images
    found = tiles(reconstruction_grid(images, hidden, patchify(predicted, (PATCH, PATCH)), PATCH), rows=3)
    at, true, other = spread(hidden), levels(images), levels(predicted)
    np.testing.assert_array_equal(found[:, INPUT], true)
    np.testing.assert_array_equal(found[:, PREDICTION][at], other[at])
    assert (found[:, HIDDEN][at] == 128).all() and (found[:, PREDICTION][~at] == 128).all()
    np.testing.assert_array_equal(found[:, HIDDEN][~at], true[~at])
    np.testing.assert_array_equal(found[:, PASTED][at], other[at])
    np.testing.assert_array_equal(found[:, PASTED][~at], true[~at])


def test_a_target_that_is_not_the_input_stands_beside_the_prediction(images: torch.Tensor, hidden: torch.Tensor):
    target = images.flip(3)
    found = tiles(reconstruction_grid(images, hidden, patchify(images, (PATCH, PATCH)), PATCH, target), rows=3)
    np.testing.assert_array_equal(found[:, PASTED], levels(target))
    np.testing.assert_array_equal(found[:, PREDICTION][spread(hidden)], levels(images)[spread(hidden)])


def test_a_perfect_prediction_of_normalized_patches_is_the_input(images: torch.Tensor, hidden: torch.Tensor) -> None:
    patches = patchify(images, (PATCH, PATCH))
    predicted = unnormalize_patches(normalize_patches(patches), patches)
    torch.testing.assert_close(predicted, patches, rtol=0, atol=1e-5)
    found = tiles(reconstruction_grid(images, hidden, predicted, PATCH), rows=3)
    np.testing.assert_array_equal(found[:, PASTED], found[:, INPUT])


def test_small_images_are_enlarged_by_a_whole_factor_without_smoothing(hidden: torch.Tensor) -> None:
    images = torch.rand(3, 3, 32, 32)
    found = tiles(reconstruction_grid(images, hidden, patchify(images, (8, 8)), 8), rows=3)
    np.testing.assert_array_equal(found[:, INPUT, ::3, ::3], levels(images))
    np.testing.assert_array_equal(found[:, INPUT, 2::3, 1::3], levels(images))


def test_rectangles_of_images_and_patches() -> None:
    images, hidden = torch.rand(2, 3, 96, 160), torch.zeros(2, 30, dtype=torch.bool)
    found = tiles(reconstruction_grid(images, hidden, patchify(images, (16, 32)), (16, 32)), 2, 96, 160)
    np.testing.assert_array_equal(found[:, PASTED], levels(images))


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (5, [0, 1, 2])])
def test_channels_become_three(hidden: torch.Tensor, channels: int, shown: list[int]) -> None:
    images = torch.rand(3, channels, SIZE, SIZE)
    found = tiles(reconstruction_grid(images, hidden, patchify(images, (PATCH, PATCH)), PATCH), rows=3)
    np.testing.assert_array_equal(found[:, INPUT], levels(images[:, shown]))


def test_predictions_outside_the_range_of_pixels_are_clipped(images: torch.Tensor, hidden: torch.Tensor) -> None:
    predicted = torch.full((3, 16, PATCH * PATCH * 3), 7.0)
    predicted[1] = -7
    predicted[2] = float("nan")
    found = tiles(reconstruction_grid(images, hidden, predicted, PATCH), rows=3)
    at = spread(hidden)
    assert (found[0, PREDICTION][at[0]] == 255).all()
    assert (found[1:, PREDICTION][at[1:]] == 0).all()


@pytest.mark.parametrize("count", [7, 8, 16])
def test_many_rows_stand_in_two_panels(count: int) -> None:
    images, hidden = torch.rand(count, 3, SIZE, SIZE), torch.zeros(count, 16, dtype=torch.bool)
    grid = reconstruction_grid(images, hidden, patchify(images, (PATCH, PATCH)), PATCH)
    half = -(-count // 2)
    panel = GAP + 4 * (SIZE + GAP)
    left, right = tiles(grid[:, :panel], half), tiles(grid[:, -panel:], half)
    np.testing.assert_array_equal(np.concatenate([left, right])[:count, INPUT], levels(images))
    assert 0.9 < grid.shape[1] / grid.shape[0] < 2.2


def test_a_patch_that_does_not_divide_the_image_is_refused(images: torch.Tensor, hidden: torch.Tensor) -> None:
    with raises("encoder.img_size"):
        reconstruction_grid(images, hidden, torch.zeros(3, 16, 3), 25)


def test_a_saved_picture_reads_back_and_leaves_nothing_else(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "new" / "grid.png"
    save_png(path, picture)
    save_png(path, picture)
    with Image.open(path) as read:
        np.testing.assert_array_equal(np.asarray(read), picture)
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]


def test_photos_stay_photos(shared: Path) -> None:
    with tarfile.open(shared / "data/imagenette112/val-000.tar") as tar:
        member = tar.extractfile("000000.jpg")
        assert member
        photo = np.asarray(Image.open(io.BytesIO(member.read())).convert("RGB"))
    images = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
    hidden = torch.ones(1, 49, dtype=torch.bool)
    found = tiles(reconstruction_grid(images, hidden, patchify(images, (16, 16)), 16), 1, 112, 112)
    np.testing.assert_array_equal(found[0, INPUT], photo)
    np.testing.assert_array_equal(found[0, PASTED], photo)
