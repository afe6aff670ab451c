"""Packing real files: what ends in which shard, that nothing is lost or torn, that the bytes are always the same."""
# Also tests commands/shard.py, data/index/listing.py, data/packing/encode.py, data/packing/folder.py,
# data/packing/layouts.py, data/packing/pack.py, data/packing/plan.py, data/packing/source.py, data/packing/sources.py,
# data/packing/splits.py, data/packing/stats.py, data/packing/tars.py.

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torchvision.datasets
from PIL import Image
from support.errors import raises
from support.photo_shards import write_shards

from mae_kit.commands.shard import shard
from mae_kit.data.decode import decode
from mae_kit.data.index.open import open_index
from mae_kit.data.packing import pack
from mae_kit.data.packing.plan import PackSettings, ShardTask, plan
from mae_kit.data.packing.sources import open_source
from mae_kit.data.packing.writer import PackJob, write_shard

COMMAND = (
    "import sys; from pathlib import Path; from mae_kit.commands.shard import shard\n"
    "if __name__ == '__main__': shard(sys.argv[1], Path(sys.argv[2]), max_shard_size=65_536, workers=int(sys.argv[3]))"
)


def photo(path: Path, seed: int, size: tuple[int, int] = (40, 30), **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(coarse).resize(size).save(path, **({"format": "JPEG"} | how))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photos, flat."""
    for i in range(12):
        photo(tmp_path / f"photos/img {i:02d}.jpg", i)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough photos for dozens of small shards."""
    root = tmp_path_factory.mktemp("many")
    for i in range(1000):
        photo(root / f"{i % 7}/{i}.jpg", i, (96, 96))
    return root


def members(out: Path, pattern: str = "*.tar") -> dict[str, bytes]:
    """Contents of all members by name; a name that comes twice is an error."""
    found: dict[str, bytes] = {}
    for path in sorted(out.glob(pattern)):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.name not in found
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.endswith(".making")]


def skipped(out: Path) -> dict[str, str]:
    lines = (out / "skipped.jsonl").read_text().splitlines()
    return {line["name"]: line["reason"] for line in map(json.loads, lines)}


def test_flat_folder_goes_in_untouched(photos: Path, tmp_path: Path):
    stats = shard(str(photos), tmp_path / "out", workers=1)
    expected = {f"{i:06d}.jpg": path.read_bytes() for i, path in enumerate(sorted(photos.iterdir()))}
    assert members(tmp_path / "out") == expected
    assert stats["splits"]["train"]["images"] == 12 and stats["splits"]["val"]["images"] == 0
    assert not (tmp_path / "out/classes.txt").exists() and not leftovers(tmp_path / "out")
    written = json.loads((tmp_path / "out/stats.json").read_text())
    assert stats == written | {"out": str(tmp_path / "out"), "next": stats["next"]}


def test_the_index_reads_what_was_written(photos: Path, tmp_path: Path):
    shard(str(photos), tmp_path / "out", workers=1)
    index = open_index(tmp_path / "out")
    assert len(index) == 12 and not index.problems and index.classes is None
    assert sorted(index.read(i) for i in range(12)) == sorted(p.read_bytes() for p in photos.iterdir())


def test_nested_folder_hidden_files_and_suffix_of_the_content(tmp_path: Path):
    photo(tmp_path / "in/a/b/really-png.jpg", 0, format="PNG")
    photo(tmp_path / "in/top.JPEG", 1)
    photo(tmp_path / "in/a/.thumbnails/small.jpg", 2)
    photo(tmp_path / "in/a/._top.jpg", 3)
    (tmp_path / "in/notes.txt").write_text("no image")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in/a/loop").symlink_to(tmp_path / "in")
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert set(members(tmp_path / "out")) == {"000000.png", "000001.jpg"}
    assert set(skipped(tmp_path / "out")) == {"notes.txt", "gone.jpg"}


def test_class_folders(tmp_path: Path):
    for i, name in enumerate(["dog/1", "dog/old/2", "cat/1", "ant/1"]):
        photo(tmp_path / f"in/{name}.jpg", i)
    (tmp_path / "in/empty").mkdir()
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    labels = {name: data for name, data in members(tmp_path / "out").items() if name.endswith("cls")}
    assert labels == {"000000.cls": b"0", "000001.cls": b"1", "000002.cls": b"2", "000003.cls": b"2"}
    assert (tmp_path / "out/classes.txt").read_text() == "ant\ncat\ndog\n"
    assert stats["splits"]["train"]["classes"] == {"ant": 1, "cat": 1, "dog": 2}
    assert open_index(tmp_path / "out").problems == []


