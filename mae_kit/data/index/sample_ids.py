"""The keys of samples: a million strings in two arrays, cheap to save, to fork and to pickle."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from jaxtyping import Int64, UInt8


class Keys(Sequence[str]):
    """Strings.

    Attributes:
        letters: UTF-8 of all of them.
        start: Where each begins.
        stop: Where each ends.
    """

    def __init__(
        self, letters: UInt8[np.ndarray, " letters"], start: Int64[np.ndarray, " n"], stop: Int64[np.ndarray, " n"]
    ):
        self.letters, self.start, self.stop = letters, start, stop

    @classmethod
    def pack(cls, keys: Iterable[str]) -> "Keys":
        words = [key.encode() for key in keys]
        ends = np.cumsum([0, *map(len, words)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(words), np.uint8), ends[:-1], ends[1:])

    def take(self, rows: np.ndarray) -> "Keys":
        return Keys(self.letters, self.start[rows], self.stop[rows])

    def alone(self) -> "Keys":
        """The same, without the letters before and behind: a slice travels as light as it looks."""
        if not len(self):
            return Keys.pack([])
        first, last = int(self.start.min()), int(self.stop.max())
        return Keys(self.letters[first:last], self.start - first, self.stop - first)

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Keys": ...
    def __getitem__(self, row: int | slice) -> "str | Keys":
        if isinstance(row, slice):
            return Keys(self.letters, self.start[row], self.stop[row])
        return self.letters[self.start[row] : self.stop[row]].tobytes().decode()
