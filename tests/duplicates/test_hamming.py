"""The tables find every pair within the distance, and no other."""

import numpy as np
import pytest

from mae_kit.duplicates import hamming
from mae_kit.duplicates.hamming import FEW, LARGEST, HammingTables


def hashes(count: int) -> np.ndarray:
    """Random, and behind each hundredth eleven that differ from it in 1 to 12 bits, the highest bit among them."""
    dice = np.random.default_rng(0)
    made = dice.integers(0, 2**64, count, dtype=np.uint64)
    for start in range(0, count - 12, 100):
        for bits in range(1, 13):
            flipped = dice.choice(64, bits, replace=False) if bits % 2 else np.arange(64 - bits, 64)
            made[start + bits] = made[start] ^ np.bitwise_or.reduce(np.uint64(1) << flipped.astype(np.uint64))
    return made


@pytest.mark.parametrize("few", [0, FEW])
@pytest.mark.parametrize("distance", [0, 1, 2, 3, 6, 7, 8, LARGEST])
def test_they_find_what_looking_at_all_pairs_finds(distance: int, few: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hamming, "FEW", few)
    made = hashes(700)
    places, rows = HammingTables(made, distance).search(made[:300])
    wanted = np.bitwise_count(made[:300, None] ^ made[None]) <= distance
    assert list(zip(places.tolist(), rows.tolist(), strict=True)) == [tuple(p) for p in np.argwhere(wanted).tolist()]
    assert wanted.sum() >= 300 + distance


@pytest.mark.parametrize("few", [0, FEW])
def test_nothing_to_ask(few: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hamming, "FEW", few)
    places, rows = HammingTables(hashes(50), 8).search(np.empty(0, np.uint64))
    assert len(places) == len(rows) == 0