def test_bytes_that_are_no_utf8(tmp_path: Path):
    odd = os.fsdecode(b"caf\xe9")
    for folder in ("bar", odd):
        photo(tmp_path / f"in/{folder}/{odd}.jpg", 0)
        (tmp_path / f"in/{folder}/{odd}").write_text("no image")
    with raises("shard.classes"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1, labels="none")
    assert stats["splits"]["train"]["images"] == 2 and set(skipped(tmp_path / "out")) == {f"bar/{odd}", f"{odd}/{odd}"}


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028"])
@pytest.mark.parametrize("table", [False, True])
def test_a_class_whose_name_has_several_lines(tmp_path: Path, end: str, table: bool):
    big = f"big{end}cat"
    for folder in (big, "dog"):
        photo(tmp_path / f"in/{'x' if table else folder}/{folder[0]}.jpg", 0)
    (tmp_path / "labels.csv").write_text(f'file,label\nx/b.jpg,"{big}"\nx/d.jpg,dog\n', newline="")
    labels = str(tmp_path / "labels.csv") if table else "auto"
    with raises("shard.classes"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1, labels=labels)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [("a/1", "2"), ("a/1", "a/2")])
def test_an_image_at_the_top_or_a_single_folder_makes_no_classes(tmp_path: Path, names: tuple[str, str]):
    for i, name in enumerate(names):
        photo(tmp_path / f"in/{name}.jpg", i)
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert stats["splits"]["train"]["without_label"] == 2 and not (tmp_path / "out/classes.txt").exists()


def test_labels_can_be_switched_off_and_forced(tmp_path: Path):
    photo(tmp_path / "in/2024-01/1.jpg", 0)
    photo(tmp_path / "in/2024-02/1.jpg", 1)
    assert shard(str(tmp_path / "in"), tmp_path / "none", workers=1, labels="none")["splits"]["train"]["classes"] == {}
    photo(tmp_path / "in/top.jpg", 2)
    with raises("shard.labels"):
        shard(str(tmp_path / "in"), tmp_path / "forced", workers=1, labels="folders")
    assert not (tmp_path / "forced").exists()


def labeled(folder: Path, table: str) -> Path:
    """Four photos and a table beside them."""
    for i, name in enumerate(["a", "b", "c", "d/e"]):
        photo(folder / f"in/{name}.jpg", i)
    (folder / "labels.csv").write_text(table)
    return folder / "in"


def test_a_table_of_several_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = labeled(tmp_path, "file,labels\na.jpg,sea;boat\nb.jpg,\nd/e.jpg,sea\n")
    stats = shard(str(source), tmp_path / "out", workers=1, labels=str(tmp_path / "labels.csv"))
    labels = {name: data for name, data in members(tmp_path / "out").items() if not name.endswith("jpg")}
    assert labels == {"000000.classes": b"0 1", "000001.classes": b"", "000003.classes": b"1"}
    train = stats["splits"]["train"]
    assert train["classes"] == {"boat": 1, "sea": 2} and (train["images"], train["without_label"]) == (4, 1)
    assert "1 of 4 images" in caplog.text
    index = open_index(tmp_path / "out")
    assert index.multi_label and index.classes == ["boat", "sea"]
    assert [problem.reason for problem in index.problems] == ["image without label"]
    again = shard(str(tmp_path / "out"), tmp_path / "again", workers=1)
    assert members(tmp_path / "again") == members(tmp_path / "out") and again["splits"]["train"] == train
    plain = shard(str(tmp_path / "out"), tmp_path / "plain", workers=1, labels="none")
    assert plain["splits"]["train"]["without_label"] == 4


def test_a_table_of_one_label_each_and_another_table_is_another_job(tmp_path: Path):
    source = labeled(tmp_path, "file,label\na.jpg,sea\nb.jpg,boat\n")
    shard(str(source), tmp_path / "out", workers=1, labels=str(tmp_path / "labels.csv"))
    labels = {name: data for name, data in members(tmp_path / "out").items() if not name.endswith("jpg")}
    assert labels == {"000000.cls": b"1", "000001.cls": b"0"} and not open_index(tmp_path / "out").multi_label
    labeled(tmp_path, "file,labels\na.jpg,sea\nb.jpg,boat\n")
    with raises("shard.other_job"):
        shard(str(source), tmp_path / "out", workers=1, labels=str(tmp_path / "labels.csv"))
    with raises("shard.labels"):
        shard(str(tmp_path / "out/*.tar"), tmp_path / "new", workers=1, labels=str(tmp_path / "labels.csv"))
    with raises("shard.src"):
        shard(str(tmp_path / "out"), tmp_path / "new", workers=1, labels=str(tmp_path / "labels.csv"))


