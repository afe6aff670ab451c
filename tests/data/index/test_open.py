"""The index: every damaged shard and odd sample named, no wrong pairing, and kept up to date by itself."""
# Also tests commands/index.py, data/index/index.py, data/index/parts.py, data/index/patterns.py,
# data/index/sample_ids.py.

import io
import json
import os
import pickle
import shutil
import tarfile
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.errors import raises
from support.gates import Measured

from mae_kit.commands.index import index
from mae_kit.data.decode import decode
from mae_kit.data.index import index as table
from mae_kit.data.index import parts
from mae_kit.data.index.index import FILE
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.remote import filesystem
from mae_kit.errors import BadImage

ALL = [0, 1, 2, 3, 4, 5, 6, 7]
FOUR = [0, 1, 2, 3]
NO_FIFTH = [0, 1, 2, 3, 5, 6, 7]
UNLABELED_FIFTH = [0, 1, 2, 3, -1, 5, 6, 7]

# Labels of the samples found, and the kinds of problems, in the order of bytes
BAD_TARS = {
    "ok.tar": (ALL, []),
    "empty-0-bytes.tar": ([], ["empty"]),
    "cut-in-member.tar": (FOUR, ["cut inside a member"]),
    "cut-in-header.tar": (FOUR, ["cut inside a header"]),
    "cut-after-member.tar": (FOUR, ["no end-of-archive blocks"]),
    "bad-header-checksum.tar": (NO_FIFTH, ["damaged header", "label without image"]),
    "zeroed-header.tar": (NO_FIFTH, ["zeroed header", "label without image"]),
    "cut.tar.gz": ([], ["compressed"]),
    "plain-named.tar.gz": (ALL, []),
    "bad-image-inside.tar": (NO_FIFTH, ["unreadable image"]),
    "missing-cls.tar": (UNLABELED_FIFTH, ["image without label"]),
    "cls-not-int.tar": (UNLABELED_FIFTH, ["label is not an integer"]),
    "cls-negative.tar": (UNLABELED_FIFTH, ["label is negative"]),
    "cls-float.tar": (UNLABELED_FIFTH, ["label is not an integer"]),
    "cls-bom.tar": (ALL, []),
    "duplicate-adjacent.tar": (ALL, ["a second image of the same key", "a second label of the same key"]),
    "dotted-keys.tar": (ALL, []),
    "dot-slash.tar": (ALL, []),
    "traversal.tar": (ALL, ["name outside the archive"] * 2),
    "upper-ext.tar": (ALL, []),
    "long-names-pax.tar": (ALL, []),
    "index-json-first.tar": (ALL, []),
    "html-named.tar": ([], ["not a tar"]),
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(table, "user_cache", lambda: path / "mae_kit")
    return path


@pytest.fixture
def read_shards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that were really read, as it happens."""
    names = []

    def read(path, name, *rest):
        names.append(name)
        return read_shard(path, name, *rest)

    read_shard = parts.read_shard
    monkeypatch.setattr(parts, "read_shard", read)
    return names


def jpeg(seed: int, size: tuple[int, int] = (12, 9)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (seed * 37 % 256, seed * 11 % 256, seed * 3 % 256)).save(stream, "JPEG")
    return stream.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def shard(path: Path, numbers: range) -> Path:
    members = [(f"{n:04}.jpg", jpeg(n)) for n in numbers], [(f"{n:04}.cls", b"%d" % (n % 3)) for n in numbers]
    return write_tar(path, [member for pair in zip(*members, strict=True) for member in pair])


def samples(found: Index) -> dict[str, int]:
    return dict(zip(found.keys, found.label.tolist(), strict=True))


def kinds(found: Index) -> list[str]:
    return [problem.kind for problem in found.problems]


def one(folder: Path, members: list[tuple[str, bytes]]) -> Index:
    write_tar(folder / "x.tar", members)
    return open_index(folder)


# Damaged shards


@pytest.fixture(scope="module")
def bad_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for path in (shared / "data/bad/tars").iterdir():
        shutil.copyfile(path, folder / path.name)
    (folder / "classes.txt").write_text("".join(f"class {k}\n" for k in range(8)))
    return folder


@pytest.mark.parametrize("name", BAD_TARS)
@pytest.mark.gate("R9")
def test_bad_tars(bad_folder: Path, name: str):
    labels, problems = BAD_TARS[name]
    whole = open_index(bad_folder)
    part = whole.within({name})
    assert part.shards == [name]
    assert part.label.tolist() == labels
    assert kinds(part) == problems
    assert {problem.shard for problem in part.problems} <= {name}


@pytest.mark.gate("R9")
def test_bad_tars_pair_every_image_with_its_own_label(bad_folder: Path, measured: Measured):
    """0 mislabeled: the same photo has the same label in every shard."""
    whole = open_index(bad_folder)
    assert set(whole.shards) == BAD_TARS.keys()
    control = whole.within({"ok.tar"})
    label_of = {zlib.crc32(control.read(row)): int(control.label[row]) for row in range(8)}
    for row in range(len(whole)):
        assert whole.label[row] in (-1, label_of[zlib.crc32(whole.read(row))])
        assert decode(whole.read(row)).shape == (whole.height[row], whole.width[row], 3)
    measured(f"{len(whole)} samples found in {len(whole.shards)} tars, none with another's label")


@pytest.mark.gate("R9")
def test_the_verb_names_every_damaged_shard(bad_folder: Path, caplog: pytest.LogCaptureFixture):
    counts = json.loads(json.dumps(index(bad_folder)))
    assert counts["shards"] == 23
    assert counts["samples"] == sum(len(labels) for labels, _ in BAD_TARS.values())
    assert counts["labeled"] == sum(label >= 0 for labels, _ in BAD_TARS.values() for label in labels)
    assert counts["classes"] == [f"class {k}" for k in range(8)]
    assert sum(group["count"] for group in counts["problems"]) == sum(len(kinds) for _, kinds in BAD_TARS.values())
    named = {name for group in counts["problems"] for name in group["shards"]}
    assert named == {name for name, (_, problems) in BAD_TARS.items() if problems}
    text = caplog.text
    assert all(name in text for name in named)
    assert "cut.tar.gz at byte 0: compressed: gzip inside, unpack it first" in text


def test_offsets_are_those_of_tarfile(shared: Path, tmp_path: Path):
    path = Path(shutil.copyfile(shared / "data/clothing128/val-000.tar", tmp_path / "val.tar"))
    found = open_index(tmp_path)
    with tarfile.open(path) as archive:
        images = {m.name.removesuffix(".jpg"): m for m in archive if m.name.endswith(".jpg")}
        labels = {m.name: int(archive.extractfile(m).read()) for m in archive if m.name.endswith(".cls")}  # type: ignore
    assert list(found.keys) == list(images)
    assert found.offset.tolist() == [member.offset_data for member in images.values()]
    assert samples(found) == {key: labels[f"{key}.cls"] for key in images}
    assert found.problems == []


# Pairing


def test_members_pair_by_key_wherever_they_lie(tmp_path: Path):
    keys = ["b", "a", "d/a", "c"]
    members = [(f"{key}.cls", b"%d" % n) for n, key in enumerate(keys)]
    members += [(f"{key}.jpg", jpeg(n)) for n, key in reversed(list(enumerate(keys)))]
    found = one(tmp_path, members)
    assert samples(found) == {"c": 3, "d/a": 2, "a": 1, "b": 0}
    assert [found.read(row) for row in range(4)] == [jpeg(3), jpeg(2), jpeg(1), jpeg(0)]
    assert found.problems == []


def test_extras_stay_extras_and_dotted_images_are_samples(tmp_path: Path):
    embedding = io.BytesIO()
    np.save(embedding, np.zeros(9, np.float32))
    members = [
        ("000.seg.png", b"mask"),
        ("000.npy", embedding.getvalue()),
        ("000.jpg", jpeg(0)),
        ("000.cls", b"2"),
        ("v1.2.cat.JPG", jpeg(1)),
        ("v1.2.cat.CLS", b" 1\r\n"),
        ("._000.jpg", b"macOS"),
        ("000.json", b"{}"),
        ("readme", b"hello"),
    ]
    found = one(tmp_path, members)
    assert samples(found) == {"000": 2, "v1.2.cat": 1}
    assert found.read(0) == jpeg(0)
    assert kinds(found) == [".seg.png next to the image of its key"]


def test_numbers_belong_to_the_key_and_words_tell_images_from_masks(tmp_path: Path):
    names = ("22.jpg", "22.05.jpg", "22.5.jpg", "a.image.jpg", "a.mask.png", "b.left.jpg", "b.right.jpg", "c.photo.jpg")
    names += ("d.input.jpg", "d.target.jpg")
    labels = [("a.cls", b"3"), ("c.cls", b"1"), ("22.05.cls", b"2")]
    found = one(tmp_path, [*((name, jpeg(number)) for number, name in enumerate(names)), *labels])
    assert samples(found) == {"22": -1, "22.05": 2, "22.5": -1, "a": 3, "b.left": -1, "b.right": -1, "c": 1, "d": -1}
    assert "unreadable mask" in kinds(found) and "image without mask" not in kinds(found)


def test_images_of_kinds_that_are_not_read_are_named(tmp_path: Path):
    found = one(tmp_path, [("a.jpg", jpeg(1)), ("b.psd", b"x"), ("c.jpg.gz", b"x"), ("d.json", b"{}")])
    assert samples(found) == {"a": -1} and kinds(found) == ["not a readable kind of image"] * 2


def test_arrays_are_images_where_nothing_else_is(tmp_path: Path):
    stream = io.BytesIO()
    np.save(stream, np.zeros((5, 7, 12), np.uint8))
    found = one(tmp_path, [("s.npy", stream.getvalue()), ("s.cls", b"4")])
    assert samples(found) == {"s": 4}
    assert (found.width[0], found.height[0]) == (7, 5)


def test_the_first_of_a_key_is_kept(tmp_path: Path):
    found = one(tmp_path, [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)), ("a.png", jpeg(3)), ("a.jpeg", jpeg(4))])
    assert samples(found) == {"a": -1, "b": -1}
    assert found.read(0) == jpeg(1)
    assert kinds(found) == ["a second image of the same key"] * 2


def test_odd_labels_keep_the_image(tmp_path: Path):
    texts = [b"0", b"+1", b"3", b"1e0", b"", b"99999999999999999999", b"\xff\xfe0", b"-0", b"x" * 5000]
    (tmp_path / "classes.txt").write_text("\ufeffcat\nhot\u2028dog\nfish\n\n", "utf-8")
    members = [(f"{n}.jpg", jpeg(n)) for n in range(len(texts))]
    found = one(tmp_path, members + [(f"{n}.cls", text) for n, text in enumerate(texts)])
    assert found.label.tolist() == [0, 1, -1, -1, -1, -1, -1, 0, -1]
    assert found.classes == ["cat", "hot\u2028dog", "fish"]
    assert found.labeled().tolist() == [0, 1, 7]
    assert len(found.problems) == 6
    assert found.problems[0].reason == "label is out of range: 3 of 3 classes"


def sets(folder: Path, name: str, texts: dict[str, bytes]) -> Path:
    images = [(f"{key}.jpg", jpeg(number)) for number, key in enumerate(texts)]
    return write_tar(folder / name, images + [(f"{key}.classes", text) for key, text in texts.items()])


def test_sets_of_classes(tmp_path: Path):
    (tmp_path / "classes.txt").write_text("cat\ndog\nfish\n")
    good = {"a": b"0 2", "b": b"2,0\n", "c": b"", "d": b"1, 1 0"}
    bad = {"e": b"1 3", "f": b"1;2", "g": b"-1", "h": b"0 " * 40_000}
    sets(tmp_path, "x.tar", good | bad)
    found = open_index(tmp_path)
    assert found.multi_label and found.label.tolist() == [-1] * 8 and found.labeled().tolist() == [0, 1, 2, 3]
    assert found.labels(np.arange(5)).astype(int).tolist() == [[1, 0, 1], [1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert [problem.reason.partition(": ")[::2] for problem in found.problems] == [
        ("label is out of range", "3 of 3 classes"),
        ("label is not an integer", "'1;2'"),
        ("label is negative", "-1"),
        ("set of classes too large", "80,000 bytes"),
    ]


def test_sets_are_kept_in_the_file_and_part_of_what_a_run_depends_on(tmp_path: Path, read_shards: list[str]):
    shard(tmp_path / "a.tar", range(4))
    single = open_index(tmp_path)
    sets(tmp_path, "b.tar", {"x": b"0 4", "y": b""})
    sets(tmp_path, "c.tar", {"z": b"1"})
    made, read_shards[:] = open_index(tmp_path), []
    again = open_index(tmp_path)
    assert read_shards == [] and again.fingerprint == made.fingerprint != single.fingerprint
    assert again.class_count == 5 and again.labeled().tolist() == list(range(7))
    assert again.labels(np.array([1, 4, 5])).astype(int).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0] * 5]
    assert again.within({"c.tar"}).labels(np.array([0])).tolist() == [[False, True]]
    assert again.within({"a.tar"}).multi_label, "patterns of one folder are of one kind"
    sets(tmp_path, "b.tar", {"x": b"0 3", "y": b""})
    changed = open_index(tmp_path)
    assert read_shards == ["b.tar"] and changed.contents["b.tar"] != made.contents["b.tar"]
    assert changed.contents["c.tar"] == made.contents["c.tar"] and changed.fingerprint != made.fingerprint
    (tmp_path / "b.tar").unlink()
    (tmp_path / "c.tar").unlink()
    assert not open_index(tmp_path).multi_label and open_index(tmp_path).fingerprint == single.fingerprint


def test_what_a_run_depends_on_is_the_same_as_before_there_were_sets(tmp_path: Path):
    members = [[(f"{n}.ppm", b"P6 1 1 255\n\x01\x02%c" % n), (f"{n}.cls", b"%d" % n)] for n in range(4)]
    found = one(tmp_path, [member for pair in members for member in pair])
    assert found.fingerprint == "1a7c03c7b9fbe3b7692146d0e4b50c3f0ec62bf81b14ba3246fb035f7edcb36a"
    assert found.contents == {"x.tar": "59264ee3e6912ee9"}


def test_a_stray_number_makes_no_batch_of_a_billion_columns(tmp_path: Path):
    found = one(tmp_path, [("a.jpg", jpeg(1)), ("a.classes", b"7 2000000000"), ("b.jpg", jpeg(2)), ("b.classes", b"7")])
    assert kinds(found) == ["label is out of range"] and found.class_count == 8


def test_beside_a_label_a_set_is_an_extra(tmp_path: Path):
    found = one(tmp_path, [("a.classes", b"no set"), ("a.jpg", jpeg(1)), ("a.cls", b"2")])
    assert not found.multi_label and found.label.tolist() == [2] and found.problems == []


def test_no_labels_at_all_is_no_problem(tmp_path: Path):
    found = one(tmp_path, [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2))])
    assert found.label.tolist() == [-1, -1]
    assert found.problems == []


@pytest.mark.gate("R12")
def test_pickles_and_links_are_never_touched(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "opened"),)

    bomb = pickle.dumps(Bomb())
    names = ("a.pyd", "a.pth", "a.pickle", "b.npy", "b.jpg", "pipe:touch x.jpg", "a.cls")
    found = one(tmp_path, [("a.jpg", jpeg(1)), *((name, bomb) for name in names)])
    assert samples(found) == {"a": -1}
    assert not (tmp_path / "opened").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "x.tar"]


# Reading


def test_reads_survive_pickling_and_forking(tmp_path: Path):
    shard(tmp_path / "a.tar", range(3))
    shard(tmp_path / "b.tar", range(3, 6))
    found = open_index(tmp_path)
    expected = [jpeg(n) for n in range(6)]
    assert [found.read(row) for row in range(6)] == expected
    copy = pickle.loads(pickle.dumps(found))
    assert [copy.read(row) for row in range(6)] == expected
    assert copy.fingerprint == found.fingerprint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking beside threads
        child = os.fork()
    if not child:
        os._exit([found.read(row) for row in range(6)] != expected)
    assert os.waitpid(child, 0)[1] == 0
    assert [found.read(row) for row in range(6)] == expected


def test_many_shards_need_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(table, "_OPEN_SHARDS", 2)
    for number in range(6):
        shard(tmp_path / f"{number}.tar", range(number, number + 1))
    found = open_index(tmp_path)
    assert [found.read(row) for row in range(6)] == [jpeg(n) for n in range(6)]
    assert len(found._open) <= 2


def test_bytes_that_changed_since_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(filesystem, "PAUSES", [0.001])
    path = shard(tmp_path / "a.tar", range(3))
    found = open_index(tmp_path)
    with path.open("r+b") as file:
        file.seek(int(found.offset[1]) + 5)
        file.write(b"!")
        file.truncate(int(found.offset[2]) + 10)
    assert found.read(0) == jpeg(0)
    with pytest.raises(BadImage, match=r"checksum differs from the index: a\.tar"):
        found.read(1)
    with raises("data.read"):
        found.read(2)
    path.unlink()
    with raises("data.read"):
        pickle.loads(pickle.dumps(found)).read(0)


# The saved file


def test_patterns_share_one_index(tmp_path: Path, read_shards: list[str]):
    for name, numbers in {"train-0": range(4), "train-1": range(4, 7), "val-0": range(7, 9)}.items():
        shard(tmp_path / f"{name}.tar", numbers)
    train, val = open_index(tmp_path / "train-*.tar"), open_index(tmp_path / "val-*.tar")
    assert (len(train), len(val), len(open_index(tmp_path / "train-1.tar"))) == (7, 2, 3)
    assert (train.shards, val.shards) == (["train-0.tar", "train-1.tar"], ["val-0.tar"])
    assert [val.read(row) for row in range(2)] == [jpeg(7), jpeg(8)]
    assert list(val.keys) == ["0007", "0008"]
    assert val.shard.tolist() == [0, 0]
    assert sorted(read_shards) == ["train-0.tar", "train-1.tar", "val-0.tar"]
    assert len({train.fingerprint, val.fingerprint, open_index(tmp_path).fingerprint}) == 3


def test_only_changed_shards_are_read_again(tmp_path: Path, read_shards: list[str], caplog: pytest.LogCaptureFixture):
    for name in "abc":
        shard(tmp_path / f"{name}.tar", range(3))
    first = open_index(tmp_path)
    read_shards.clear()
    assert open_index(tmp_path).fingerprint == first.fingerprint
    assert read_shards == []
    shard(tmp_path / "b.tar", range(5, 7))
    (tmp_path / "c.tar").unlink()
    shard(tmp_path / "d.tar", range(8, 9))
    caplog.clear()
    second = open_index(tmp_path)
    assert "indexing 2 of 3 shards" in caplog.text
    assert sorted(read_shards) == ["b.tar", "d.tar"]
    assert list(second.keys) == ["0000", "0001", "0002", "0005", "0006", "0008"]
    assert [second.read(row) for row in range(6)] == [jpeg(n) for n in (0, 1, 2, 5, 6, 8)]
    assert second.fingerprint != first.fingerprint


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of which one of three shards was indexed when Ctrl-C came."""
    read_shard = parts.read_shard
    for name in "abc":
        shard(tmp_path / f"{name}.tar", range(ord(name), ord(name) + 3))

    def interrupted(path, name, *rest):
        if name == "b.tar":
            raise KeyboardInterrupt
        return read_shard(path, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "read_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index(tmp_path, workers=1)
    assert not (tmp_path / FILE).exists()
    return tmp_path


@pytest.mark.parametrize("again", [open_index, partial(index, workers=1)])
def test_a_stopped_job_goes_on(stopped: Path, read_shards: list[str], again: Callable[..., Any]):
    again(stopped)
    assert sorted(read_shards) == ["b.tar", "c.tar"]
    assert sorted(path.name for path in stopped.iterdir()) == ["a.tar", "b.tar", "c.tar", FILE]
    assert list(open_index(stopped).keys) == [f"{n:04}" for n in (97, 98, 99, 98, 99, 100, 99, 100, 101)]
    index(stopped, workers=1)
    assert sorted(read_shards[2:]) == ["a.tar", "b.tar", "c.tar"], "a job that begins anew reads all"


@pytest.mark.parametrize("change", ["shard", "classes", "damage", "none"])
def test_what_no_longer_fits_is_read_again(stopped: Path, read_shards: list[str], change: str):
    part = stopped / ".index" / "a.tar.safetensors"
    if change == "shard":
        os.utime(stopped / "a.tar")
    elif change == "classes":
        (stopped / "classes.txt").write_text("one\ntwo\n")
    elif change == "damage":
        part.write_bytes(part.read_bytes()[:-9])
    index(stopped, workers=1)
    assert ("a.tar" in read_shards) == (change != "none")


def test_a_stopped_job_on_a_read_only_folder_goes_on(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    for name in "ab":
        shard(tmp_path / f"shards/{name}.tar", range(3))
    read_shard, read = parts.read_shard, []

    def interrupted(path, name, *rest):
        read.append(name)
        if read == ["a.tar", "b.tar"]:
            raise KeyboardInterrupt
        return read_shard(path, name, *rest)

    monkeypatch.setattr(parts, "read_shard", interrupted)
    (tmp_path / "shards").chmod(0o555)
    try:
        with pytest.raises(KeyboardInterrupt):
            index(tmp_path / "shards", workers=1)
        index(tmp_path / "shards", workers=1)
    finally:
        (tmp_path / "shards").chmod(0o755)
    assert read == ["a.tar", "b.tar", "b.tar"]
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["a.tar", "b.tar"]
    assert [path.suffix for path in (cache / "mae_kit").iterdir()] == [".safetensors"]


def test_a_shard_that_cannot_be_read_is_named_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard(tmp_path / "a.tar", range(2))
    shard(tmp_path / "b.tar", range(2, 4))
    read = parts.read_shard

    def failing(path, name, *rest):
        if name == "a.tar":
            raise PermissionError(13, "Permission denied")
        return read(path, name, *rest)

    monkeypatch.setattr(parts, "read_shard", failing)
    found = open_index(tmp_path)
    assert list(found.keys) == ["0002", "0003"]
    assert [problem[:] for problem in found.problems] == [("a.tar", "", 0, "unreadable shard: Permission denied")]
    monkeypatch.setattr(parts, "read_shard", read)
    assert list(open_index(tmp_path).keys) == ["0000", "0001", "0002", "0003"]
    assert open_index(tmp_path).problems == []


def test_new_classes_count(tmp_path: Path):
    shard(tmp_path / "a.tar", range(3))
    assert open_index(tmp_path).label.tolist() == [0, 1, 2]
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    assert open_index(tmp_path).label.tolist() == [0, 1, -1]


def test_classes_of_one_name_are_kept_apart(tmp_path: Path, read_shards: list[str]):
    shard(tmp_path / "a.tar", range(3))
    (tmp_path / "classes.txt").write_text("crane\nmaillot\ncrane\n")
    assert open_index(tmp_path).classes == ["crane", "maillot", "crane (2)"] == open_index(tmp_path).classes
    assert read_shards == ["a.tar"]


def test_links_that_lead_nowhere_or_to_themselves_are_unreadable_shards(tmp_path: Path):
    shard(tmp_path / "a.tar", range(3))
    (tmp_path / "b.tar").symlink_to(tmp_path / "nowhere.tar")
    (tmp_path / "c.tar").symlink_to(tmp_path / "c.tar")
    (problem,) = index(tmp_path)["problems"]
    assert (problem["reason"], problem["shards"]) == ("unreadable shard", ["b.tar", "c.tar"])
    assert not index(tmp_path / "a*.tar")["problems"] and open_index(tmp_path).shards == ["a.tar"]


def test_a_damaged_index_is_made_again(tmp_path: Path, read_shards: list[str]):
    shard(tmp_path / "a.tar", range(3))
    expected = open_index(tmp_path).fingerprint
    sound = (tmp_path / FILE).read_bytes()
    flipped = bytearray(sound)
    flipped[-60] ^= 1  # in the arrays
    for data in (b"", sound[: len(sound) // 2], b"\0" * 100, bytes(flipped)):
        (tmp_path / FILE).write_bytes(data)
        read_shards.clear()
        assert open_index(tmp_path).fingerprint == expected
        assert read_shards == ["a.tar"]
        assert (tmp_path / FILE).read_bytes() == sound


def test_a_read_only_folder_is_left_alone(tmp_path: Path, cache: Path, read_shards: list[str]):
    folder = tmp_path / "shards"
    shard(folder / "a.tar", range(3))
    folder.chmod(0o555)
    try:
        found = open_index(folder)
        assert open_index(folder).fingerprint == found.fingerprint
    finally:
        folder.chmod(0o755)
    assert read_shards == ["a.tar"]
    assert [path.name for path in folder.iterdir()] == ["a.tar"]
    assert len(list((cache / "mae_kit").iterdir())) == 1


def test_a_full_disk_costs_the_index_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    shard(tmp_path / "a.tar", range(3))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert len(open_index(tmp_path)) == 3
        assert "No space left on device" in caplog.text
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
        with raises("index.save"):
            index(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".index", "a.tar"], "what was read is not lost"
    assert index(tmp_path)["samples"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", FILE]


# The user's mistakes


def test_mistakes_are_named(tmp_path: Path):
    with raises("shards.folder"):
        open_index(tmp_path / "nowhere" / "train-*.tar")
    with raises("shards.none"):
        open_index(tmp_path)
    shard(tmp_path / "train" / "a.tar", range(2))
    with raises("shards.none"):
        open_index(tmp_path)
    with raises("shards.unknown"):
        open_index(tmp_path / "train" / "val-*.tar")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "a.tar").write_text("<html>404</html>\n\n\n\n")
    for read in (open_index, index):
        with raises("shards.unusable"):
            read(tmp_path / "page")
        assert [path.name for path in (tmp_path / "page").iterdir()] == ["a.tar"]
    with raises("shards.unusable"):
        index(tmp_path / "page")


def test_a_missing_folder_is_not_taken_for_a_pattern(tmp_path: Path):
    with raises("shards.folder"):
        open_index(tmp_path / "shards")
