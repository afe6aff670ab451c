import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.errors import raises

from mae_kit.commands.shard import shard
from mae_kit.data.decode import decode
from mae_kit.data.index.open import open_index
from mae_kit.data.loading.images import read_images
from mae_kit.data.scale import decode_on_scale
from mae_kit.data.tiff import describe


def stored(out: Path) -> dict[str, np.ndarray]:
    """Values by the name of the source."""
    index = open_index(out)
    return {index.file(row): np.load(io.BytesIO(index.read(row))) for row in range(len(index))}


def band(number: int, size: tuple[int, int] = (4, 5)) -> np.ndarray:
    return np.full(size, number * 100, np.uint16) + np.arange(size[1], dtype=np.uint16)


def write(file: Path, values: np.ndarray, **how) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, values, photometric="minisblack", **how)


def test_every_page_is_a_sample(tmp_path: Path):
    write(tmp_path / "in/a/stack.tif", np.stack([band(1), band(2), band(3)]))
    write(tmp_path / "in/b/one.tif", band(4))
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1, pages="split")
    found = stored(tmp_path / "out")
    assert sorted(found) == ["a/stack.tif#1", "a/stack.tif#2", "a/stack.tif#3", "b/one.tif"]
    for number in (1, 2, 3):
        np.testing.assert_array_equal(found[f"a/stack.tif#{number}"][..., 0], band(number))
    index = open_index(tmp_path / "out")
    assert {index.file(row): int(index.label[row]) for row in range(4)} == {name: int("b/" in name) for name in found}


def test_pages_are_bands(tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path / f"in/{name}.tif", np.stack([band(1), band(2), band(3)]))
    write(tmp_path / "in/c.tif", np.stack([band(1), band(2)]))
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1, pages="stack")
    assert {values.shape for values in stored(tmp_path / "out").values()} == {(4, 5, 3)}
    assert len(stats["mean"]) == 3 and stats["skipped"] == 1


def test_the_first_page_is_kept_with_a_line(tmp_path: Path):
    write(tmp_path / "in/a.tif", np.stack([band(1), band(2)]))
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    np.testing.assert_array_equal(stored(tmp_path / "out")["a.tif"][..., 0], band(1))
    assert "1 of 2 pages" in next(iter(stats["reasons"]))


def sentinel(folder: Path, scene: str, *bands: str) -> None:
    for name in bands:
        nodata = [(42113, "s", 0, "0", True)]
        write(folder / f"{scene}_{name}.tif", band(int(name.strip("BA"))), extratags=nodata)


def test_files_of_a_sample_are_its_bands(tmp_path: Path):
    for scene in ("a/T1", "b/T2", "b/T3"):
        sentinel(tmp_path / "in", scene, "B10", "B2", "B3")
    sentinel(tmp_path / "in", "b/T4", "B2", "B3")
    (tmp_path / "in/a/preview.png").write_bytes(b"")
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1, group="{sample}_{band}.tif")
    found = stored(tmp_path / "out")
    assert sorted(found) == ["a/T1", "b/T2", "b/T3"] and stats["scale"]["nodata"] == 0
    np.testing.assert_array_equal(found["a/T1"], np.stack([band(2), band(3), band(10)], axis=2))
    assert open_index(tmp_path / "out").classes == ["a", "b"]
    assert stats["reasons"].keys() == {"without band B10", "does not fit --group"}


def named(folder: Path, name: str, bands: list[int]) -> None:
    """A GeoTIFF whose bands are in this order, and so called."""
    values = np.stack([band(number) for number in bands], axis=2)
    tags = [describe([f"B{number}" for number in bands])]
    folder.mkdir(parents=True, exist_ok=True)
    how = {"photometric": "minisblack", "planarconfig": "contig", "extratags": tags}
    tifffile.imwrite(folder / f"{name}.tif", values, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("bands", ["B3,B2", "2,1", None])
def test_bands_are_found_by_their_names(tmp_path: Path, bands: str | None):
    """In files that hold them in another order, or hold more."""
    for name in ("a", "b", "c"):
        named(tmp_path / "in", name, [2, 3])
    named(tmp_path / "in", "d", [8, 3, 2])
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1, bands=bands)
    order = [3, 2] if bands else [2, 3]
    expected = np.stack([band(number) for number in order], axis=2)
    for values in stored(tmp_path / "out").values():
        np.testing.assert_array_equal(values, expected)
    assert stats["scale"]["names"] == [f"B{number}" for number in order] and not stats["skipped"]
    scale = open_index(tmp_path / "out").scale
    assert scale
    for file in (tmp_path / "in").iterdir():
        np.testing.assert_array_equal(decode_on_scale(file.read_bytes(), 2, scale, packed=False), expected)


