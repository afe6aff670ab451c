"""The objects in images, their boxes and classes, from the `.boxes.json` members."""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from mae_kit.files.json_file import parse_json

UNKNOWN = -1


class Objects(NamedTuple):
    """The m objects of one image.

    Attributes:
        xyxy: Left, top, right and bottom edge of each, in pixels of the upright image.
        label: Their classes.
        crowd: True for a box around many objects of a class, as in COCO: neither trained on nor scored.
    """

    xyxy: Float32[np.ndarray, "m 4"]
    label: Int32[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]

    @classmethod
    def of(cls, xyxy: Any, label: Any, crowd: Any) -> "Objects":
        return cls(np.array(xyxy, np.float32).reshape(-1, 4), np.array(label, np.int32), np.array(crowd, bool))

    def to_json(self) -> bytes:
        """The content of a `.boxes.json` member."""
        edges = [[float(f"{edge:.2f}") for edge in box] for box in self.xyxy.tolist()]
        content = {"boxes": edges, "labels": self.label.tolist(), "crowd": self.crowd.astype(int).tolist()}
        return json.dumps(content, separators=(",", ":")).encode()

    def fault(self, width: int, height: int, classes: int | None) -> str:
        """What is wrong with them in an image of this size; empty where nothing is."""
        if not len(self.label):
            return ""
        if (self.xyxy < 0).any() or (self.xyxy > (width, height, width, height)).any():
            return "box that lies outside its image"
        if (self.xyxy[:, 2:] <= self.xyxy[:, :2]).any():
            return "box without area"
        largest = int(self.label.max())
        return (
            f"box of a class that is not known: {largest} of {classes} classes" if largest >= (classes or 1e9) else ""
        )


class Boxes:
    """The objects of n samples, one sample after another.

    Attributes:
        count: Objects of each sample; -1 where nothing is known of it.
        objects: Of all samples.
    """

    def __init__(self, count: Int32[np.ndarray, " n"], objects: Objects):
        self.count, self.objects = count, objects

    @classmethod
    def pack(cls, samples: Iterable[Objects | None]) -> "Boxes":
        """Of samples; None = nothing known."""
        rows = list(samples)
        count = np.array([UNKNOWN if row is None else len(row.label) for row in rows], np.int32)
        none = Objects.of([], [], [])
        columns = zip(none, *(row for row in rows if row is not None), strict=True)
        return cls(count, Objects(*(np.concatenate(column) for column in columns)))

    @classmethod
    def unknown(cls, n: int) -> "Boxes":
        return cls.pack([None] * n)

    @classmethod
    def join(cls, parts: Sequence["Boxes"]) -> "Boxes":
        columns = zip(*(part.objects for part in parts), strict=True)
        objects = Objects(*(np.concatenate(column) for column in columns))
        return cls(np.concatenate([part.count for part in parts]), objects)

    @property
    def known(self) -> Bool[np.ndarray, " n"]:
        return self.count >= 0

    def of(self, row: int) -> Objects:
        """Those of one sample."""
        start = int(self._start[row])
        return Objects(*(column[start : start + max(int(self.count[row]), 0)] for column in self.objects))

    def take(self, rows: Int64[np.ndarray, " m"] | slice) -> "Boxes":
        """Those of some samples, in the order of `rows`."""
        count = self.count[rows]
        sizes = np.maximum(count, 0).astype(np.int64)
        places = np.arange(sizes.sum()) + np.repeat(self._start[rows] - (np.cumsum(sizes) - sizes), sizes)
        return Boxes(count, Objects(*(column[places] for column in self.objects)))

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name, as an index file holds them."""
        return {"box_count": self.count} | {f"box_{k}": column for k, column in self.objects._asdict().items()}

    @cached_property
    def _start(self) -> Int64[np.ndarray, " n"]:
        sizes = np.maximum(self.count, 0).astype(np.int64)
        return np.cumsum(sizes) - sizes


def parse_objects(text: bytes) -> Objects:
    """Read a member: a JSON object with `boxes`, `labels`, and `crowd` where there are crowds.

    Raises:
        ValueError: It holds something else.
    """
    found: Any = parse_json(text)
    if not isinstance(found, dict) or not isinstance(found.get("boxes"), list):
        raise ValueError("no JSON object with boxes")
    boxes: list[Any] = found["boxes"]
    labels: Any = found.get("labels")
    crowd = found.get("crowd", [0] * len(boxes))
    for column in (labels, crowd):
        if not isinstance(column, list) or len(column) != len(boxes):
            raise ValueError("boxes, labels and crowd differ in length")
    if not all(type(label) is int and 0 <= label < 1 << 31 for label in labels):
        raise ValueError("labels that are no classes")
    if not all(isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) for box in boxes):
        raise ValueError("boxes that are not four finite numbers")
    return Objects.of(boxes, labels, [bool(each) for each in crowd])


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9
