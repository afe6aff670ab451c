"""Images from wherever the user points: files, folders, tars, shards; damaged ones named and left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.errors import raises
from support.photo_shards import jpeg, photo, write_shard

from mae_kit.commands.shard import shard
from mae_kit.data.index.open import open_index
from mae_kit.data.loading.images import load_images, read_images


def test_one_file_of_any_name(tmp_path: Path):
    (tmp_path / "picture").write_bytes(jpeg(0))
    pixels, names = load_images(tmp_path / "picture", (16, 24), 3, limit=8)
    assert pixels.shape == (1, 3, 16, 24) and pixels.dtype == torch.uint8 and names == [str(tmp_path / "picture")]


def test_a_nested_folder_in_order_and_up_to_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "b").mkdir()
    for name, number in {"b/2.JPG": 2, "a.jpeg": 1, "c.jpg": 3}.items():
        (tmp_path / name).write_bytes(jpeg(number))
    (tmp_path / "b" / "broken.png").write_bytes(b"<html>")
    (tmp_path / "notes.txt").write_text("no image")
    pixels, names = load_images(tmp_path, (16, 16), 3, limit=8)
    assert [Path(name).name for name in names] == ["a.jpeg", "2.JPG", "c.jpg"] and len(pixels) == 3
    assert "broken.png is left out: " in caplog.text
    assert len(load_images(tmp_path, (16, 16), 3, limit=2)[1]) == 2


@pytest.mark.parametrize("source", [".", "train-0.tar", "train-*.tar"])
def test_shards(tmp_path: Path, source: str):
    write_shard(tmp_path / "train-0.tar", range(5), damaged=(1,))
    pixels, names = load_images(tmp_path / source, (16, 16), 1, limit=3)
    assert names == ["0000", "0003", "0002"] and pixels.shape == (3, 1, 16, 16)


def test_a_few_of_many_are_spread_over_them(tmp_path: Path):
    """The first ones would all be of one class."""
    for label in "abcd":
        (tmp_path / label).mkdir()
        for number in range(5):
            Image.new("L", (8, 8)).save(tmp_path / label / f"{number}.png")
    _, names = load_images(tmp_path, (8, 8), 1, limit=4)
    assert [Path(name).parent.name for name in names] == ["a", "b", "c", "d"]
    assert len(load_images(tmp_path, (8, 8), 1, limit=9)[1]) == 9


def test_the_crop_is_the_one_of_evaluation(tmp_path: Path):
    photo(0).resize((64, 32)).save(tmp_path / "wide.png")
    ((inner, _),) = read_images(tmp_path / "wide.png", (16, 16), 3, crop_pct=0.5)
    photo(0).resize((64, 32)).crop((24, 8, 40, 24)).save(tmp_path / "middle.png")
    ((middle, _),) = read_images(tmp_path / "middle.png", (16, 16), 3)
    assert torch.equal(inner, middle)


@pytest.mark.parametrize(
    ("source", "key"), [(".", "images.none"), ("nowhere", "images.missing"), ("empty.jpg", "images.none")]
)
def test_nothing_there(tmp_path: Path, source: str, key: str):
    (tmp_path / "notes.txt").write_text("no image")
    if source == "empty.jpg":
        (tmp_path / source).write_bytes(b"")
    with raises(key):
        load_images(tmp_path / source, (16, 16), 3, 8)


def test_dark_images_of_16_bits_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name, scale in (("a", 0), ("b", 40), ("c", 40), ("d", 600)):
        Image.fromarray(np.arange(101, dtype=np.uint16)[None].repeat(4, 0) * np.uint16(scale)).save(
            tmp_path / f"{name}.png"
        )
    assert len(load_images(tmp_path, (8, 8), 1, 9)[1]) == 4
    told = caplog.text
    assert told.count("16 bits") == 1 and "b.png has 16 bits" in told


def test_hidden_files_are_no_images(tmp_path: Path):
    for name in ("a.png", "._a.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert load_images(tmp_path, (8, 8), 1, 9)[1] == [str(tmp_path / "a.png")]


def test_folders_are_walked_as_they_are_packed(tmp_path: Path):
    """Links to folders once, what is hidden not at all, links that lead nowhere neither."""
    for name in ("a", ".thumbnails", "elsewhere"):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "in" / name / "1.png")
    (tmp_path / "in" / "elsewhere").rename(tmp_path / "out")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self.png").symlink_to(tmp_path / "in" / "self.png")
    assert load_images(tmp_path / "in", (8, 8), 1, 9)[1] == [f"{tmp_path}/in/a/1.png", f"{tmp_path}/in/b/1.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_images_look_as_they_did_when_they_were_packed(tmp_path: Path, channels: int):
    """12 bits in 16: the upper 8 bits would be black."""
    (tmp_path / "in").mkdir()
    values = np.random.default_rng(0).integers(0, 4096, (32, 32)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "in/a.png")
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1, scale="0,4095")
    scale = open_index(tmp_path / "out").scale
    ((packed, _),) = read_images(tmp_path / "out", (32, 32), channels)
    ((plain, _),) = read_images(tmp_path / "in", (32, 32), channels, scale=scale)
    ((dark, _),) = read_images(tmp_path / "in", (32, 32), channels)
    assert torch.equal(plain, packed) and dark.max() < 16
    np.testing.assert_allclose(packed, np.repeat(values[None] * (255 / 4095), channels, axis=0), rtol=1e-5)
