"""What a full disk does not take is written later, in its order, or reported at the end."""
# Also tests training/tensorboard.py.

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.errors import raises
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mae_kit.training.outbox import Outbox
from mae_kit.training.tensorboard import EventFile


def test_lines_wait_for_room_in_their_order_and_are_said_once(caplog: pytest.LogCaptureFixture):
    outbox, written, full = Outbox(), list[int](), [False]

    def write(number: int) -> None:
        if full[0]:
            raise OSError(28, "No space left on device", "metrics.jsonl")
        written.append(number)

    for number in range(6):
        full[0] = number in (2, 3)
        outbox.put(lambda number=number: write(number))
        if number == 3:
            assert written == [0, 1]
    outbox.close()
    assert written == list(range(6)) and len(caplog.messages) == 1


def test_what_is_never_written_is_an_error_at_the_end():
    outbox = Outbox()

    def full() -> None:
        raise OSError(28, "No space left on device", "metrics.jsonl")

    outbox.put(full)
    with raises("run.not_written"):
        outbox.close()


def test_tensorboard_reads_its_file(tmp_path: Path):
    events = EventFile(tmp_path)
    for step in (3, 6):
        events.write({"loss": step / 4, "lr": 0.5}, step, 100.0 + step)
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value, event.wall_time) for event in read.Scalars("loss")] == [
        (3, 0.75, 103),
        (6, 1.5, 106),
    ]


def test_tensorboard_reads_an_image(tmp_path: Path):
    events, grid = EventFile(tmp_path), np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    events.write_image("reconstructions", grid, 4, 100.0)
    (shown,) = EventAccumulator(str(tmp_path)).Reload().Images("reconstructions")
    assert (shown.step, shown.height, shown.width) == (4, 2, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.encoded_image_string))), grid)
