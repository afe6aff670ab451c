"""The verb: copies are found and strangers are not; what stays, what goes, and what a person is shown."""
# Also tests commands/dedup.py, duplicates/findings.py, duplicates/fingerprints.py, duplicates/groups.py,
# duplicates/page.py, duplicates/pairs.py.

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageEnhance
from support.errors import raises
from support.photo_shards import write_shard
from support.processes import Programs
from support.random_images import encoded, picture, write_pictures

from mae_kit.cli import main as cli
from mae_kit.commands.dedup import dedup
from mae_kit.data.index import index as table
from mae_kit.data.index.exclusions import kept
from mae_kit.data.index.open import open_index
from mae_kit.data.resolve import resolve

TURNS = {way.name.lower(): way for way in Image.Transpose}
STRANGERS = {f"stranger{n}": encoded(picture(1000 + n)) for n in range(20)}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(table, "user_cache", lambda: path / "mae_kit")
    return path


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of the list by key, without its head."""
    lines = (folder / "duplicates.jsonl").read_text().splitlines()[1:]
    return {line["key"]: line for line in map(json.loads, lines)}


def test_copies_in_every_orientation_are_found_and_strangers_are_not(tmp_path: Path):
    images = dict(STRANGERS)
    for number, (name, way) in enumerate(TURNS.items()):
        images[f"original-{name}"] = encoded(picture(number, (120, 90)))
        images[f"copy-{name}"] = encoded(picture(number, (100, 75)).transpose(way), 60)
    write_pictures(tmp_path / "train-0.tar", images)
    found = dedup(tmp_path, workers=1)
    assert {key: line["of"]["key"] for key, line in listed(tmp_path).items()} == {
        f"copy-{name}": f"original-{name}" for name in TURNS
    }
    assert found["samples"] == 34 and found["kept"] == 27 and found["duplicates"] == found["groups"] == 7
    assert listed(tmp_path)["copy-rotate_90"]["orientation"] == "rotated left"


def test_resized_recompressed_and_recolored_copies_are_found(tmp_path: Path):
    photo = picture(0, (200, 160))
    copies = {
        "a-half": encoded(photo.resize((100, 80))),
        "b-worse": encoded(photo, 20),
        "c-gray": encoded(photo.convert("L")),
        "d-dark": encoded(ImageEnhance.Brightness(photo).enhance(0.6)),
        "e-flat": encoded(ImageEnhance.Contrast(photo).enhance(0.6)),
        "f-crop": encoded(photo.crop((3, 3, 197, 157))),
        "g-same": encoded(photo),
    }
    write_pictures(tmp_path / "a.tar", {"photo": encoded(photo)} | copies | STRANGERS)
    dedup(tmp_path, workers=1)
    lines = listed(tmp_path)
    assert set(lines) == set(copies) and all(line["of"]["key"] == "photo" for line in lines.values())
    assert lines["g-same"]["evidence"] == "same bytes" and lines["b-worse"]["evidence"] == "similar appearance"


def test_pictures_of_one_color_are_compared_by_their_bytes_alone(tmp_path: Path):
    colors = {f"color{n}": encoded(Image.new("RGB", (64, 48), (n * 12, 200, 255 - n * 12))) for n in range(20)}
    write_pictures(tmp_path / "a.tar", colors | {"again": colors["color3"]})
    found = dedup(tmp_path, workers=1)
    assert list(listed(tmp_path)) == ["again"] and found["groups"] == 1 and found["plain"] == 21


def test_the_largest_picture_stays_then_the_larger_file_then_the_first(tmp_path: Path):
    write_pictures(tmp_path / "a.tar", {"small": encoded(picture(0, (80, 60))), "worse": encoded(picture(1), 50)})
    write_pictures(tmp_path / "b.tar", {"large": encoded(picture(0, (160, 120))), "better": encoded(picture(1), 95)})
    write_pictures(tmp_path / "c.tar", {"first": encoded(picture(2)), "second": encoded(picture(2))})
    dedup(tmp_path, workers=1)
    assert sorted(listed(tmp_path)) == ["second", "small", "worse"]
    assert listed(tmp_path)["small"]["of"] == {"shard": "b.tar", "key": "large"}


def test_copies_with_different_labels_are_reported(tmp_path: Path):
    images = {
        "a": encoded(picture(0)),
        "b": encoded(picture(0), 70),
        "c": encoded(picture(1)),
        "d": encoded(picture(1), 70),
    }
    images |= {"e": encoded(picture(2)), "f": encoded(picture(2), 70)}
    write_pictures(tmp_path / "a.tar", images, {"a": 0, "b": 1, "c": 1, "d": 1, "e": 1})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert dedup(tmp_path, workers=1)["label_conflicts"] == 1
    lines = listed(tmp_path)
    assert lines["b"]["labels"] == ["cat", "dog"] and "labels" not in lines["d"] and "labels" not in lines["f"]
    assert "Different labels" in (tmp_path / "duplicates.html").read_text()


def test_copies_with_different_sets_of_classes_are_reported(tmp_path: Path):
    images = {
        f"{key}{copy}": encoded(picture(key), quality) for key in range(3) for copy, quality in ((0, 90), (1, 70))
    }
    labels = {"00": "0 1", "01": "0", "10": "", "11": "", "20": "1"}
    write_pictures(tmp_path / "a.tar", images, labels, "classes")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert dedup(tmp_path, workers=1)["label_conflicts"] == 1
    assert {key: line.get("labels") for key, line in listed(tmp_path).items()} == {
        "01": [["cat", "dog"], ["cat"]],
        "11": None,
        "21": None,
    }
    assert "cat, dog" in (tmp_path / "duplicates.html").read_text()


def test_what_an_evaluation_set_has_goes_with_all_its_copies(tmp_path: Path):
    photo = picture(0, (200, 160))
    train = {
        "copy": encoded(photo.transpose(TURNS["rotate_270"]), 60),
        "own": encoded(picture(1)),
        "twin": encoded(picture(1), 60),
    }
    test = {"photo": encoded(photo), "photo2": encoded(photo, 50)} | STRANGERS
    write_pictures(tmp_path / "train" / "a.tar", train)
    write_pictures(tmp_path / "test" / "a.tar", test)
    before = (tmp_path / "test" / "a.tar").read_bytes()
    found = dedup(tmp_path / "train", against=tmp_path / "test", workers=1)
    lines = listed(tmp_path / "train")
    assert {key: line["reason"] for key, line in lines.items()} == {"copy": "evaluation", "twin": "duplicate"}
    assert lines["copy"]["of"] == {"shard": "a.tar", "key": "photo"}
    assert (found["in_evaluation"], found["duplicates"], found["kept"]) == (1, 1, 1)
    keep_list = tmp_path / "train" / "duplicates.keep.jsonl"
    assert [json.loads(line) for line in keep_list.read_text().splitlines()] == [{"shard": "a.tar", "key": "own"}]
    assert (tmp_path / "test" / "a.tar").read_bytes() == before and not (
        tmp_path / "test" / "duplicates.jsonl"
    ).exists()


def test_damaged_images_are_counted_and_stay(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(8), damaged=(2, 5))
    found = dedup(tmp_path, workers=1)
    assert (found["not_compared"], found["kept"]) == (2, 8)


def test_a_picture_that_is_there_often_makes_no_pair_of_all_with_all(tmp_path: Path):
    write_pictures(tmp_path / "a.tar", {f"{n}": encoded(picture(0)) for n in range(60)} | STRANGERS)
    found = dedup(tmp_path, workers=1)
    assert (found["groups"], found["duplicates"]) == (1, 59)
    assert "35 more are not shown" in (tmp_path / "duplicates.html").read_text()


@pytest.mark.slow
def test_shards_are_done_side_by_side(tmp_path: Path):
    for part in range(3):
        write_pictures(tmp_path / f"{part}.tar", {f"{part}-{n}": encoded(picture(n), 60 + 10 * part) for n in range(5)})
    assert dedup(tmp_path, workers=2)["duplicates"] == 10


@pytest.mark.long
def test_a_killed_job_goes_on_with_the_shards_that_are_missing(programs: Programs, tmp_path: Path):
    for part in range(4):
        write_pictures(tmp_path / f"{part}.tar", {f"{part}-{n}": encoded(picture(n + part)) for n in range(8)})
    slow = """
