"""The objects of an image as a shard stores them: boxes in pixels of the stored, upright image."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mae_kit.data.decode import MAX_PIXELS, image_size, orientation_of
from mae_kit.data.index.boxes import Objects
from mae_kit.data.orientation import UPRIGHT
from mae_kit.errors import BadImage

SLACK = 0.5  # pixels that a box may lie outside of its image before it counts as clipped
UNKNOWN = -1


class Annotation(NamedTuple):
    """What a file says of the objects in an image.

    Attributes:
        xyxy: Left, top, right and bottom edge of each.
        label: Their classes; `UNKNOWN` where a class has no name.
        crowd: True for a box around many objects.
        frame: Width and height that the edges are measured in, 1 x 1 for fractions; None = pixels of the image.
        upright: Whether the frame is that of the upright image; otherwise EXIF turns the boxes, too.
    """

    xyxy: list[list[float]]
    label: list[int]
    crowd: list[bool]
    frame: tuple[float, float] | None = None
    upright: bool = False


def encode_objects(
    annotation: Annotation, image: bytes, stored: bytes, max_pixels: int = MAX_PIXELS
) -> tuple[Objects, Counter[str]]:
    """Turn boxes upright, scale them to the stored image, clip them to it, and leave out what is no object.

    Args:
        annotation: Of the image.
        image: The image, as the source has it.
        stored: The image, as the shard has it.
        max_pixels: Larger ones are refused.

    Returns:
        The objects, and how many boxes were clipped, were empty or had an unknown class.

    Raises:
        BadImage: The boxes are those of an image of another size, or are no finite numbers.
    """
    xyxy = np.array(annotation.xyxy, np.float64).reshape(-1, 4)
    label, crowd = np.array(annotation.label, np.int32), np.array(annotation.crowd, bool)
    if not np.isfinite(xyxy).all():
        raise BadImage("box that is not four finite numbers")
    xyxy, frame = _upright(annotation, xyxy, image, max_pixels)
    width, height = image_size(stored, max_pixels)
    xyxy = xyxy * (np.array([width, height, width, height]) / (*frame, *frame))
    inside = xyxy.clip(0, (width, height, width, height))
    clipped = (np.abs(inside - xyxy) > SLACK).any(axis=1)
    inside = inside.round(2)
    empty = (inside[:, 2:] <= inside[:, :2]).any(axis=1)
    unknown = label == UNKNOWN
    kept = ~(empty | unknown)
    counts = {"clipped": clipped & kept, "empty": empty, "unknown": unknown & ~empty, "crowd": crowd & kept}
    objects = Objects.of(inside[kept], label[kept], crowd[kept])
    return objects, Counter({name: int(which.sum()) for name, which in counts.items()})


def _upright(
    annotation: Annotation, xyxy: Float[np.ndarray, "m 4"], image: bytes, max_pixels: int
) -> tuple[Float[np.ndarray, "m 4"], tuple[float, float]]:
    """Boxes in a frame that is upright, and its width and height."""
    if annotation.upright and annotation.frame is not None:
        return xyxy, annotation.frame
    orientation, size = orientation_of(image, max_pixels), image_size(image, max_pixels)
    swapped, rows, columns = UPRIGHT.get(orientation, (False, 1, 1))
    raw = size[::-1] if swapped else size
    frame = annotation.frame or raw
    if annotation.upright or (swapped and frame == size and frame != raw):
        return xyxy, size
    if frame != raw:
        what = f"{frame[0]:g} x {frame[1]:g} pixels for an image of {raw[0]} x {raw[1]}"
        raise BadImage(f"boxes of an image of another size: {what}")
    if swapped:
        xyxy = xyxy[:, [1, 0, 3, 2]]
    for axis, step in ((0, columns), (1, rows)):
        if step < 0:
            xyxy[:, [axis, axis + 2]] = size[axis] - xyxy[:, [axis + 2, axis]]
    return xyxy, size
