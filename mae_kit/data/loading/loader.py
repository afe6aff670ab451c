"""From the index to batches: every worker reads by offset, decodes, crops and ships whole uint8 batches.

Nothing here has state: item `i` of a dataset is the same batch in every process, worker and attempt.
"""

import atexit
import json
import logging
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.crop import DRAWS, Box, central_crop, crop_resize, random_resized_boxes, reduced, reduction
from mae_kit.data.order import Order, sample_seeds, step_positions
from mae_kit.data.scale import decode_on_scale
from mae_kit.errors import BadImage, UserError
from mae_kit.parallel.processes import descriptors
from mae_kit.randomness import CROP, REPLACEMENT, combine, uniform_numpy

log = logging.getLogger(__name__)

REPLACEMENTS = 100
DEATHS = 3  # of workers without a batch in between
LOOK = 5  # seconds without a batch after which torch sees whether its workers live
STALLED = 600  # seconds without a batch after which workers count as dead: longer than a server is asked again
AHEAD = 2  # batches that each worker makes in advance
FEW_FILES = 256  # descriptors that shared memory for batches may need
SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Replica:
    """One of the processes that train together, and the micro-batches that it accumulates a step over."""

    rank: int = 0
    world_size: int = 1
    micro_batches: int = 1

    def check_batch_size(self, batch_size: int) -> None:
        """Raises UserError where a batch is not divisible by the devices and micro-batches."""
        parts = self.world_size * self.micro_batches
        if batch_size % parts:
            what = f"{self.world_size} devices x {self.micro_batches} micro-batches"
            problem = f"data.batch_size {batch_size} is not divisible by {what}"
            raise UserError("data.batch_size.divisible", problem, f"choose a multiple of {parts}")

    def positions(self, item: int, batch_size: int) -> np.ndarray:
        """Positions in the stream of this rank's micro-batch `item`, counted over all steps."""
        step, number = divmod(item, self.micro_batches)
        return step_positions(step, batch_size, self.rank, self.world_size, number, self.micro_batches)