def test_names_of_grouped_files_are_those_of_bands(tmp_path: Path):
    sentinel(tmp_path / "in", "T1", "B2", "B3", "B8A")
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1, group="{sample}_{band}.tif", bands="B8A,B2")
    np.testing.assert_array_equal(stored(tmp_path / "out")["T1"], np.stack([band(8), band(2)], axis=2))
    assert stats["scale"]["names"] == ["B8A", "B2"]


def test_bands_of_other_sizes_are_left_out(tmp_path: Path):
    sentinel(tmp_path / "in", "T1", "B1", "B2")
    sentinel(tmp_path / "in", "T2", "B1")
    write(tmp_path / "in/T2_B2.tif", band(2, (8, 10)))
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1, group="{sample}_{band}.tif")
    assert list(stored(tmp_path / "out")) == ["T1"] and "different size" in next(iter(stats["reasons"]))


@pytest.mark.parametrize("pattern", ["*.tif", "{sample}.tif", "{sample}{sample}_{band}.tif", "{sample}-{band}.jpg"])
def test_patterns_that_group_nothing(tmp_path: Path, pattern: str):
    sentinel(tmp_path / "in", "T1", "B1", "B2")
    with raises("shard.group"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1, group=pattern)
    assert not (tmp_path / "out").exists()


COLORS = (200, 10, 10), (10, 200, 10), (10, 10, 200)


def animation(kind: str) -> bytes:
    """Three frames, each of one color; lossless."""
    if kind == "jxl":
        frames = np.array(COLORS, np.uint8)[:, None, None].repeat(6, axis=1).repeat(8, axis=2)
        return bytes(imagecodecs.jpegxl_encode(frames, lossless=True))
    first, *others = (Image.new("RGB", (8, 6), color) for color in COLORS)
    stream, how = io.BytesIO(), {"lossless": True} if kind == "webp" else {}
    first.save(stream, kind, save_all=True, append_images=others, duration=100, **how)
    return stream.getvalue()


@pytest.fixture(params=["gif", "png", "webp", "jxl"])
def animated(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with an animation and a picture."""
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/a.{request.param}").write_bytes(animation(request.param))
    Image.new("RGB", (8, 6), COLORS[0]).save(tmp_path / "in/b.png")
    return tmp_path


def test_the_first_frame_of_an_animation_is_kept_with_a_line(animated: Path):
    stats = shard(str(animated / "in"), animated / "out", workers=1)
    assert "2 of 3 frames" in next(iter(stats["reasons"])) and stats["skipped"] == 1
    index = open_index(animated / "out")
    assert all((decode(index.read(row)) == COLORS[0]).all() for row in range(2))


def test_every_frame_is_a_sample(animated: Path):
    stats = shard(str(animated / "in"), animated / "out", workers=1, pages="split")
    index = open_index(animated / "out")
    found = {index.file(row): decode(index.read(row)) for row in range(len(index))}
    assert len(found) == 4 and not stats["skipped"]
    for name, pixels in found.items():
        _, _, number = name.partition("#")
        assert pixels.shape == (6, 8, 3) and (pixels == COLORS[int(number or 1) - 1]).all()


def test_frames_are_bands(animated: Path):
    (animated / "in/b.png").unlink()
    stats = shard(str(animated / "in"), animated / "out", workers=1, pages="stack")
    index = open_index(animated / "out")
    assert len(stats["mean"]) == 9 and not stats["skipped"]
    np.testing.assert_array_equal(decode(index.read(0), 9)[0, 0], np.concatenate(COLORS))


def test_what_is_predicted_on_is_the_first_frame_with_a_line(animated: Path, caplog: pytest.LogCaptureFixture):
    ((pixels, _), *_) = read_images(animated / "in", (6, 8), 3)
    assert (pixels.permute(1, 2, 0).numpy() == COLORS[0]).all()
    assert "the first of 3 pages or frames is taken" in caplog.text


def test_images_with_masks_have_no_pages(tmp_path: Path):
    for folder in ("images", "masks"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "in" / folder / "a.png")
    with raises("shard.pages.masks"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1, pages="split")