def test_split_folders_keep_their_split_and_test_is_not_mixed_into_val(tmp_path: Path):
    for i, name in enumerate(["train/cat/1", "train/dog/1", "train/dog/2", "val/cat/1", "test/dog/9"]):
        photo(tmp_path / f"in/{name}.jpg", i)
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert stats["splits"]["train"]["classes"] == {"cat": 1, "dog": 2}
    assert stats["splits"]["val"]["classes"] == {"cat": 1}
    assert set(skipped(tmp_path / "out")) == {"test/dog/9.jpg"}
    with raises("shard.val_fraction"):
        shard(str(tmp_path / "in"), tmp_path / "again", workers=1, val_fraction=0.1)


def test_splits_are_known_by_other_names_and_in_capitals(tmp_path: Path):
    for i, name in enumerate(["Training/cat/1", "Training/dog/1", "Val/cat/1", "Testing/dog/9"]):
        photo(tmp_path / f"in/{name}.jpg", i)
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert stats["splits"]["train"]["classes"] == {"cat": 1, "dog": 1}
    assert stats["splits"]["val"]["classes"] == {"cat": 1}
    assert set(skipped(tmp_path / "out")) == {"Testing/dog/9.jpg"}


@pytest.mark.parametrize("odd", ["extra/1.jpg", "extra.jpg"])
def test_splits_beside_anything_else_are_refused(tmp_path: Path, odd: str):
    for i, name in enumerate(["train/1.jpg", "VAL/2.jpg", odd]):
        photo(tmp_path / f"in/{name}", i)
    with raises("shard.splits"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_a_link_to_itself_is_skipped(photos: Path, tmp_path: Path):
    for name in ("loop.jpg", "loop"):
        (photos / name).symlink_to(photos / name)
    assert shard(str(photos), tmp_path / "out", workers=1)["splits"]["train"]["images"] == 12
    assert set(skipped(tmp_path / "out")) == {"loop", "loop.jpg"}


def test_a_flat_val_beside_class_folders_in_train_is_refused(tmp_path: Path):
    for i, name in enumerate(["train/cat/1", "train/dog/1", "val/1"]):
        photo(tmp_path / f"in/{name}.jpg", i)
    with raises("shard.labels"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert shard(str(tmp_path / "in"), tmp_path / "out", workers=1, labels="none")["splits"]["val"]["images"] == 1


def test_tar_shards_keep_keys_labels_and_split(tmp_path: Path):
    source = write_shards(tmp_path / "source")
    shard(str(source), tmp_path / "out", workers=1)
    for split in ("train", "val"):
        assert members(tmp_path / "out", f"{split}-*.tar") == members(source, f"{split}-*.tar")
    assert (tmp_path / "out/classes.txt").read_bytes() == (source / "classes.txt").read_bytes()


@pytest.mark.slow
def test_mean_and_deviation_are_those_of_the_datas_own_readme(shared: Path, tmp_path: Path):
    stats = shard(str(shared / "data/clothing128"), tmp_path / "out", workers=1)
    assert np.round(stats["mean"], 4).tolist() == [0.5508, 0.4728, 0.4523]
    assert np.round(stats["std"], 4).tolist() == [0.2526, 0.2503, 0.2390]


def test_one_tar_or_a_pattern_is_a_source_of_one_split(tmp_path: Path):
    source = write_shards(tmp_path / "source")
    one = shard(str(source / "val-0.tar"), tmp_path / "one", workers=1)
    pattern = shard(str(source / "val-*.tar"), tmp_path / "pattern", workers=1, val_fraction=0.5)
    assert one["splits"]["train"]["images"] == 32
    assert pattern["splits"]["train"]["images"] + pattern["splits"]["val"]["images"] == 32


def test_a_second_image_of_a_key_has_a_line(photos: Path, tmp_path: Path):
    images = sorted(photos.iterdir())
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, image in zip(("a.jpg", "a.png", "b.jpg"), images, strict=False):
            tar.add(image, name)
    stats = shard(str(tmp_path / "x.tar"), tmp_path / "out", workers=1)
    assert stats["splits"]["train"]["images"] == 2 and set(skipped(tmp_path / "out")) == {"x.tar/a"}


def test_keys_that_come_twice_are_numbered_anew(photos: Path, tmp_path: Path):
    for name in ("a", "b"):
        shard(str(photos), tmp_path / name, workers=1, seed=ord(name))
        (tmp_path / "both").mkdir(exist_ok=True)
        (tmp_path / name / "train-000000.tar").rename(tmp_path / f"both/{name}.tar")
    shard(str(tmp_path / "both"), tmp_path / "out", workers=1)
    assert len(members(tmp_path / "out")) == 24


def test_val_is_disjoint_and_keeps_its_images_when_more_are_added(many: Path, tmp_path: Path):
    for i in range(100):
        os.makedirs(tmp_path / "some", exist_ok=True)
        (tmp_path / f"some/{i:03d}.jpg").hardlink_to(many / f"{i % 7}/{i}.jpg")
    stats = shard(str(tmp_path / "some"), tmp_path / "before", workers=1, val_fraction=0.2)
    before = {split: set(members(tmp_path / "before", f"{split}-*").values()) for split in ("train", "val")}
    assert not before["train"] & before["val"] and len(before["train"] | before["val"]) == 100
    assert 10 <= stats["splits"]["val"]["images"] <= 30
    for i in range(100, 200):
        (tmp_path / f"some/a{i:03d}.jpg").hardlink_to(many / f"{i % 7}/{i}.jpg")
    shard(str(tmp_path / "some"), tmp_path / "after", workers=1, val_fraction=0.2)
    after = {split: set(members(tmp_path / "after", f"{split}-*").values()) for split in ("train", "val")}
    assert before["train"] < after["train"] and before["val"] < after["val"]


def test_a_class_that_one_side_lacks_is_told(many: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for i in range(14):
        (tmp_path / f"few/{i % 7}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"few/{i % 7}/{i}.jpg").hardlink_to(many / f"{i % 7}/{i}.jpg")
    splits = shard(str(tmp_path / "few"), tmp_path / "out", workers=1, val_fraction=0.3)["splits"]
    said = caplog.text.replace("\n", " ")
    for split, lost in ((s, {str(i) for i in range(7)} - set(splits[s]["classes"])) for s in ("train", "val")):
        assert (f"classes without an image in {split}: {', '.join(sorted(lost))}" in said) == bool(lost)
    assert set(splits["val"]["classes"]) < {str(i) for i in range(7)}, "else this shows nothing"


def test_shards_stay_below_their_size_and_are_mixed(many: Path, tmp_path: Path):
    shard(str(many), tmp_path / "out", workers=1, max_shard_size=100_000)
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.tar")]
    assert max(sizes) <= 100_000 and len(sizes) > 10
    first = {data for name, data in members(tmp_path / "out", "train-000000.tar").items() if name.endswith("cls")}
    assert len(first) == 7


def test_statistics_equal_numpy(photos: Path, tmp_path: Path):

    stats = shard(str(photos), tmp_path / "out", workers=1)
    pixels = np.stack([decode(path.read_bytes()) for path in photos.iterdir()]) / 255
    np.testing.assert_allclose(stats["mean"], pixels.mean((0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(stats["std"], pixels.std((0, 1, 2)), atol=1e-12)


def test_resize_shrinks_the_short_side_turns_upright_and_keeps_gray(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "in/0-turned.jpg", 0, (400, 200), exif=exif)
    photo(tmp_path / "in/1-small.png", 1, (30, 20), format="PNG")
    Image.radial_gradient("L").resize((99, 300)).save(tmp_path / "in/2-gray.png")
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1, resize=50, quality=80)
    found = {name: Image.open(io.BytesIO(data)) for name, data in members(tmp_path / "out").items()}
    assert {name: (image.size, image.mode, image.format) for name, image in found.items()} == {
        "000000.jpg": ((50, 100), "RGB", "JPEG"),
        "000001.jpg": ((30, 20), "RGB", "JPEG"),
        "000002.jpg": ((50, 152), "L", "JPEG"),
    }


def test_resize_is_close_to_pillow(tmp_path: Path):
    path = photo(tmp_path / "in/big.jpg", 7, (640, 480), quality=95)
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1, resize=96, quality=95)
    ours = np.asarray(Image.open(io.BytesIO(members(tmp_path / "out")["000000.jpg"])), float)
    theirs = np.asarray(Image.open(path).resize((128, 96), Image.Resampling.BICUBIC), float)
    assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 1.5


def test_channels_of_arrays(tmp_path: Path):
    (tmp_path / "in").mkdir()
    array = np.arange(4 * 4 * 5, dtype=np.uint8).reshape(4, 4, 5)
    np.save(tmp_path / "in/a.npy", array)
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1, channels=5)
    assert set(members(tmp_path / "out")) == {"000000.npy"}
    np.testing.assert_allclose(stats["mean"], array.reshape(-1, 5).mean(0) / 255)


def test_8_bits_of_four_bands(tmp_path: Path):
    """Beside RGB a fourth band is left out with a line; without colors nobody knows which three are a photo."""
    bands = np.arange(8 * 8 * 4, dtype=np.uint8).reshape(8, 8, 4)
    for name, kind, kept in (("rgb", "rgb", 3), ("bands", "minisblack", 4)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "1.tif", bands, photometric=kind, extrasamples=[0] * (1 if kept == 3 else 3))
        stats = shard(str(tmp_path / name), tmp_path / f"{name}-out", workers=1)
        assert len(stats["mean"]) == kept and stats["splits"]["train"]["images"] == 1
    with raises("shard.channels.resize"):
        shard(str(tmp_path / "bands"), tmp_path / "small", workers=1, resize=4)


def xray(path: Path, scale: int) -> np.ndarray:
    """A gray PNG of 16 bits with values up to 100 * scale; returns its values."""
    values = (np.arange(101, dtype=np.uint16) * scale)[None].repeat(4, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


def only(out: Path) -> np.ndarray:
    """The values of the only member."""
    ((name, stored),) = members(out).items()
    assert name.endswith(".npy")
    return np.load(io.BytesIO(stored))


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32, ">u2"])
@pytest.mark.parametrize("bands", [1, 3, 13])
def test_values_are_stored_as_they_are(tmp_path: Path, kind: Any, bands: int):
    values = np.arange(4 * 5 * bands).reshape(4, 5, bands).astype(kind)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in/a.npy", np.asfortranarray(values))
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    np.testing.assert_array_equal(only(tmp_path / "out"), values)
    assert only(tmp_path / "out").dtype == np.dtype(kind).newbyteorder("=")
    np.testing.assert_allclose(stats["bands"]["mean"], values.reshape(-1, bands).astype(float).mean(axis=0))


def test_16_bit_grays_are_stored_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    values = xray(tmp_path / "in/a.png", 40)
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1, scale="0,4095")
    np.testing.assert_array_equal(only(tmp_path / "out")[..., 0], values)
    assert "0 becomes 0 and 4,095 becomes 1" in caplog.text
    assert stats["mean"] == [pytest.approx(values.mean() / 4095, rel=1e-3)]
    with raises("shard.other_job"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1)


def test_some_bands_in_another_order(tmp_path: Path):
    values = np.arange(4 * 5 * 13, dtype=np.uint16).reshape(4, 5, 13)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in/a.npy", values)
    np.save(tmp_path / "in/b.npy", values[..., :3])
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1, bands="4,3,2")
    np.testing.assert_array_equal(only(tmp_path / "out"), values[..., [3, 2, 1]])
    assert skipped(tmp_path / "out") == {"b.npy": "3 bands, without band 4"}


def test_what_is_of_another_kind_has_a_line(tmp_path: Path):
    for number in range(4):
        xray(tmp_path / f"in/{number}.png", 40 + number)
    photo(tmp_path / "in/photo.jpg", 0)
    np.save(tmp_path / "in/float.npy", np.zeros((2, 2, 1), np.float32))
    np.save(tmp_path / "in/nan.npy", np.full((2, 2, 1), np.nan, np.float32))
    np.save(tmp_path / "in/bands.npy", np.zeros((2, 2, 3), np.uint16))
    np.save(tmp_path / "in/cut.npy", np.zeros((2, 2, 1), np.uint16))
    (tmp_path / "in/cut.npy").write_bytes((tmp_path / "in/cut.npy").read_bytes()[:-1])
    stats = shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert stats["splits"]["train"]["images"] == 4
    words = {
        "photo.jpg": "8 bits",
        "float.npy": "float32",
        "bands.npy": "3 bands",
        "cut.npy": "cut",
        "nan.npy": "float32",
    }
    assert skipped(tmp_path / "out").keys() == words.keys()
    assert all(words[name] in reason for name, reason in skipped(tmp_path / "out").items())


def test_nan_everywhere_is_no_image(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name, value in (("a", 1), ("b", np.nan), ("c", np.inf)):
        np.save(tmp_path / f"in/{name}.npy", np.full((2, 2, 3), value, np.float32))
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert skipped(tmp_path / "out") == {"b.npy": "no pixel with data", "c.npy": "pixels that are not finite"}


def test_photos_stay_as_they_are_among_a_few_of_more_bits(tmp_path: Path):
    paths = [photo(tmp_path / f"in/{number}.jpg", number) for number in range(2)]
    xray(tmp_path / "in/a.png", 40)
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert sorted(members(tmp_path / "out").values()) == sorted(path.read_bytes() for path in paths)
    assert "8 bits" in skipped(tmp_path / "out")["a.png"]


@pytest.mark.parametrize("setting", [{"scale": "range"}, {"nodata": 0.0}, {"bands": "1"}])
def test_settings_without_effect_on_photos_are_refused(photos: Path, tmp_path: Path, setting: dict[str, Any]):
    with raises(f"shard.{next(iter(setting))}.8_bits"):
        shard(str(photos), tmp_path / "out", workers=1, **setting)
    assert not (tmp_path / "out").exists()


def test_a_scale_that_was_found_outlives_a_stop(tmp_path: Path):
    for number in range(4):
        xray(tmp_path / f"in/{number}.png", 40)
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    before = files(tmp_path / "out")
    (tmp_path / "out/train-000000.tar").unlink()
    shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert files(tmp_path / "out") == before


def test_every_bad_image_ends_in_a_shard_or_in_the_list(shared: Path, tmp_path: Path):
    source = shared / "data/bad/images"
    stats = shard(str(source), tmp_path / "out", workers=1)
    names = sorted(path.name for path in source.iterdir())
    listed = skipped(tmp_path / "out")
    stored = set(members(tmp_path / "out").values())
    assert all(reason for reason in listed.values()) and len(listed) == stats["skipped"]
    whole = {name for name, reason in listed.items() if "is kept" not in reason}  # first frames and pages are
    assert all((name in whole) != ((source / name).read_bytes() in stored) for name in names)
    assert {"made-cut-last2.jpg", "made-lfs-pointer.jpg", "made-big-10000x10000.png"} <= set(listed)
    assert not {"made-ok.jpg", "made-uppercase.JPEG", "made-png-named.jpg"} & set(listed)
    assert not open_index(tmp_path / "out").problems


def test_a_second_run_writes_nothing_anew_and_another_job_is_refused(photos: Path, tmp_path: Path):
    first = shard(str(photos), tmp_path / "out", workers=1)
    tar = tmp_path / "out/train-000000.tar"
    before = tar.stat().st_ino
    assert shard(str(photos), tmp_path / "out", workers=1) == first and tar.stat().st_ino == before
    with raises("shard.other_job"):
        shard(str(photos), tmp_path / "out", workers=1, seed=1)
    photo(photos / "new.jpg", 99)
    with raises("shard.other_job"):
        shard(str(photos), tmp_path / "out", workers=1)


def test_a_shard_that_was_cut_afterwards_is_written_again(photos: Path, tmp_path: Path):
    shard(str(photos), tmp_path / "out", workers=1)
    before = files(tmp_path / "out")
    os.truncate(tmp_path / "out/train-000000.tar", 1000)
    shard(str(photos), tmp_path / "out", workers=1)
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"resize": 0}, "shard.resize"),
        ({"resize": 8, "quality": 101}, "shard.quality"),
        ({"quality": 80}, "shard.quality"),
        ({"val_fraction": 1.0}, "shard.val_fraction"),
        ({"val_fraction": 1e-9}, "shard.val_fraction"),
        ({"max_shard_size": 10}, "shard.max_shard_size"),
        ({"workers": -1}, "shard.workers"),
        ({"scale": "5,5"}, "shard.scale"),
        ({"scale": "0,inf"}, "shard.scale"),
        ({"scale": "best"}, "shard.scale"),
        ({"bands": "0,1"}, "shard.bands"),
        ({"resize": 8, "channels": 4}, "shard.channels"),
        ({"max_pixels": 10**8}, "shard.max_pixels"),
        ({"max_pixels": 10**9, "resize": 8}, "shard.max_pixels"),
    ],
)
def test_arguments_out_of_range(photos: Path, tmp_path: Path, arguments: dict[str, Any], key: str):
    with raises(key):
        shard(str(photos), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_none(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("x")
    (tmp_path / "page.tar").write_text("<html>" * 400)
    cases = {
        "missing": "shard.src.missing",
        "empty": "shard.src.no_image",
        "text": "shard.src.no_image",
        "text/a.txt": "shard.src.file",
        "page.tar": "shards.unusable",
        "no-*.tar": "shards.unknown",
    }
    for name, key in cases.items():
        with raises(key) as error:
            shard(str(tmp_path / name), tmp_path / "out", workers=1)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be(photos: Path, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/holiday.txt").write_text("x")
    for name in ("file", "full", "photos/out", "photos", "train-*.tar"):
        with raises("shard.out"):
            shard(str(photos), tmp_path / name, workers=1)
    assert len(list(photos.iterdir())) == 12


@pytest.mark.parametrize("out", ["/proc/shards", "/dev/null/shards"])
def test_an_out_that_takes_no_files(photos: Path, out: str):
    with raises("shard.out"):
        shard(str(photos), Path(out), workers=1)


def test_nothing_decodes(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_text("<html>")
    with raises("shard.nothing"):
        shard(str(tmp_path / "in"), tmp_path / "out", workers=1)
    assert set(skipped(tmp_path / "out")) == {"a.jpg"} and not list((tmp_path / "out").glob("*.tar"))


def test_a_job_that_packed_nothing_leaves_its_list_and_the_folder_to_the_corrected_one(photos: Path, tmp_path: Path):
    with raises("shard.nothing"):
        shard(str(photos), tmp_path / "out", workers=1, channels=4)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["skipped.jsonl"]
    assert len(skipped(tmp_path / "out")) == 12
    assert shard(str(photos), tmp_path / "out", workers=1)["splits"]["train"]["images"] == 12
    assert not skipped(tmp_path / "out")


@pytest.mark.slow
def test_a_full_disk_is_named_and_leaves_nothing_half_written(many: Path, tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # writing further fails just as on a full disk
    try:
        with raises("shard.out"):
            shard(str(many), tmp_path / "out", workers=1, max_shard_size=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not leftovers(tmp_path / "out") and not list((tmp_path / "out").glob("*.tar"))
    shard(str(many), tmp_path / "out", workers=1, max_shard_size=100_000)
    assert len(open_index(tmp_path / "out")) == 1000


def start(source: Path, out: Path, workers: int, wait_for: int) -> subprocess.Popen[str]:
    """Run the verb in a session of its own, as in a terminal, until some shards are done."""
    command = [sys.executable, "-c", COMMAND, str(source), str(out), str(workers)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (out / "shards.json").exists() or len(list(out.glob(".shards/*.json"))) < wait_for:
        assert process.poll() is None and time.monotonic() < deadline, "ended before it could be stopped"
        time.sleep(0.001)
    return process


@pytest.mark.long
def test_killed_runs_finish_to_the_same_bytes_for_any_number_of_workers(many: Path, tmp_path: Path):
    shard(str(many), tmp_path / "whole", workers=1, max_shard_size=65_536)
    expected = files(tmp_path / "whole")
    for workers in (1, 2):
        out = tmp_path / f"killed-{workers}"
        process = start(many, out, workers, wait_for=5)
        process.kill()
        process.communicate()
        done = {
            path.name: path.stat().st_ino for path in out.glob("*.tar") if (out / f".shards/{path.name}.json").exists()
        }
        assert 5 <= len(done) < len([name for name in expected if name.endswith(".tar")])
        shard(str(many), out, workers=3 - workers, max_shard_size=65_536)
        assert files(out) == expected
        assert all((out / name).stat().st_ino == number for name, number in done.items())


@pytest.mark.long
@pytest.mark.parametrize(("workers", "wait_for"), [(1, 3), (2, 3), (2, 0)])
def test_ctrl_c_leaves_whole_shards_only(many: Path, tmp_path: Path, workers: int, wait_for: int):
    process = start(many, tmp_path / "out", workers, wait_for)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    # One process says so, once; with the error it was handling at that moment, if any.
    assert process.returncode != 0 and errors.count("\nKeyboardInterrupt\n") == 1
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert not leftovers(tmp_path / "out")
    records = {path.name.removesuffix(".json") for path in (tmp_path / "out/.shards").iterdir()}
    assert {path.name for path in (tmp_path / "out").glob("*.tar")} - records == set()


def attempt(job: PackJob, task: ShardTask, together: threading.Barrier) -> None:
    def tick() -> None:
        together.wait(60)

    write_shard(job, task, tick)


@pytest.mark.parametrize("decode", [True, False])
def test_two_attempts_at_once_are_as_good_as_one(photos: Path, tmp_path: Path, decode: bool):
    """As where a node is cut off: its task is begun again elsewhere and ends twice."""
    if not decode:
        for path in photos.iterdir():
            path.write_text("<html>")
    source, settings = open_source(str(photos), "auto"), PackSettings(None, 90, 0.0, 1 << 20, 0, "auto", 3)
    (task,) = plan(source, settings, np.full(12, 1000))
    for name, attempts in {"one": 1, "two": 2}.items():
        job = PackJob(tmp_path / name, settings, source.read, 3)
        (tmp_path / name / ".shards").mkdir(parents=True)
        for _ in range(10):
            together = threading.Barrier(attempts)
            with ThreadPoolExecutor(attempts) as pool:
                for done in [pool.submit(attempt, job, task, together) for _ in range(attempts)]:
                    done.result()
            assert (tmp_path / name / task.shard).exists() == decode
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_what_another_machine_may_be_writing_is_left_alone_until_all_is_there(photos: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    fresh, stale = (tmp_path / f"out/.train-000000.tar.{name}.making" for name in ("fresh", "stale"))
    for path in (fresh, stale):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    source = photos.rename(tmp_path / "elsewhere")
    photos.mkdir()
    (photos / "page.jpg").write_text("<html>")
    with raises("shard.nothing"):
        shard(str(photos), tmp_path / "out", workers=1)
    assert leftovers(tmp_path / "out") == [fresh]
    (tmp_path / "out/skipped.jsonl").unlink()
    shard(str(source), tmp_path / "out", workers=1)
    assert not leftovers(tmp_path / "out")


def test_shards_that_went_to_a_disk_of_another_machine_are_missed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def elsewhere(job: PackJob, task: ShardTask, tick) -> None:
        (tmp_path / "node/.shards").mkdir(parents=True)
        write_shard(job._replace(out=tmp_path / "node"), task, tick)

    monkeypatch.setattr(pack, "write_shard", elsewhere)
    with raises("shard.lost"):
        shard(str(photos), tmp_path / "out", workers=1)


def test_a_source_that_goes_away_is_no_reason_to_leave_images_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unmounted(job: PackJob, task: ShardTask, tick) -> None:
        photos.rename(tmp_path / "unmounted")
        write_shard(job, task, tick)

    with monkeypatch.context() as patch:
        patch.setattr(pack, "write_shard", unmounted)
        with raises("source.gone"):
            shard(str(photos), tmp_path / "out", workers=1)
    (tmp_path / "unmounted").rename(photos)
    assert shard(str(photos), tmp_path / "out", workers=1)["skipped"] == 0


@pytest.mark.long
def test_workers_of_a_killed_run_end_and_clean_up(many: Path, tmp_path: Path):
    process = start(many, tmp_path / "out", 2, wait_for=3)
    process.kill()
    process.communicate()  # their share of the pipe closes as they end
    deadline = time.monotonic() + 20
    while leftovers(tmp_path / "out") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not leftovers(tmp_path / "out")


# Libraries


def test_a_library_that_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with raises("shard.hub"):
        shard("hf:beans", tmp_path / "out")
    with raises("shard.hub"):
        shard("torchvision:Nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_data_set_of_hugging_face_keeps_its_files_classes_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home")
    for number, name in enumerate(("train/cat", "train/dog", "train/dog", "test/cat")):
        photo(tmp_path / "hub" / name / f"{number}.jpg", number)
    stats = shard(f"hf:{tmp_path / 'hub'}", tmp_path / "out", workers=1)
    assert stats["splits"]["train"]["classes"] == {"cat": 1, "dog": 2}
    assert stats["splits"]["val"]["classes"] == {"cat": 1}
    stored = set(members(tmp_path / "out").values())
    assert {path.read_bytes() for path in (tmp_path / "hub").rglob("*.jpg")} < stored
    assert shard(f"hf:{tmp_path / 'hub'}:test", tmp_path / "test", workers=1)["splits"]["train"]["images"] == 1


class Squares(torchvision.datasets.VisionDataset):
    """A dataset of pixels with the constructor of CIFAR10."""

    classes = ("dark", "bright")

    def __init__(self, root: str | Path, train: bool = True, download: bool = False):
        super().__init__(root)
        self.targets = [0, 1, 1] if train else [1]

    def __getitem__(self, index: int):
        label = self.targets[index]
        return Image.new("RGB", (8, 8), (200 * label + index, 0, 0)), label

    def __len__(self) -> int:
        return len(self.targets)


def test_torchvision_pixels_are_stored_losslessly_with_their_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torchvision.datasets, "Squares", Squares, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stats = shard("torchvision:Squares", tmp_path / "out", workers=1)
    assert stats["splits"]["train"]["classes"] == {"dark": 1, "bright": 2}
    assert stats["splits"]["val"]["classes"] == {"bright": 1}
    found = members(tmp_path / "out")
    assert Image.open(io.BytesIO(found["000002.png"])).getpixel((0, 0)) == (202, 0, 0)
    assert (tmp_path / "out/classes.txt").read_text() == "dark\nbright\n"
    monkeypatch.setattr(Squares, "classes", ["crane", "crane"])
    stats = shard("torchvision:Squares", tmp_path / "cranes", workers=1)
    assert stats["splits"]["train"]["classes"] == {"crane": 1, "crane (2)": 2}
    assert shard("torchvision:Squares:test", tmp_path / "test", workers=1)["splits"]["train"]["images"] == 1
    with raises("shard.hub"):
        shard("torchvision:Squares:val", tmp_path / "val", workers=1)
