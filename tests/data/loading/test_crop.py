"""Crops: the boxes are torchvision's in distribution, the pixels Pillow's nearly to the bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mae_kit.data.loading.crop import DRAWS, Box, crop_resize, evaluation_box, random_resized_boxes, reduced, reduction
from mae_kit.data.order import sample_seeds
from mae_kit.randomness import CROP, uniform_numpy

SIZES = [(375, 500), (112, 112), (40, 300), (333, 250), (2, 4000), (4000, 2)]


def boxes(count: int, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    draws = uniform_numpy(sample_seeds(np.zeros(count, int), np.arange(count), 0), CROP, DRAWS)
    return np.array(random_resized_boxes(draws, np.array([size] * count), scale))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0)])
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int], scale: tuple[float, float]):
    transforms = pytest.importorskip("torchvision.transforms")
    torch.manual_seed(0)
    count, image = 1000, torch.empty(1, *size)
    draw = transforms.RandomResizedCrop.get_params
    theirs = np.array([draw(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)])
    ours = boxes(count, size, scale)
    for measure in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2], lambda b: b[:, 3], area, center_row):
        assert distance(measure(ours), measure(theirs)) < 1.95 * math.sqrt(2 / count), "Kolmogorov-Smirnov at .1%"


def area(box: np.ndarray) -> np.ndarray:
    return box[:, 2] * box[:, 3]


def center_row(box: np.ndarray) -> np.ndarray:
    return box[:, 0] + box[:, 2] / 2


def distance(x: np.ndarray, y: np.ndarray) -> float:
    at = np.concatenate([x, y])
    below = [np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (x, y)]
    return float(np.abs(below[0] - below[1]).max())


@given(
    height=st.integers(1, 5000), width=st.integers(1, 5000), low=st.floats(0.01, 1.0), seed=st.integers(0, 2**63 - 1)
)
def test_a_box_lies_within_any_image(height: int, width: int, low: float, seed: int):
    draws = uniform_numpy(np.array([seed], np.uint64), CROP, DRAWS)
    (box,) = random_resized_boxes(draws, np.array([[height, width]]), (low, 1.0))
    inside(box, (height, width))


def test_a_box_does_not_depend_on_its_batch():
    draws = uniform_numpy(np.arange(500, dtype=np.uint64), CROP, DRAWS)
    sizes = np.array(SIZES * 100)[:500]
    together = random_resized_boxes(draws, sizes, (0.08, 1.0))
    alone = [random_resized_boxes(draws[i : i + 1], sizes[i : i + 1], (0.08, 1.0))[0] for i in range(500)]
    assert together == alone


def inside(box: Box, size: tuple[int, int]) -> None:
    assert box.height >= 1 and box.width >= 1 and box.top >= 0 and box.left >= 0
    assert box.top + box.height <= size[0] and box.left + box.width <= size[1]


def test_the_whole_of_a_square_image():
    assert {Box(*box) for box in boxes(50, (64, 64), (1.0, 1.0))} >= {Box(0, 0, 64, 64)}
    assert Box(*boxes(1, (1, 1), (0.2, 1.0))[0]) == Box(0, 0, 1, 1)


def test_evaluation_box_is_resize_then_central_crop():
    """Resize the shorter side to 256, crop 224: what is seen of the original, to half a pixel of it."""
    for height, width in SIZES[:4]:
        zoom = min(height, width) / 256
        box = evaluation_box((height, width), (224, 224), 224 / 256)
        inside(box, (height, width))
        assert abs(box.height - 224 * zoom) <= 0.5 and abs(box.width - 224 * zoom) <= 0.5
        assert abs(box.top + box.height / 2 - height / 2) <= 0.5 and abs(box.left + box.width / 2 - width / 2) <= 0.5


def test_evaluation_crop_looks_like_torchvisions():
    transforms = pytest.importorskip("torchvision.transforms")
    image = photo_like(320, 400)
    theirs = transforms.CenterCrop(64)(transforms.Resize(80, transforms.InterpolationMode.BICUBIC)(image))
    ours = crop_resize(np.asarray(image).copy(), evaluation_box((320, 400), (64, 64), 64 / 80), (64, 64))
    assert decibels(ours, theirs) > 40


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    rows=st.integers(1, 99),
    columns=st.integers(1, 99),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_box_of_a_smaller_image_shows_the_same_and_twice_the_target(
    height: int, width: int, rows: int, columns: int, seed: int
):
    draws = uniform_numpy(np.array([seed], np.uint64), CROP, DRAWS)
    (box,) = random_resized_boxes(draws, np.array([[height, width]]), (0.2, 1.0))
    by = reduction(box, (rows, columns))
    smaller = -(-height // by), -(-width // by)
    found = reduced(box, by, smaller)
    inside(found, smaller)
    assert np.abs(np.array(found) * by - box).max() <= by / 2 + (found.top + found.height == smaller[0]) * by
    assert by == 1 or (found.height >= 2 * rows and found.width >= 2 * columns)
    assert (by == 1) == (found == box)


@given(height=st.integers(1, 4000), width=st.integers(1, 4000), rows=st.integers(1, 99), columns=st.integers(1, 99))
def test_evaluation_box_of_any_shape(height: int, width: int, rows: int, columns: int):
    box = evaluation_box((height, width), (rows, columns), 1.0)
    inside(box, (height, width))
    touched = abs(box.height - height) <= 1 or abs(box.width - width) <= 1
    assert touched, "with a share of 1 one of the sides is whole"


def photo_like(height: int, width: int) -> Image.Image:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def decibels(ours: torch.Tensor, theirs: Image.Image) -> float:
    difference = ours.permute(1, 2, 0).numpy().astype(float) - np.asarray(theirs).astype(float)
    return 10 * math.log10(255**2 / max(1e-9, (difference**2).mean()))


@pytest.mark.parametrize("target", [(64, 64), (224, 224), (32, 96)])
@pytest.mark.parametrize("box", [Box(10, 20, 200, 250), Box(0, 0, 300, 400), Box(100, 100, 40, 30), Box(3, 5, 64, 64)])
def test_resizing_is_pillows_bicubic(box: Box, target: tuple[int, int]):
    image = photo_like(300, 400)
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    theirs = image.resize((target[1], target[0]), Image.Resampling.BICUBIC, box=corners)
    cut = image.crop(corners).resize((target[1], target[0]), Image.Resampling.BICUBIC)
    ours = crop_resize(np.asarray(image).copy(), box, target)
    assert decibels(ours, cut) > 55 and decibels(ours, theirs) > 30


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 4000), (4000, 2), (32, 32), (31, 33)])
def test_odd_images_give_whole_crops(size: tuple[int, int], channels: int):
    image = np.full((*size, channels), 200, np.uint8)
    for box in (evaluation_box(size, (32, 32), 0.875), Box(*boxes(1, size, (0.2, 1.0))[0])):
        pixels = crop_resize(image, box, (32, 32))
        assert pixels.shape == (channels, 32, 32) and pixels.dtype == torch.uint8
        assert (pixels == 200).all()


def test_an_image_of_the_right_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    assert np.array_equal(crop_resize(image, Box(0, 0, 16, 24), (16, 24)).permute(1, 2, 0).numpy(), image)
