import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.errors import raises

from mae_kit.commands.shard import shard
from mae_kit.data.index.open import open_index
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


def test_images_with_masks_have_no_pages(tmp_path: Path):
    for folder in ("images", "masks"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "in" / folder / "a.png")
    with raises("shard.pages.masks"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1, pages="split")
