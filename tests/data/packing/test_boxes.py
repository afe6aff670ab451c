# Also tests data/packing/box_files.py
"""Packing boxes: COCO, VOC and YOLO come to the same shards; what does not fit is counted and told."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.boxed_folders import NAMES, SIZE, Box, save_image, some_boxes, write_coco, write_voc, write_xml, write_yolo
from support.errors import raises
from support.shapes import write_shapes

from mae_kit.commands.shard import shard
from mae_kit.data.decode import decode
from mae_kit.data.index.boxes import Objects
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.orientation import UPRIGHT

WRITERS = {"COCO": write_coco, "VOC": write_voc, "YOLO": write_yolo}


def pack(source: Path, tmp_path: Path, **how) -> tuple[dict, Index]:
    out = tmp_path / "shards"
    stats = shard(str(source), out, workers=1, **how)
    return stats, open_index(out / "*.tar")


def objects_of(index: Index) -> dict[str, Objects]:
    assert index.boxes is not None
    return {Path(index.file(row)).stem: index.boxes.of(row) for row in index.boxed().tolist()}


def reasons(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "shards/skipped.jsonl").read_text().splitlines()
    return [json.loads(line)["reason"].partition(":")[0] for line in lines]


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_comes_to_the_same_boxes(tmp_path: Path, kind: str):
    images = {f"{number}.jpg": some_boxes(number) for number in range(4)} | {"none.jpg": list[Box]()}
    stats, index = pack(WRITERS[kind](tmp_path / "in", images), tmp_path)
    assert (
        index.classes is not None
        and kind in stats["source"]
        and stats["boxes"]["objects"] == 6
        and stats["boxes"]["background"] == 1
    )
    assert index.classes == (NAMES if kind != "VOC" else sorted(NAMES))
    found = objects_of(index)
    for name, boxes in images.items():
        objects = found[Path(name).stem]
        np.testing.assert_allclose(objects.xyxy, np.array([box[1:] for box in boxes]).reshape(-1, 4), atol=0.01)
        assert [index.classes[label] for label in objects.label] == [NAMES[box[0]] for box in boxes]


def test_the_lists_of_a_voc_folder_split_it(tmp_path: Path):
    source = write_voc(tmp_path / "in", {f"{number}.jpg": some_boxes(number) for number in range(4)})
    save_image(source / "JPEGImages/5.jpg", some_boxes(5))
    stats, _ = pack(source, tmp_path)
    assert [stats["splits"][split]["images"] for split in ("train", "val")] == [3, 1]
    assert "in no split that the files of boxes name" in reasons(tmp_path)


def test_folders_of_splits_have_their_own_files(tmp_path: Path):
    for split, numbers in {"train": range(3), "val": range(3, 5)}.items():
        for number in numbers:
            save_image(tmp_path / f"in/images/{split}/{number}.jpg", some_boxes(number))
        write_yolo(tmp_path / "one", {f"{number}.jpg": some_boxes(number) for number in numbers})
        (tmp_path / f"in/labels/{split}").mkdir(parents=True)
        for number in numbers:
            (tmp_path / f"one/labels/{number}.txt").rename(tmp_path / f"in/labels/{split}/{number}.txt")
    stats, index = pack(tmp_path / "in", tmp_path)
    assert [stats["splits"][split]["images"] for split in ("train", "val")] == [3, 2]
    assert index.classes == ["0", "1"] and len(index.boxed()) == 5


@pytest.mark.parametrize("resize", [None, 20])
@pytest.mark.parametrize("kind", ["COCO", "COCO upright"])
@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
def test_boxes_turn_with_their_image(tmp_path: Path, orientation: int, kind: str, resize: int | None):
    boxes: list[Box] = [(0, 4, 6, 24, 14)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = write_coco(tmp_path / "in", {"1.jpg": boxes})
    save_image(source / "1.jpg", boxes, exif)
    if kind == "COCO upright":
        if orientation < 5:
            pytest.skip("width and height do not tell")
        shown = decode((source / "1.jpg").read_bytes()).astype(int)
        rows, columns = np.nonzero(shown[..., 0] - shown[..., 2] > 100)
        content = json.loads((source / "annotations/instances_all.json").read_text())
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        content["annotations"][0]["bbox"] = [int(edge) for edge in box]
        content["images"][0] |= {"width": SIZE[1], "height": SIZE[0]}
        (source / "annotations/instances_all.json").write_text(json.dumps(content))
    _, index = pack(source, tmp_path, resize=resize)
    shown = decode(index.read(0)).astype(int)
    rows, columns = np.nonzero(shown[..., 0] - shown[..., 2] > 100)
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(objects_of(index)["1"].xyxy[0], drawn, atol=1.0 if resize else 0.5)


def test_boxes_that_are_no_objects_are_counted(tmp_path: Path):
    wide, flat, away, good = (0, -5, -5, 20, 20), (1, 3, 3, 3, 9), (0, 100, 3, 120, 9), (1, 2, 2, 9, 9)
    source = write_coco(tmp_path / "in", {"1.jpg": [wide, flat, away, good]})
    content = json.loads((source / "annotations/instances_all.json").read_text())
    annotation = content["annotations"][3]
    content["annotations"] += [annotation | {"id": 8, "category_id": 99}, annotation | {"id": 9, "iscrowd": 1}]
    (source / "annotations/instances_all.json").write_text(json.dumps(content))
    stats, index = pack(source, tmp_path)
    expected = {"objects": 3, "clipped": 1, "empty": 2, "unknown": 1, "crowd": 1, "most": 3}
    assert stats["boxes"] == expected
    objects = objects_of(index)["1"]
    np.testing.assert_array_equal(objects.xyxy, [[0, 0, 20, 20], [2, 2, 9, 9], [2, 2, 9, 9]])
    assert objects.crowd.tolist() == [False, False, True]


def test_boxes_of_another_image_and_damaged_files_are_left_out(tmp_path: Path):
    source = write_voc(tmp_path / "in", {f"{number}.jpg": some_boxes(number) for number in range(4)})
    write_xml(source / "Annotations/0.xml", some_boxes(0), size=(640, 480))
    (source / "Annotations/1.xml").write_text("<annotation><object>")
    (source / "Annotations/2.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>')
    stats, index = pack(source, tmp_path)
    assert reasons(tmp_path).count("unreadable boxes") == 2
    assert "boxes of an image of another size" in reasons(tmp_path)
    assert stats["splits"]["train"]["images"] == 2 and len(index.boxed()) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"width": [1]},
        {"width": "wide"},
        {"width": 10**400},
        {"height": float("inf")},
        {"width": float("nan")},
        {"bbox": [10**400, 0, 1, 1]},
        {"bbox": [0, 0, float("inf"), 1]},
        {"bbox": [0, 0, float("nan"), 1]},
        {"bbox": None},
    ],
    ids=lambda odd: str(odd)[:30],
)
def test_numbers_of_coco_that_are_none(tmp_path: Path, odd: dict):
    source = write_coco(tmp_path / "in", {f"{number}.jpg": some_boxes(1) for number in range(2)})
    content = json.loads((source / "annotations/instances_all.json").read_text())
    part = "annotations" if "bbox" in odd else "images"
    content[part][0] |= odd
    (source / "annotations/instances_all.json").write_text(json.dumps(content))
    _, index = pack(source, tmp_path)
    assert len(index.boxed()) == 1


def test_half_a_character_is_no_name(tmp_path: Path):
    source = write_coco(tmp_path / "in", {"1.jpg": some_boxes(1)}, categories=[{"id": 1, "name": "\ud800"}])
    with raises("shard.classes.utf8"):
        pack(source, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'.encode("utf-16"),
        b'<?xml version="1.0" encoding="nowhere"?><annotation/>',
        b'<?xml version="1.0" encoding="hex"?><annotation/>',
    ],
    ids=["utf-16", "encoding", "no text"],
)
def test_xml_that_is_not_read(tmp_path: Path, text: bytes):
    source = write_voc(tmp_path / "in", {f"{number}.jpg": some_boxes(number) for number in range(2)})
    (source / "Annotations/1.xml").write_bytes(text)
    _, index = pack(source, tmp_path)
    assert len(index.boxed()) == 1 and "unreadable boxes" in reasons(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.1",
        "red 0.5 0.5 0.1 0.1",
        "-1 0.5 0.5 0.1 0.1",
        "0 0.5 nan 0.1 0.1",
        "inf 0.5 0.5 0.1 0.1",
        "1e300 0.5 0.5 1 1",
    ],
)
def test_lines_that_are_no_boxes(tmp_path: Path, line: str):
    source = write_yolo(tmp_path / "in", {f"{number}.jpg": some_boxes(number) for number in range(2)})
    (source / "labels/0.txt").write_text(line)
    stats, index = pack(source, tmp_path)
    assert len(index.boxed()) == 1 and stats["skipped"] >= 1


def test_polygons_of_yolo_become_boxes_and_unknown_numbers_are_counted(tmp_path: Path):
    source = write_yolo(tmp_path / "in", {"1.jpg": some_boxes(1)})
    (source / "labels/1.txt").write_text("1 0.25 0.5 0.5 0.25 0.5 0.75\n7 0.5 0.5 0.5 0.5")
    stats, index = pack(source, tmp_path)
    np.testing.assert_allclose(objects_of(index)["1"].xyxy, [[12, 8, 24, 24]], atol=0.01)
    assert stats["boxes"]["unknown"] == 1


@pytest.mark.parametrize(
    "more",
    [
        {"images": 1},
        {"annotations": [1]},
        {"annotations": [{"image_id": 0}]},
        {"categories": [{"id": [1], "name": "a"}]},
    ],
    ids=["images", "numbers", "boxes", "ids"],
)
def test_files_that_are_not_coco(tmp_path: Path, more: dict):
    with raises("shard.labels.boxes"):
        shard(str(write_coco(tmp_path / "in", {"1.jpg": some_boxes(1)}, **more)), tmp_path / "out", labels="boxes")


def test_twenty_thousand_objects_in_an_image(tmp_path: Path):
    many: list[Box] = [(k % 2, k % 40, k % 24, k % 40 + 5, k % 24 + 5) for k in range(20_000)]
    stats, index = pack(write_coco(tmp_path / "in", {"1.jpg": many}), tmp_path)
    assert stats["boxes"]["most"] == 20_000 and len(objects_of(index)["1"].label) == 20_000


def test_shards_are_packed_again_with_their_boxes(tmp_path: Path):
    source = write_coco(tmp_path / "in", {f"{number}.jpg": some_boxes(number) for number in range(3)})
    exif = Image.Exif()
    exif[0x0112] = 3
    save_image(source / "1.jpg", some_boxes(1), exif)
    _, once = pack(source, tmp_path)
    _, again = pack(tmp_path / "shards", tmp_path / "2")
    for row in range(3):
        other = list(again.keys).index(once.keys[row])
        for ours, theirs in zip(once.boxes.of(row), again.boxes.of(other), strict=True):  # type: ignore[union-attr]
            np.testing.assert_array_equal(ours, theirs)


def test_boxes_that_are_asked_for_and_not_there_and_two_kinds_at_once(tmp_path: Path):
    with raises("shard.labels.boxes"):
        shard(str(write_shapes(tmp_path / "shapes")), tmp_path / "out", labels="boxes")
    source = write_yolo(tmp_path / "in", {"1.jpg": some_boxes(1)})
    write_xml(source / "labels/1.xml", some_boxes(1))
    with raises("shard.labels.boxes_kinds"):
        shard(str(source), tmp_path / "out")
