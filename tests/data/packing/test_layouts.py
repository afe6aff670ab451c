# Also tests data/packing/splits.py and data/packing/unread.py
"""Folders as other programs make them: packed as what they are, or refused; folders are never guessed to be classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.boxed_folders import NAMES, SIZE, save_image, some_boxes, write_text, write_voc, write_xml
from support.errors import raises

from mae_kit.commands.shard import shard
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.packing.layouts import recognize
from mae_kit.data.packing.splits import choose_splits


def draw(folder: Path, *names: str, mask: bool = False) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = np.full((8, 8) if mask else (8, 8, 3), number, np.uint8)
        Image.fromarray(image).save(folder / name)
    return folder


def pack(folder: Path, **how) -> tuple[dict[str, dict[str, int]], Index]:
    """Images of each class, or all without classes, by split; and the index."""
    out = folder.with_name(f"{folder.name}-shards")
    stats = shard(str(folder), out, workers=1, **how)
    found = {split: part["classes"] or part["images"] for split, part in stats["splits"].items() if part["images"]}
    return found, open_index(out)


def roboflow(folder: Path, splits: dict[str, range]) -> Path:
    """Images beside their JSON, whose first category stands above the others; names come again in each split."""
    for split, numbers in splits.items():
        images = [{"id": i, "file_name": f"{i}.jpg", "width": SIZE[0], "height": SIZE[1]} for i in range(len(numbers))]
        boxes = [(i, box) for i, number in enumerate(numbers) for box in some_boxes(number)]
        rows = [
            {"id": k, "image_id": i, "category_id": 1 + c, "bbox": [x, y, r - x, b - y]}
            for k, (i, (c, x, y, r, b)) in enumerate(boxes)
        ]
        categories = [{"id": 0, "name": "things", "supercategory": "none"}]
        categories += [{"id": 1 + k, "name": name, "supercategory": "things"} for k, name in enumerate(NAMES)]
        for i, number in enumerate(numbers):
            save_image(folder / split / f"{i}.jpg", some_boxes(number))
        content = {"images": images, "annotations": rows, "categories": categories}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def test_an_export_of_roboflow(tmp_path: Path):
    """Each split by its own file, though names come twice; the test split is left out."""
    source = roboflow(tmp_path / "in", {"train": range(3), "valid": range(3, 5), "test": range(5, 7)})
    (source / "test/0.jpg").rename(source / "test/2.jpg")
    (source / "train/2.jpg").unlink()
    _, index = pack(source)
    assert index.classes == NAMES and index.boxes is not None
    found = {index.file(row): [*index.boxes.of(row).xyxy[0]] for row in index.boxed().tolist()}
    numbers = {"train/0.jpg": 0, "train/1.jpg": 1, "valid/0.jpg": 3, "valid/1.jpg": 4}
    assert found == {name: [*some_boxes(number)[0][1:]] for name, number in numbers.items()}


CITIES = ["train/aachen/aachen_1", "train/bochum/bochum_1", "val/munich/munich_1"]


def test_cities_are_no_classes(tmp_path: Path):
    source = draw(tmp_path / "in", *(f"leftImg8bit/{city}_leftImg8bit.png" for city in CITIES))
    assert pack(source)[0] == {"train": 2, "val": 1}
    draw(source, *(f"gtFine/{city}_gtFine_color.png" for city in CITIES))
    for kind in ("instanceIds", "labelIds"):
        draw(source, *(f"gtFine/{city}_gtFine_{kind}.png" for city in CITIES), mask=True)
    names = [str(path.relative_to(source)) for path in source.rglob("*.png")]
    first = f"leftImg8bit/{CITIES[0]}_leftImg8bit.png", f"gtFine/{CITIES[0]}_gtFine_labelIds.png"
    assert recognize(names, []).masks[first[0]] == first[1]
    source.rename(tmp_path / "masked")
    assert len(pack(tmp_path / "masked")[1].masked()) == 3
    trained = first[1].replace("labelIds", "labelTrainIds")
    assert recognize([*names, trained], []).masks == {first[0]: trained}, "not a mixture of two ways to number classes"


@pytest.mark.parametrize("annotations", ["annotations", "59_context_labels", "SegmentationClassContext"])
def test_masks_in_a_folder_by_another_name(tmp_path: Path, annotations: str):
    """ADE20K and Pascal Context."""
    source = draw(tmp_path / "in", "JPEGImages/training/1.png", "JPEGImages/validation/2.png")
    draw(source, f"{annotations}/training/1.png", f"{annotations}/validation/2.png", mask=True)
    found, index = pack(source)
    assert found == {"train": {"0": 1}, "val": {"1": 1}} and len(index.masked()) == 2


def test_names_of_masks_may_end_in_a_word(tmp_path: Path):
    source = draw(tmp_path / "in", "images/1.png", "images/2.png")
    draw(source, "masks/1_mask.png", "masks/2_mask.png", mask=True)
    assert len(pack(source)[1].masked()) == 2


@pytest.mark.parametrize("end", ["_mask", "-mask", "_seg", "_labels"])
def test_masks_next_to_their_images(tmp_path: Path, end: str):
    source = draw(tmp_path / "in", "train/1.png", "train/2.png", "val/3.png")
    draw(source, f"train/1{end}.png", f"val/3{end}.png", mask=True)
    found, index = pack(source)
    assert len(index.masked()) == 2 and found == {"train": {"0": 1}, "val": {"1": 1}}
    assert not (tmp_path / "in-shards/skipped.jsonl").read_text()


def test_masks_next_to_images_in_class_folders(tmp_path: Path):
    """As of ultrasound: which of the two are the labels is not guessed; pictures are none."""
    source = draw(tmp_path / "in", "benign/a (1).png", "normal/b (1).png")
    draw(source, "benign/a (1)_mask.png", "benign/a (1)_mask_1.png", "normal/b (1)_mask.png", mask=True)
    with raises("shard.labels.kinds"):
        pack(source)
    assert len(pack(source, labels="masks")[1].masked()) == 2
    drawn = draw(tmp_path / "drawn", *(f"{name}{end}.png" for name in ("cat/1", "dog/2") for end in ("", "_mask")))
    assert pack(drawn)[0] == {"train": {"cat": 1, "dog": 1}}


def test_masks_that_are_not_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pack(draw(tmp_path / "in", "1.png", "1_mask.tif"))
    assert "packed without labels: 1_mask.tif is no mask of classes" in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        ("images/cat/1.png", "images/dog/2.png", "segmentations/cat/1.png", "segmentations/dog/2.png"),  # CUB
        ("images/cat/1.png", "images/dog/2.png", "masks/else/1.png"),
        ("images/1.png", "pictures/1.png"),
        ("train_images/1.png", "train_labels/1.png", "test_images/2.png"),
        ("trainA/1.png", "trainB/1.png", "testA/2.png", "testB/2.png"),
        ("train/cat/images/1.png", "train/dog/images/2.png", "val/images/3.png"),  # Tiny ImageNet
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(tmp_path: Path, names: tuple[str, ...]):
    source = draw(tmp_path / "in", *names, mask=True)
    with raises("shard"):
        pack(source)
    assert not (tmp_path / "in-shards").exists()


def test_the_user_decides_what_folders_are(tmp_path: Path):
    source = draw(tmp_path / "in", "images/cat/1.png", "images/dog/2.png", "masks/cat/1.png", mask=True)
    assert pack(source, labels="folders")[0] == {"train": {"cat": 1, "dog": 1}}
    drawn = draw(tmp_path / "drawn", "photos/1.png", "sketches/2.png")
    assert pack(drawn, labels="folders")[0] == {"train": {"photos": 1, "sketches": 1}}
    cycle = draw(tmp_path / "cycle", "trainA/1.png", "testB/2.png")
    assert pack(cycle, labels="folders")[0] == {"train": {"testB": 1, "trainA": 1}}


@pytest.mark.parametrize("names", [("train_images", "test_images"), ("ILSVRC2012_img_train", "ILSVRC2012_img_val")])
def test_splits_within_names(tmp_path: Path, names: tuple[str, str]):
    assert pack(draw(tmp_path / "in", *(f"{name}/1.png" for name in names)))[0] == {"train": 1, "val": 1}


@pytest.mark.parametrize("names", [("train_station", "car"), ("test_tube", "flask"), ("train", "car")])
def test_classes_with_a_split_within_their_name(names: tuple[str, str], tmp_path: Path):
    assert choose_splits(names) is None
    assert pack(draw(tmp_path / "in", *(f"{name}/1.png" for name in names)))[0] == {"train": dict.fromkeys(names, 1)}


def test_imagenet_with_its_boxes(tmp_path: Path):
    """ILSVRC/Data beside ILSVRC/Annotations: classes by folder in train, boxes of the same classes."""
    for number, name in enumerate(NAMES):
        save_image(tmp_path / f"in/ILSVRC/Data/CLS-LOC/train/{name}/{name}_{number}.JPEG", some_boxes(1))
        write_xml(tmp_path / f"in/ILSVRC/Annotations/CLS-LOC/train/{name}/{name}_{number}.xml", some_boxes(1))
    save_image(tmp_path / "in/ILSVRC/Data/CLS-LOC/val/val_1.JPEG", some_boxes(1))
    write_xml(tmp_path / "in/ILSVRC/Annotations/CLS-LOC/val/val_1.xml", some_boxes(1))
    with raises("shard.labels.kinds"):
        pack(tmp_path / "in")
    with raises("shard.labels.no_folder"):
        pack(tmp_path / "in", labels="folders")
    assert len(pack(tmp_path / "in", labels="boxes")[1].boxed()) == 3


def test_voc_with_boxes_and_masks(tmp_path: Path):
    source = write_voc(tmp_path / "in/VOCdevkit/VOC2012", {f"{number}.png": some_boxes(number) for number in range(3)})
    for number in range(3):
        mask = source / f"SegmentationClass/{number}.png"
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros(SIZE[::-1], np.uint8)).save(mask)
    with raises("shard.labels.kinds"):
        pack(tmp_path / "in")
    _, index = pack(tmp_path / "in", labels="boxes")
    assert len(index.boxed()) == 3 and any(name.startswith("val") for name in index.shards), (
        "by its lists, below the top"
    )


UNREAD = {
    "labelTxt/P0001.txt": "imagesource:Earth\n1 1 5 1 5 5 1 5 plane 0\n",  # DOTA
    "images/P0001.json": '{"shapes": [], "imagePath": "P0001.png"}',  # LabelMe
    "train.csv": "image_id,label\nP0001,3\n",  # Kaggle
    "train-annotations-bbox.csv": "ImageID,LabelName,XMin\nP0001,/m/01,0.1\n",  # Open Images
    "_classes.csv": "filename, cat, dog\nP0001.png, 0, 1\n",  # Roboflow
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_is_told(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture):
    source = draw(tmp_path / "in", "images/P0001.png")
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text(UNREAD[name])
    assert pack(source)[0] == {"train": 1}
    assert "packed without labels" in caplog.text and name in caplog.text


def test_a_table_of_something_else_is_not_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = draw(tmp_path / "in", "1.png", "2.png")
    (source / "weather.csv").write_text("day,rain\n1,2\n")
    (source / "README.txt").write_text("Taken by me.\n")
    pack(source)
    assert "packed without labels" not in caplog.text


def yolo(folder: Path, data: str, *names: str) -> Path:
    for name in names:
        save_image(folder / f"{name}.jpg", some_boxes(1))
        write_text(folder / f"{name.replace('images', 'labels')}.txt", some_boxes(1))
    (folder / "data.yaml").write_text(f"names: [red, blue]\n{data}")
    return folder


@pytest.mark.parametrize(
    "data",
    [
        "train: ../train/images\nval: ../valid/images",  # Roboflow's, which are not where it says
        "path: /content/things\ntrain: train/images\nval: [valid/images]",
        "train: /content/things/train/images\nval: ./valid/images",
    ],
)
def test_a_data_yaml_of_another_place(tmp_path: Path, data: str):
    source = yolo(tmp_path / "in", data, "train/images/1", "train/images/2", "valid/images/1")
    pack(source)
    assert [len(open_index(tmp_path / f"in-shards/{split}-*.tar").boxed()) for split in ("train", "val")] == [2, 1]


@pytest.mark.parametrize("data", ["train: images/a\nval: images/b", "train: a.txt\nval: b.txt"])
def test_the_splits_of_a_data_yaml(tmp_path: Path, data: str):
    source = yolo(tmp_path / "in", data, "images/a/1", "images/a/2", "images/b/3")
    (source / "a.txt").write_text("./images/a/1.jpg\n./images/a/2.jpg\n")
    (source / "b.txt").write_text("images/b/3.jpg\n")
    pack(source)
    assert [len(open_index(tmp_path / f"in-shards/{split}-*.tar").boxed()) for split in ("train", "val")] == [2, 1]


def test_a_data_yaml_whose_images_are_elsewhere(tmp_path: Path):
    source = yolo(tmp_path / "in", "train: ../other/pictures\nval: ../other/more", "images/1")
    with raises("shard.labels.yolo_paths"):
        pack(source)


def test_a_data_yaml_whose_names_are_odd(tmp_path: Path):
    source = yolo(tmp_path / "in", "", "images/1")
    (source / "data.yaml").write_text("names: {0: red, blue: 1}\n")
    assert pack(source)[1].classes == ["0", "1"]


@pytest.mark.parametrize(
    "data", ["names: !!bool x", "names: &a [*a]", "names: [red", "[" * 5000], ids=["tag", "alias", "end", "deep"]
)
def test_a_data_yaml_that_is_not_read_is_told(tmp_path: Path, data: str, caplog: pytest.LogCaptureFixture):
    source = yolo(tmp_path / "in", "", "images/1")
    (source / "data.yaml").write_text(data)
    assert pack(source)[1].classes == ["0", "1"]
    assert "data.yaml is not read" in caplog.text


def test_boxes_beside_their_images(tmp_path: Path):
    """As darknet has it; captions are none."""
    _, index = pack(yolo(tmp_path / "in", "", "obj/1", "obj/2"))
    assert len(index.boxed()) == 2 and index.classes == NAMES
    captions = draw(tmp_path / "captions", "1.png", "2.png")
    (captions / "1.txt").write_text("a cat on a mat\n")
    assert not len(pack(captions)[1].boxed())
