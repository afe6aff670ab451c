"""What every kind of source becomes: a listing of samples and a way to read them."""

import errno
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mae_kit.data.index.class_sets import ClassSets
from mae_kit.data.index.listing import Skip
from mae_kit.data.index.targets import Target
from mae_kit.data.packing.boxes import Annotation
from mae_kit.data.remote.filesystem import PAUSES
from mae_kit.errors import BadImage, UserError

FROM_SOURCE = ("auto", "folders", "masks", "boxes", "none")  # the other values of --labels are paths of tables

_OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

Reader = Callable[[int, str], bytes]
"""(row, name) -> encoded image bytes. Pickled to every worker, so keep it small."""


@dataclass(frozen=True)
class Source:
    """A listing of n samples and the way to read them.

    Attributes:
        kind: What SRC was recognized as, for the user.
        read: Returns the bytes of a sample.
        names: n unique names in sorted or given order; the source is the same while names, sizes and labels are.
        labels: int64 [n]; -1 = none.
        sets: n sets of classes for multi-label data; else None.
        sizes: int64 [n] bytes, or None where only reading would tell.
        held_out: bool [n]: True = val, where the source itself is split; else None.
        classes: Names of the labels, where the source has them.
        keys: n sample ids to keep, unique in each split, where the source has such.
        skipped: What the listing already left out.
        masks: n names of masks, which `read` takes in place of the sample's own, "" where a sample has none; None where
            no sample has one.
        binary: Whether the masks hold 0 and 255 alone, and 255 is class 1, not ignored.
        targets: Numbers by name, for regression; None where a sample has none, and where no sample has one.
        boxes: Objects, for detection; None where nothing is known of a sample, and where it is of none.
    """

    kind: str
    read: Reader
    names: list[str]
    labels: np.ndarray
    sizes: np.ndarray | None = None
    held_out: np.ndarray | None = None
    classes: list[str] | None = None
    keys: list[str] | None = None
    skipped: list[Skip] = field(default_factory=list)
    sets: ClassSets | None = None
    masks: list[str] | None = None
    binary: bool = False
    targets: list[Target | None] | None = None
    boxes: list[Annotation | None] | None = None

    @property
    def has_labels(self) -> bool:
        """Whether there is anything to learn besides the images."""
        several = (self.sets, self.masks, self.targets, self.boxes)
        return bool((self.labels >= 0).any()) or any(each is not None for each in several)


def class_labels(folders: list[str]) -> tuple[np.ndarray, list[str]]:
    """Labels, int64 [n], of samples in class folders, and the names of the classes in order."""
    classes = sorted(set(folders))
    number = {name: label for label, name in enumerate(classes)}
    return np.array([number[folder] for folder in folders], np.int64), classes


def check_there(folder: Path) -> None:
    """Stop where the disk is gone, or a node never had it, rather than leave out image after image.

    Raises:
        UserError: `source.gone`.
    """
    if not folder.is_dir():
        raise UserError(
            "source.gone", f"{folder} does not exist on {platform.node()}", "mount it and repeat the command"
        )


def read_file(file: Path) -> bytes:
    """All bytes of a file; one that cannot be read now is read again, for half a minute in all.

    Raises:
        BadImage: It is not there, or nobody gave permission.
        UserError: `shard.src.read`: the disk, its server or this machine fails, of which an image is not to blame.
    """
    for pause in (0, *PAUSES, None):
        try:
            return file.read_bytes()
        except OSError as error:
            if error.errno in _OF_THE_FILE and pause != 0:
                raise BadImage(f"cannot be read: {error.strerror}") from None
            if pause is None:
                fix = "check its disk, or move the file away, and repeat the command: finished shards are kept"
                raise UserError("shard.src.read", f"{file} cannot be read ({error.strerror})", fix) from None
            time.sleep(pause)
    raise AssertionError