import time
from mae_kit.duplicates import fingerprints
hashes = fingerprints.flipped_hashes
fingerprints.flipped_hashes = lambda gray: (time.sleep(0.1), hashes(gray))[1]
"""
    running = programs.start("dedup", tmp_path, "--workers", "1", patch=slow)
    running.wait_until(lambda: (tmp_path / ".fingerprints" / "1.tar.safetensors").exists())
    running.send(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".fingerprints").glob("[0-9]*")}
    assert 2 <= len(done) < 4 and not (tmp_path / "duplicates.jsonl").exists()
    (tmp_path / ".fingerprints" / ".2.tar.safetensors.00.making").write_bytes(b"half")
    for unfinished in (tmp_path / ".fingerprints").glob(".*"):
        os.utime(unfinished, (0, 0))
    ended = programs.run("dedup", tmp_path, "--workers", "1", "--json")
    assert ended.code == 0, ended.err
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".fingerprints").iterdir()}
    assert sorted(after) == [f"{part}.tar.safetensors" for part in range(4)]
    assert done.items() <= after.items()
    assert json.loads(ended.out)["duplicates"] == 21


def test_fingerprints_are_made_again_of_shards_that_changed(tmp_path: Path):
    write_pictures(tmp_path / "a.tar", {"a": encoded(picture(0))})
    write_pictures(tmp_path / "b.tar", {"b": encoded(picture(1))})
    assert dedup(tmp_path, workers=1)["duplicates"] == 0
    kept = (tmp_path / ".fingerprints" / "a.tar.safetensors").stat().st_mtime_ns
    write_pictures(tmp_path / "b.tar", {"b": encoded(picture(0), 50)})
    assert dedup(tmp_path, workers=1)["duplicates"] == 1
    assert (tmp_path / ".fingerprints" / "a.tar.safetensors").stat().st_mtime_ns == kept
    (tmp_path / ".fingerprints" / "a.tar.safetensors").write_bytes(b"damaged")
    assert dedup(tmp_path, workers=1)["duplicates"] == 1


def test_fingerprints_go_to_the_cache_where_the_folder_takes_no_files(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    write_pictures(tmp_path / "shards" / "a.tar", STRANGERS)
    (tmp_path / "shards").chmod(0o555)
    with raises("out.folder"):
        dedup(tmp_path / "shards", workers=1)
    assert not list(cache.glob("mae_kit/fingerprints-*")), "nothing was searched"
    assert dedup(tmp_path / "shards", out=tmp_path / "new" / "list.jsonl", workers=1)["duplicates"] == 0
    assert len(list((cache / "mae_kit").glob("fingerprints-*/a.tar.safetensors"))) == 1
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["a.tar"]
    monkeypatch.setattr("mae_kit.duplicates.fingerprints.flipped_hashes", None)
    assert dedup(tmp_path / "shards", out=tmp_path / "list.jsonl", workers=1)["duplicates"] == 0


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"against": "{shards}"}, "dedup.against"),
        ({"against": "{shards}/a.tar"}, "dedup.against"),
        ({"distance": 12}, "dedup.distance"),
        ({"similarity": 0}, "dedup.similarity"),
        ({"out": Path("list.txt")}, "dedup.out"),
    ],
)
def test_mistakes_are_refused_before_any_work(tmp_path: Path, options: dict[str, Any], key: str):
    shards = tmp_path / "shards"
    write_pictures(shards / "a.tar", {"a": encoded(picture(0))})
    if "against" in options:
        options = {"against": Path(options["against"].format(shards=shards))}
    with raises(key):
        dedup(shards, workers=1, **options)
    assert not (shards / ".fingerprints").exists()


@pytest.mark.parametrize("words", ["nowhere", "{shards} --against nowhere", "{shards} --encoder nowhere"])
def test_paths_that_do_not_exist(tmp_path: Path, words: str):
    write_pictures(tmp_path / "shards" / "a.tar", {"a": encoded(picture(0))})
    assert cli.main(["dedup", *words.format(shards=tmp_path / "shards").split()]) == 2
    assert not (tmp_path / "shards" / ".fingerprints").exists()


@pytest.mark.parametrize("out", ["list.jsonl", "new/list.jsonl"])
def test_a_list_below_a_file_is_the_users_mistake(tmp_path: Path, out: str):
    write_pictures(tmp_path / "a.tar", {"a": encoded(picture(0))})
    assert cli.main(["dedup", str(tmp_path), "--out", str(tmp_path / "a.tar" / out)]) == 2


def test_shards_of_which_nothing_can_be_compared_are_refused(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(3), damaged=(0, 1, 2))
    with raises("dedup.nothing"):
        dedup(tmp_path, workers=1)
    assert not (tmp_path / "duplicates.jsonl").exists()


def test_one_image_has_nothing_to_be_compared_with(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(3), damaged=(0, 2))
    with raises("dedup.nothing.one"):
        dedup(tmp_path, workers=1)


def test_replacing_another_list_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_pictures(tmp_path / "a.tar", {"a": encoded(picture(0)), "b": encoded(picture(0), 50)})
    said = []
    for distance in (8, 8, 7):
        dedup(tmp_path, distance=distance, workers=1)
        said.append(caplog.messages[-1])
    there = f"list for --data.exclude: {tmp_path}/duplicates.jsonl"
    assert said[0] == said[1] and said[0].startswith(f"{there};")
    assert said[2].startswith(f"{there} (replaces another list);")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_pictures(tmp_path / "a.tar", {"a": encoded(picture(0))})
    for name in [name for name in sys.modules if name.startswith("mae_kit.duplicates.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with raises("dedup.library"):
        dedup(tmp_path, workers=1)


@pytest.mark.slow
def test_features_find_what_hashes_do_not(trained: Path, tmp_path: Path):
    """A picture whose signs are all reversed but one: here an encoder with a few steps takes all for the same."""
    write_pictures(tmp_path / "a.tar", {"a": encoded(picture(0)), "b": encoded(picture(1))} | STRANGERS)
    assert dedup(tmp_path, workers=1)["duplicates"] == 0
    found = dedup(tmp_path, encoder=trained, similarity=0.01, workers=1)
    assert found["duplicates"] > 0
    assert {line["evidence"] for line in listed(tmp_path).values()} == {"similar features"}
    folder = next(tmp_path.glob(".features-*"))
    before = (folder / "a.tar.safetensors").stat().st_mtime_ns
    assert dedup(tmp_path, encoder=trained, similarity=0.01, workers=1) == found
    assert (folder / "a.tar.safetensors").stat().st_mtime_ns == before


def test_a_folder_of_images_is_packed_and_its_list_excludes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mae_kit.data.resolve.user_cache", lambda: tmp_path / "cache")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, image in {"a": picture(0), "copy": picture(0), "b": picture(1)}.items():
        (photos / f"{name}.jpg").write_bytes(encoded(image, 90 if name == "copy" else 80))
    monkeypatch.chdir(tmp_path)
    found = dedup(photos, workers=1)
    assert found["list"] == "duplicates.jsonl" and len(list(photos.iterdir())) == 3 and found["kept"] == 2
    assert len(kept(open_index(resolve(str(photos), "all")), found["list"]).rows) == 2, "it is no other folder now"
    assert "copy.jpg" in Path(found["page"]).read_text()
    with raises("data.pack"):
        dedup(photos, workers=1, pack=False)
