"""Where the masks of samples lie in their shards: three arrays, a row a sample."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt32


class Place(NamedTuple):
    """Where the mask of one image lies in its shard."""

    offset: int
    size: int
    crc32: int


class Masks(NamedTuple):
    """The masks of n samples.

    Attributes:
        offset: First byte of the mask in its shard.
        size: Bytes of the mask; 0 where the sample has none.
        crc32: zlib's checksum of these bytes.
    """

    offset: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]
    crc32: UInt32[np.ndarray, " n"]

    @classmethod
    def pack(cls, places: Iterable[Place | None]) -> "Masks":
        """Of samples; None = no mask."""
        rows = np.array([each or (0, 0, 0) for each in places], np.int64).reshape(-1, 3)
        return cls(rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 2].astype(np.uint32))

    @classmethod
    def unknown(cls, n: int) -> "Masks":
        return cls.pack([None] * n)

    @classmethod
    def join(cls, parts: Sequence["Masks"]) -> "Masks":
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    @property
    def known(self) -> Bool[np.ndarray, " n"]:
        return self.size > 0

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name, as an index file holds them."""
        return {f"mask_{name}": column for name, column in self._asdict().items()}

    def take(self, rows: Int64[np.ndarray, " m"] | slice) -> "Masks":
        """Those of some samples."""
        return Masks(*(column[rows] for column in self))
