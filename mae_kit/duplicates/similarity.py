"""Duplicates by the features of an encoder: nearest neighbors, by faiss."""

import math
from pathlib import Path

import faiss
import numpy as np
import torch
from jaxtyping import Float32, Int64

from mae_kit.console import progress
from mae_kit.data.index.open import Index
from mae_kit.duplicates.pairs import FEATURES, Pairs, joined
from mae_kit.evaluation.features import extract_features
from mae_kit.evaluation.rows import Matrix, Rows
from mae_kit.parallel import Engine
from mae_kit.weights.recognize import load_encoder

NEIGHBORS = 16  # of each image; further duplicates are joined through them
EXACT = 50_000
_PROBES = 16
_SEEN = 64  # images that a cell is placed by; faiss asks for 39
_QUERIES = 4096


class FeatureSearch:
    """Finds pairs by the features of an encoder.

    Args:
        encoder: A run folder, or its encoder.safetensors.
        similarity: Minimum cosine.
        workers: Number of shards whose features are extracted at once.
        engine: Where they are.

    Raises:
        UserError: There is no such encoder.
    """

    def __init__(self, encoder: Path, similarity: float, workers: int, engine: Engine = "processes"):
        self.encoder, self.similarity = load_encoder(encoder), similarity
        self.workers = workers
        self.engine: Engine = engine

    def __call__(self, sides: list[Index]) -> Pairs:
        """Find pairs of the samples, and after them of the evaluation set."""
        features = [extract_features(self.encoder, side, self.workers, engine=self.engine) for side in sides]
        starts = np.cumsum([0, *map(len, sides[:-1])])
        rows = np.concatenate([part.rows + start for part, start in zip(features, starts, strict=True)])
        values = Rows([piece for part in features for piece in part.last.pieces])
        return similar(values, rows, len(sides[0]), self.similarity)


def similar(features: Matrix, rows: Int64[np.ndarray, " m"], own: int, similarity: float) -> Pairs:
    """Find pairs of features with a large cosine, after subtracting the mean.

    Features of one encoder have most of their direction in common: raw cosines are all near 1. Up to 50,000 images the
    search is exact; beyond, it covers the 16 nearest of about 4 sqrt(m) cells. Faiss holds one copy of the features.

    Args:
        features: Of the images that can be decoded.
        rows: Their rows, ascending.
        own: Rows below this one are samples; pairs within the evaluation set are not looked for.
        similarity: Minimum cosine.
    """
    mine, parts = int(np.searchsorted(rows, own)), [Pairs.of(rows[:0], rows[:0], FEATURES)]
    directions = _Directions(features, mine)
    index, k = _index(directions), min(NEIGHBORS, len(features))
    with progress("comparing", float(mine), "features") as advance:
        for start in range(0, mine, _QUERIES):
            asked = np.arange(start, min(start + _QUERIES, mine))
            cosines, found = index.search(directions.take(asked), k)
            close = (cosines >= similarity) & (found != asked[:, None])
            one, other = np.repeat(asked, k)[close.ravel()], found[close]
            first, second = rows[np.minimum(one, other)], rows[np.maximum(one, other)]
            parts.append(Pairs.of(first, second, FEATURES, score=cosines[close]))
            advance(len(asked))
    return joined(parts)


class _Directions:
    """Features from the mean of the samples' on, of length 1.

    Args:
        features: Of the samples, and behind them those of the evaluation set.
        mine: How many are of samples.
    """

    def __init__(self, features: Matrix, mine: int):
        self._features, self.count, self.width = features, len(features), features.shape[1]
        total = torch.zeros(self.width, dtype=torch.float64, device=features.device)
        for part in torch.arange(mine).split(_QUERIES):
            total += features[part].sum(dim=0)
        self._mean = (total / max(mine, 1)).float()

    def take(self, which: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        x = (self._features[torch.from_numpy(which)] - self._mean).cpu().numpy()
        faiss.normalize_L2(x)
        return x


def _index(directions: _Directions) -> faiss.Index:
    count, width = directions.count, directions.width
    if count <= EXACT:
        index: faiss.Index = faiss.IndexFlatIP(width)
    else:
        cells = 4 * math.isqrt(count)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = _PROBES
        index.train(directions.take(np.arange(0, count, -(-count // (_SEEN * cells)))))
    for start in range(0, count, _QUERIES):
        index.add(directions.take(np.arange(start, min(start + _QUERIES, count))))
    return index
