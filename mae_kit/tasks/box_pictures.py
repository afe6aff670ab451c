"""Boxes over their images, in the colors of their classes."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mae_kit.tasks.detector import Detections
from mae_kit.tasks.overlays import Picture, colors, in_row


def draw_boxes(image: Picture, found: Detections, names: list[str], score: bool = False) -> Picture:
    """Frame the objects of an image; with `score` the probability of each above its frame."""
    picture = Image.fromarray(image)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(10)
    for box, label, certain in zip(*(column.tolist() for column in found), strict=True):
        color = tuple(colors(len(names))[label % 255].tolist())
        draw.rectangle([round(edge) for edge in box], outline=color, width=2)
        if score:
            draw.text((box[0] + 3, box[1] + 1), f"{certain:.2f}", color, font)
    return np.asarray(picture)


def side_by_side(image: Picture, sets: list[Detections], names: list[str]) -> Image.Image:
    """The image, copies of it with a set of boxes each, and below the colors of the classes that these show."""
    shown = np.unique(np.concatenate([one.classes.numpy() for one in sets])) if sets else np.empty(0, int)
    return in_row([image, *(draw_boxes(image, one, names) for one in sets)], shown, names)
