"""Rows of matrices that stay on disk: what is asked for is read, and nothing else is held."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.parallel.device import frozen_device


class Stored(NamedTuple):
    """A float32 matrix within a safetensors file.

    Attributes:
        file: Path.
        offset: Of its first byte in the file.
        rows: How many.
        width: Numbers in each.
    """

    file: Path
    offset: int
    rows: int
    width: int


def stored_matrices(file: Path) -> dict[str, Stored]:
    """By name; the library reads tensors and slices of them, but does not say where in the file they lie."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    header.pop("__metadata__", None)
    matrices = {name: about for name, about in header.items() if about["dtype"] == "F32" and len(about["shape"]) == 2}
    return {name: Stored(file, 8 + size + m["data_offsets"][0], *m["shape"]) for name, m in matrices.items()}


class Rows:
    """Rows of some matrices, one behind the other, in the manner of a tensor: a method that asks for its length, shape,
    device, parts or rows by number takes either.

    They are read and not mapped: mapped pages would count as memory of the process for as long as it asks.

    Args:
        pieces: The matrices, all of one width.
        places: Rows of them in the order of ours; by default all.
    """

    def __init__(self, pieces: Sequence[Stored], places: Int64[np.ndarray, " m"] | None = None):
        self.pieces = pieces
        self._starts = np.cumsum([0, *(piece.rows for piece in pieces)])
        self._places = np.arange(self._starts[-1]) if places is None else places
        self.shape = len(self._places), pieces[0].width
        self.device = torch.device(frozen_device())

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """What they would take in memory."""
        return len(self) * self.shape[1] * np.dtype(np.float32).itemsize

    def __getitem__(self, rows: Int64[Tensor, " n"]) -> Float32[Tensor, "n d"]:
        wanted, back = np.unique(self._places[rows.cpu().numpy()], return_inverse=True)
        return torch.from_numpy(self._read(wanted)[back]).to(self.device)

    def split(self, size: int) -> Iterator[Float32[Tensor, "_ d"]]:
        """So many at a time, in order."""
        return (self[part] for part in torch.arange(len(self)).split(size))

    def read(self) -> Float32[Tensor, "m d"]:
        """All of them, into memory."""
        return self[torch.arange(len(self))]

    def only(self, rows: Int64[np.ndarray, " n"]) -> "Rows":
        """These alone, still on disk."""
        return Rows(self.pieces, self._places[rows])

    def _read(self, places: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        """Ascending ones."""
        found = np.empty((len(places), self.shape[1]), np.float32)
        ends = np.searchsorted(places, self._starts).tolist()
        for piece, start, (first, end) in zip(self.pieces, self._starts[:-1], pairwise(ends), strict=True):
            if end > first:
                _fill(found[first:end], piece, places[first:end] - start)
        return found


def _fill(found: Float32[np.ndarray, "n d"], piece: Stored, rows: Int64[np.ndarray, " n"]) -> None:
    """Ascending rows of one file; neighbors are read at once."""
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    with piece.file.open("rb", buffering=0) as opened:
        for first, end in pairwise(edges):
            opened.seek(piece.offset + int(rows[first]) * piece.width * found.itemsize)
            wanted = found[first:end].data.cast("B")
            while wanted.nbytes:  # a network's disk may give less than it was asked for
                if not (count := opened.readinto(wanted)):
                    problem = f"{piece.file} is truncated"
                    raise UserError("features.damaged", problem, "delete it: features are then extracted again")
                wanted = wanted[count:]


Matrix = Float[Tensor, "_ _"] | Rows
"""Features in memory, or on disk."""