class TrainBatches(Dataset[Batch]):
    """Item `step * micro_batches + number` is this rank's micro-batch of that step, randomly cropped.

    Args:
        index: The shards.
        rows: Rows of the index to train on, int64, ascending; the permutation runs over them.
        batch_size: Images a step over all ranks and micro-batches; a multiple of both.
        image_size: Height and width in pixels.
        channels: Channels to decode to.
        crop_scale: Smallest and largest fraction of the image's area; (1, 1) with a square image is the whole image.
        seed: Of the run.
        replica: This process.
        mix_shards: Shards whose samples are mixed, one such group after another; 0 mixes all samples.
    """

    def __init__(
        self,
        index: Index,
        rows: np.ndarray,
        batch_size: int,
        image_size: tuple[int, int],
        channels: int = 3,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        seed: int = 0,
        replica: Replica | None = None,
        mix_shards: int = 0,
    ):
        self.index, self.rows, self.batch_size = index, rows, batch_size
        self.image_size, self.channels, self.crop_scale = image_size, channels, crop_scale
        self.seed, self.replica, self.scale = seed, replica or Replica(), index.scale
        self.order = Order(np.bincount(index.shard[rows], minlength=len(index.shards)), mix_shards, seed)

    @property
    def nbytes(self) -> int:
        """Bytes of the images of a batch."""
        images = self.batch_size // self.replica.world_size // self.replica.micro_batches
        return images * self.channels * math.prod(self.image_size) * (4 if self.scale else 1)

    def __getitem__(self, item: int) -> Batch:
        positions = self.replica.positions(item, self.batch_size)
        epochs, samples = self.order.samples_at(positions)
        self.index.ahead(self.order.shards_from(int(positions[0])))
        seeds = sample_seeds(epochs, samples, self.seed)
        draws = uniform_numpy(seeds, CROP, DRAWS)
        bad: list[str] = []
        each = zip(samples, seeds, draws, self._boxes(samples, draws), strict=True)
        loaded = [self._load(int(sample), seed, drawn, box, bad) for sample, seed, drawn, box in each]
        chosen = np.array([sample for sample, _ in loaded])
        due = torch.from_numpy(seeds.view(np.int64))
        shown = torch.from_numpy(sample_seeds(epochs, chosen, self.seed).view(np.int64)) if bad else due.clone()
        return self._batch([image for _, image in loaded], self.rows[chosen], due, shown, bad)

    def _batch(
        self, images: list[Any], ids: np.ndarray, due: torch.Tensor, shown: torch.Tensor, bad: list[str]
    ) -> Batch:
        """What `_crop` returned of each sample, as a batch."""
        labels = torch.from_numpy(self.index.labels(ids))
        return Batch(torch.stack(images), labels, due, torch.from_numpy(ids), shown, bad)

    def _boxes(self, samples: np.ndarray, draws: np.ndarray) -> list[Box]:
        """The crops of samples, drawn before decoding: a JPEG much larger than its crop is not decoded whole."""
        rows = self.rows[samples]
        sizes = np.stack([self.index.height[rows], self.index.width[rows]], axis=1)
        return random_resized_boxes(draws, sizes, self.crop_scale)

    def _load(self, sample: int, seed: np.uint64, draws: np.ndarray, box: Box, bad: list[str]) -> tuple[int, Any]:
        """A sample and its crop; in place of one that does not decode, others drawn by its seed, and a note."""
        for attempt in range(REPLACEMENTS):
            row = int(self.rows[sample])
            try:
                return sample, self._crop(row, box)
            except BadImage as error:
                bad.append(quarantine_line(self.index, row, error))
                sample = int(combine(seed, REPLACEMENT, attempt)) % len(self.rows)
                (box,) = self._boxes(np.array([sample]), draws[None])
        raise BadImage(f"{REPLACEMENTS} samples in a row did not decode, the last: {bad[-1]}")

    def _crop(self, row: int, box: Box) -> Any:
        size = int(self.index.height[row]), int(self.index.width[row])
        by = reduction(box, self.image_size)
        height, width = (-(-side // by) if by > 1 else 0 for side in size)
        image = decode_on_scale(self.index.read(row), self.channels, self.scale, height, width)
        if image.shape[:2] != size:
            box = reduced(box, by, image.shape[:2])
        return crop_resize(image, box, self.image_size, scale=self.scale)


class EvaluationBatches(Dataset[Batch]):
    """Item `i` is the i-th batch of the rows in their order, centrally cropped; bad images are left out.

    Args:
        index: The shards.
        rows: Rows of the index, int64.
        batch_size: Images an item.
        image_size: Height and width in pixels.
        channels: Channels to decode to.
        crop_pct: Fraction of the shorter side that the crop keeps, 224/256 in MAE's evaluation.
        crop_mode: center or squash, as in `evaluation_box`.
        interpolation: bicubic or bilinear.
    """

    def __init__(
        self,
        index: Index,
        rows: np.ndarray,
        batch_size: int,
        image_size: tuple[int, int],
        channels: int = 3,
        crop_pct: float = 1.0,
        crop_mode: str = "center",
        interpolation: str = "bicubic",
    ):
        self.index, self.rows, self.batch_size = index, rows, batch_size
        self.image_size, self.channels = image_size, channels
        self.crop, self.scale = (crop_pct, crop_mode, interpolation), index.scale

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (self[item] for item in range(len(self)))

    def __getitem__(self, item: int) -> Batch:
        self.index.ahead(list(dict.fromkeys(self.index.shard[self._rows_of(item, 2)].tolist())))
        bad: list[str] = []
        shown: list[tuple[int, torch.Tensor]] = []
        for row in self._rows_of(item):
            try:
                image = decode_on_scale(self.index.read(int(row)), self.channels, self.scale)
            except BadImage as error:
                bad.append(quarantine_line(self.index, int(row), error))
                continue
            shown.append((int(row), central_crop(image, self.image_size, *self.crop, self.scale)))
        ids = np.array([row for row, _ in shown], dtype=np.int64)
        nothing = torch.empty(0, self.channels, *self.image_size, dtype=torch.uint8)
        pixels = torch.stack([image for _, image in shown]) if shown else nothing
        labels = torch.from_numpy(self.index.labels(ids))
        seeds, rows, seen = (torch.from_numpy(ids.copy()) for _ in range(3))
        return Batch(pixels, labels, seeds, rows, seen, bad)

    def _rows_of(self, item: int, items: int = 1) -> np.ndarray:
        return self.rows[item * self.batch_size : (item + items) * self.batch_size]


def quarantine_line(index: Index, row: int, error: BadImage) -> str:
    """One JSON line of the quarantine list."""
    where = index.place(row) | {"offset": int(index.offset[row]), "reason": str(error)}
    return json.dumps(where, sort_keys=True)


class Loader:
    """Batches `start` to `stop` of a dataset, made ahead by worker processes; it measures how long it was waited for.

    A worker that is killed, for want of memory as a rule, is replaced: batches are arithmetic, so none is lost.

    Args:
        batches: The dataset.
        start: First item.
        stop: One past the last item.
        workers: Worker processes; 0 loads in this process.
        pin: Whether a GPU will fetch the batches.

    Attributes:
        waited: Seconds that `next` took so far.
    """

    def __init__(self, batches: Dataset[Batch], start: int, stop: int, workers: int, pin: bool = False):
        self.waited = 0.0
        self.batches, self.start, self.stop, self.workers, self.pin = batches, start, stop, workers, pin
        self._waits, self._gate = False, threading.Lock()
        self._running = self._all()

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Batch]:
        self._running = self._all()
        return self._running

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Yield, to another thread, whether a batch is waited for; if so, it is until the end of the block."""
        with self._gate:
            yield self._waits

    def close(self) -> None:
        """End the workers."""
        self._running.close()

    def _all(self) -> Generator[Batch, None, None]:
        item, deaths = self.start, 0
        while item < self.stop:
            try:
                for batch in self._from(item):
                    yield batch
                    item, deaths = item + 1, 0
            except _WorkerDied as error:
                deaths += 1
                if deaths > DEATHS:
                    fix = "give the machine more memory, or --machine.num_workers 0"
                    raise UserError("loader.dead", f"loader workers keep dying ({error})", fix) from None
                log.warning(f"{error}; the others take over")

    def _from(self, item: int) -> Generator[Batch, None, None]:
        piped = bool(self.workers) and _must_be_piped(self.batches, self.workers)
        batches = iter(
            DataLoader(
                self.batches,
                batch_size=None,
                sampler=range(item, self.stop),  # type: ignore[arg-type]
                num_workers=self.workers,
                pin_memory=self.pin,
                prefetch_factor=AHEAD if self.workers else None,
                worker_init_fn=_ignore_signals,
                timeout=LOOK if self.workers else 0,
                collate_fn=_to_arrays if piped else None,  # type: ignore[arg-type]
            )
        )
        if self.workers and hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises in whatever line is being run
        end_workers = partial(_end_workers, batches)
        atexit.register(end_workers)  # before the interpreter waits, forever, for processes that ignore its signal
        try:
            while (batch := self._next(batches)) is not None:
                yield _to_tensors(batch) if piped else batch
        finally:  # not left to the garbage collector: a traceback may hold the iterator, and with it the workers
            atexit.unregister(end_workers)
            end_workers()

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        started, self._waits = time.perf_counter(), True
        try:
            return _patiently(batches, started + STALLED)
        except BadImage as error:  # from a worker, its message is a whole traceback
            reason = str(error).strip().splitlines()[-1].partition("BadImage: ")[2] or str(error)
            if "channels" in reason:
                fix = "give images with the encoder's channels, or an encoder for theirs (in_chans)"
                raise UserError("encoder.channels.images", reason, fix) from None
            raise UserError(
                "loader.images", reason, "repair the shards: `mae-kit index` names every damaged one"
            ) from None
        except RuntimeError as error:
            if "exited unexpectedly" in str(error) or "timed out" in str(error):  # torch's words for one that is gone
                raise _WorkerDied(str(error)) from None
            before, _, message = str(error).rstrip().rpartition(f"{UserError.__module__}.UserError: ")
            if before:  # torch makes this of errors with two arguments
                raise UserError("loader.failed", *message.rsplit(": ", 1)) from None
            raise
        finally:
            with self._gate:
                self._waits = False
            self.waited += time.perf_counter() - started


class TrainerLoader(Loader):
    """A loader for Lightning: an epoch of the Trainer continues wherever its step is, also in a resumed run.

    Args:
        batches: The dataset.
        position: Tells the next item.
        length: Items of an epoch of the Trainer.
        workers: Worker processes; 0 loads in this process.
        pin: Whether a GPU will fetch the batches.
    """

    def __init__(
        self, batches: Dataset[Batch], position: Callable[[], int], length: int, workers: int, pin: bool = False
    ):
        super().__init__(batches, 0, length, workers, pin)
        self.position, self.length = position, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        self.start = self.position()
        self.stop = self.start + self.length - self.start % self.length
        return super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Nothing: the position follows from the Trainer's step. Lightning takes it for the mark of what can resume."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class _WorkerDied(Exception):
    pass


def _end_workers(batches: Any) -> None:
    """End the workers of a DataLoader's iterator, also one that is stuck: they ignore SIGTERM."""
    getattr(batches, "_shutdown_workers", lambda: None)()
    for worker in getattr(batches, "_workers", ()):
        if worker.is_alive():
            worker.kill()


def _must_be_piped(batches: Any, workers: int) -> bool:
    """Whether shared memory cannot carry the batches: a container has 64 MB of it by default; it needs descriptors."""
    needed = getattr(batches, "nbytes", 0) * workers * (AHEAD + 1)
    free = shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else math.inf
    if needed > free:
        log.info(f"{SHARED_MEMORY} has {free / 1e6:.0f} MB, batches need {needed / 1e6:.0f}: they are copied instead")
    return needed > free or descriptors() < FEW_FILES


def _patiently(batches: Iterator[Batch], end: float) -> Batch | None:
    """Wait for a batch; torch gives up each time that it finds its workers alive."""
    while True:
        try:
            return next(batches, None)
        except RuntimeError as error:
            if "timed out" not in str(error) or time.perf_counter() > end:
                raise


def _to_arrays(batch: Batch) -> Batch:
    return Batch._make(part.numpy() if isinstance(part, torch.Tensor) else part for part in batch)


def _to_tensors(batch: Batch) -> Batch:
    return Batch._make(torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in batch)


def _ignore_signals(worker: int) -> None:
    """The trainer decides what a signal means; its workers end when it does."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
