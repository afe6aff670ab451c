"""TensorBoard's file of scalars, appended whole: its own writer loses its thread to a full disk, and hangs."""

import io
import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboard.summary.writer.record_writer import RecordWriter

from mae_kit.files.durable import append


class EventFile:
    """Appends scalars to a new event file.

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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        records = [Event(wall_time=seconds, step=step, summary=Summary(value=scalars))]
        if not self.path.exists():
            records.insert(0, Event(wall_time=seconds, file_version="brain.Event:2"))
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for record in records:
            writer.write(record.SerializeToString())
        append(self.path, buffer.getvalue())
