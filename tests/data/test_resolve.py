"""What `--data` stands for: real folders of images and of shards."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.errors import raises
from support.photo_shards import jpeg, photo, write_shard, write_shards

from mae_kit.commands.shard import shard
from mae_kit.data import resolve as resolving
from mae_kit.data.index.open import open_index
from mae_kit.data.resolve import resolve, resolve_pair, resolve_val


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache."""
    monkeypatch.setattr(resolving, "user_cache", lambda: tmp_path / "cache/mae_kit")
    return tmp_path / "cache/mae_kit"


def images(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(folder / name)
    return folder


def classes(folder: Path, each: int = 30) -> Path:
    return images(folder, *(f"{name}/{i}.png" for name in ("ant", "bee") for i in range(each)))


def ids(pattern: str) -> set[str]:
    index = open_index(pattern)
    return {f"{index.shards[shard]}/{key}" for shard, key in zip(index.shard.tolist(), index.keys, strict=True)}


def test_a_folder_of_shards_knows_train_from_val(tmp_path: Path):
    shards = str(write_shards(tmp_path / "shards"))
    assert len(ids(resolve(shards, "train"))) == 96 and len(ids(resolve(shards, "val"))) == 32
    assert resolve_pair(shards) == (f"{shards}/train-*.tar", f"{shards}/val-*.tar")
    assert resolve(f"{shards}/*.tar", "val") == f"{shards}/val-*.tar", "a pattern of both"


def test_names_that_share_no_start_are_listed(tmp_path: Path):
    for name in ("0-train", "1-train", "2-val"):
        write_shard(tmp_path / f"{name}.tar", range(4))
    train, val = resolve_pair(str(tmp_path))
    assert open_index(train).shards == ["0-train.tar", "1-train.tar"] and open_index(val).shards == ["2-val.tar"]


@pytest.mark.parametrize("data", ["shards", "shards/train-*.tar", "shards/train-0.tar", "shards/train-{1..0}.tar"])
def test_one_split_alone(tmp_path: Path, data: str):
    for number in range(2):
        (tmp_path / "shards").mkdir(exist_ok=True)
        write_shard(tmp_path / f"shards/train-{number}.tar", range(4))
    place = str(tmp_path / data)
    assert resolve(place, "train") == place
    with raises("data.no_val"):
        resolve(place, "val")
    assert resolve_pair(place, place)[1] == place, "who names other shards to score on, means all of them"


def test_held_out_shards_alone(tmp_path: Path):
    write_shard(tmp_path / "test-0.tar", range(4))
    assert resolve(str(tmp_path), "val") == resolve(str(tmp_path), "train") == str(tmp_path)


def test_a_folder_of_images_is_packed_once(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture):
    folder = classes(tmp_path / "photos")
    caplog.set_level("INFO")
    place = resolve(str(folder), "train")
    assert Path(place).parent == cache and place in caplog.text
    assert len(ids(place)) == 60 and open_index(place).classes == ["ant", "bee"]
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.tar")}
    train, val = resolve_pair(str(folder))
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.tar")} == before
    assert ids(train) | ids(val) == ids(place) and not ids(train) & ids(val) and 0 < len(ids(val)) < 20


def test_a_folder_that_changed_is_packed_again(tmp_path: Path):
    folder = classes(tmp_path / "photos", 3)
    first = resolve(str(folder), "train")
    os.utime(folder / "ant/0.png", ns=(1, 1))
    second = resolve(str(folder), "train")
    (folder / "ant/1.png").unlink()
    third = resolve(str(folder), "train")
    assert len({first, second, third}) == 3 and len(ids(third)) == 5


def test_a_folder_with_splits_keeps_them(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = images(tmp_path / "photos", *(f"{split}/{i}.png" for split in ("train", "val") for i in range(3)))
    assert len(ids(resolve(str(folder), "train"))) == 3 == len(ids(resolve(str(folder), "val")))
    assert "3 images to train on and 3 to score on" in caplog.text and "left out" not in caplog.text


def test_images_without_labels_are_refused_before_they_are_packed(tmp_path: Path, cache: Path):
    folder, labeled = str(images(tmp_path / "photos", "0.png", "1.png")), str(classes(tmp_path / "labeled", 4))
    for data, val in ((folder, None), (labeled, folder)):
        with raises("data.path.no_labels"):
            resolve_pair(data, val)
    with raises("data.path.no_labels"):
        resolve_val(folder, None)
    assert len([*cache.glob("shards-*/stats.json")]) <= 1, "of those that have labels"


def test_what_is_left_out_of_a_folder_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = images(tmp_path / "photos", "0.png", "1.png")
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:40])
    resolve(str(folder), "train")
    assert "1 file is left out, whole or in part, listed with reasons in" in caplog.text


def test_a_job_that_was_stopped_is_finished(tmp_path: Path, cache: Path):
    folder = classes(tmp_path / "photos", 4)
    place = Path(resolve(str(folder), "train"))
    (place / "stats.json").unlink()
    next(place.glob("train*.tar")).unlink()
    assert len(ids(resolve(str(folder), "train"))) == 8


@pytest.mark.parametrize(
    ("data", "key"), [("photos", "data.pack"), ("none", "data.path"), ("photos/a.png", "data.path")]
)
def test_refusals(tmp_path: Path, data: str, key: str):
    images(tmp_path / "photos", "a.png", "b.png")
    with raises(key):
        resolve(str(tmp_path / data), "train", pack=False)


def test_a_folder_of_nothing(tmp_path: Path):
    with raises("shard.src"):
        resolve(str(tmp_path), "train")


def test_what_shard_made_is_resolved(tmp_path: Path):
    folder = classes(tmp_path / "photos", 20)
    shard(str(folder), tmp_path / "shards", val_fraction=0.3, workers=1)
    train, val = resolve_pair(str(tmp_path / "shards"))
    assert len(ids(train)) + len(ids(val)) == 40


def test_what_is_held_out_of_a_folder_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = str(classes(tmp_path / "photos", 10))
    caplog.set_level("INFO")
    held_out = len(ids(resolve_pair(folder)[1]))
    assert 0 < held_out < 8 and f"{held_out} of 20 images are held out" in caplog.text


def test_other_images_to_score_on_are_all_of_a_folder_without_splits(tmp_path: Path):
    own, other = (str(classes(tmp_path / name, 10)) for name in ("own", "other"))
    assert len(ids(resolve_pair(own, other)[1])) == 20 == len(ids(resolve_val(own, other)))
    parts, names = ("train", "val"), ("ant/0", "ant/1", "bee/2")
    split = images(tmp_path / "split", *(f"{part}/{name}.png" for part in parts for name in names))
    assert len(ids(resolve_pair(own, str(split))[1])) == 3 == len(ids(resolve_val(str(split), None)))


def test_a_model_is_scored_on_what_its_training_held_out(tmp_path: Path):
    folder = str(classes(tmp_path / "photos", 10))
    assert resolve_val(folder, None) == resolve_pair(folder)[1]
    write_shard(tmp_path / "train-0.tar", range(4))
    assert len(ids(resolve_val(str(tmp_path / "train-0.tar"), None))) == 4, "shards without splits: all of them"
    with raises("data.missing_val"):
        resolve_val(None, None)


def test_a_home_in_which_nothing_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An automounter's, or /proc, says that the folder does not exist, and not that it cannot be written."""

    def nowhere(path: Path, **how: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_bytes(jpeg(1))
    with monkeypatch.context() as broken, raises("data.cache"):
        broken.setattr(Path, "mkdir", nowhere)
        resolve(str(tmp_path / "photos"), "train")
