"""Folders of drawn rectangles, each image with its boxes, as other programs write them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ["red", "blue"]
SIZE = 48, 32  # width, height
Box = tuple[int, float, float, float, float]  # class, left, top, right, bottom


def draw(boxes: list[Box], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Dark gray, with a rectangle in the color of its class for each box."""
    image = np.full((size[1], size[0], 3), 40, np.uint8)
    for label, left, top, right, bottom in boxes:
        image[round(top) : round(bottom), round(left) : round(right)] = (250, 20, 20) if label == 0 else (20, 20, 250)
    return image


def some_boxes(number: int) -> list[Box]:
    """One red and, in every second image, one blue box."""
    rng = np.random.default_rng(number)
    red = int(rng.integers(1, 10)), int(rng.integers(1, 10))
    blue = int(rng.integers(26, 32)), int(rng.integers(10, 16))
    found: list[Box] = [(0, *red, red[0] + 12, red[1] + 9)]
    return found + ([(1, *blue, blue[0] + 10, blue[1] + 14)] if number % 2 else [])


def save_image(file: Path, boxes: list[Box], exif: Image.Exif | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(boxes)).save(file, quality=95, exif=exif or Image.Exif())


def write_coco(root: Path, images: dict[str, list[Box]], /, **more) -> Path:
    """Images with annotations/instances_all.json; `more` replaces parts of the JSON."""
    rows = [{"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for i, name in enumerate(images)]
    boxes = [(i, each) for i, name in enumerate(images) for each in images[name]]
    annotations = [
        {"id": k, "image_id": i, "category_id": 10 * (c + 1), "bbox": [x, y, r - x, b - y], "iscrowd": 0}
        for k, (i, (c, x, y, r, b)) in enumerate(boxes)
    ]
    categories = [{"id": 10 * (k + 1), "name": name} for k, name in enumerate(NAMES)]
    for name, some in images.items():
        save_image(root / name, some)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    content = {"images": rows, "annotations": annotations, "categories": categories} | more
    (root / "annotations/instances_all.json").write_text(json.dumps(content))
    return root


def write_voc(root: Path, images: dict[str, list[Box]]) -> Path:
    """JPEGImages, Annotations, and ImageSets that hold out the last image."""
    for name, boxes in images.items():
        save_image(root / "JPEGImages" / name, boxes)
        write_xml(root / "Annotations" / f"{Path(name).stem}.xml", boxes)
    (root / "ImageSets/Main").mkdir(parents=True)
    stems = [Path(name).stem for name in images]
    (root / "ImageSets/Main/train.txt").write_text("\n".join(stems[:-1]))
    (root / "ImageSets/Main/val.txt").write_text(stems[-1])
    return root


def write_xml(file: Path, boxes: list[Box], size: tuple[int, int] = SIZE) -> None:
    edges = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{NAMES[c]}</name><bndbox>"
        + "".join(f"<{edge}>{value}</{edge}>" for edge, value in zip(edges, box, strict=True))
        + "</bndbox></object>"
        for c, *box in boxes
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    file.write_text(f"<annotation>{shape}{objects}</annotation>")


def write_yolo(root: Path, images: dict[str, list[Box]]) -> Path:
    """images/NAME.jpg, labels/NAME.txt for images with boxes, and data.yaml."""
    for name, boxes in images.items():
        save_image(root / "images" / name, boxes)
        if boxes:
            write_text(root / "labels" / f"{Path(name).with_suffix('')}.txt", boxes)
    (root / "data.yaml").write_text("names:\n  0: red\n  1: blue\n")
    return root


def write_text(file: Path, boxes: list[Box]) -> None:
    w, h = SIZE
    lines = [f"{c} {(x + r) / 2 / w} {(y + b) / 2 / h} {(r - x) / w} {(b - y) / h}" for c, x, y, r, b in boxes]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))
