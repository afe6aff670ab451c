"""TensorBoard's file of scalars and images, appended whole: its own writer hangs where the disk is full."""

import io
import os
import socket
import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboard.summary.writer.record_writer import RecordWriter

from mae_kit.files.durable import append


class EventFile:
    """Appends scalars and images to a new event file.

    Args:
        folder: Of the run's event files; made with the first record.
    """

    def __init__(self, folder: Path):
        self.path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"

    def write(self, values: dict[str, float], step: int, seconds: float) -> None:
        """Append values, all or none.

        Args:
            values: By tag.
            step: Of the training.
            seconds: Since the epoch.

        Raises:
            OSError: The disk is full and the like.
        """
        self._append([Summary.Value(tag=name, simple_value=value) for name, value in values.items()], step, seconds)

    def write_image(self, tag: str, image: UInt8[np.ndarray, "h w 3"], step: int, seconds: float) -> None:
        """Append an image, or nothing.

        Args:
            tag: Its name.
            image: 0 to 255.
            step: Of the training.
            seconds: Since the epoch.

        Raises:
            OSError: The disk is full and the like.
        """
        (height, width, channels), png = image.shape, io.BytesIO()
        Image.fromarray(image).save(png, format="PNG", optimize=True)
        size = {"height": height, "width": width, "colorspace": channels}
        shown = Summary.Image(**size, encoded_image_string=png.getvalue())
        self._append([Summary.Value(tag=tag, image=shown)], step, seconds)

    def _append(self, values: list[Summary.Value], step: int, seconds: float) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        records = [Event(wall_time=seconds, step=step, summary=Summary(value=values))]
        if not self.path.exists():
            records.insert(0, Event(wall_time=seconds, file_version="brain.Event:2"))
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for record in records:
            writer.write(record.SerializeToString())
        append(self.path, buffer.getvalue())
