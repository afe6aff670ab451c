"""Which images an encoder takes for the same: nearest neighbours of its features. The only doorway to faiss."""

import math
from pathlib import Path

import faiss
import numpy as np
from jaxtyping import Float32, Int64

from mae_kit.console import progress
from mae_kit.data.index import Index
from mae_kit.duplicates.pairs import FEATURES, Pairs, joined
from mae_kit.encoder_file import load_encoder
from mae_kit.engines import Engine
from mae_kit.evaluation.features import extract_features

NEIGHBOURS = 16  # of each image; what is alike beyond that hangs together through them
EXACT = 50_000
_PROBES = 16
_QUERIES = 4096


class FeatureSearch:
    """Finds pairs by what an encoder sees.

    Args:
        encoder: A run folder, or its encoder.safetensors.
        similarity: Smallest cosine.
        workers: Shards at once whose features are extracted.
        engine: Where.

    Raises:
        UserError: There is no such encoder.
    """

    def __init__(self, encoder: Path, similarity: float, workers: int, engine: Engine = "processes"):
        load_encoder(encoder)  # before the hours that fingerprints may take
        self.encoder, self.similarity = encoder, similarity
        self.workers = workers
        self.engine: Engine = engine

    def __call__(self, sides: list[Index]) -> Pairs:
        """Of the samples, and behind them those of the evaluation set."""
        features = [extract_features(self.encoder, side, self.workers, engine=self.engine) for side in sides]
        starts = np.cumsum([0, *map(len, sides[:-1])])
        rows = np.concatenate([part.rows + start for part, start in zip(features, starts, strict=True)])
        values = np.concatenate([part.last for part in features])
        return similar(values, rows, len(sides[0]), self.similarity)


def similar(features: Float32[np.ndarray, "m d"], rows: Int64[np.ndarray, " m"], own: int, similarity: float) -> Pairs:
    """Pairs of features with a large cosine around their mean.

    The mean is taken off because features of one encoder share most of their direction: raw cosines are all near 1.
    Up to 50,000 images the search is exact, beyond that the 16 nearest of about 4 sqrt(m) cells are looked into.

    Args:
        features: Of the images that decode.
        rows: Their rows, ascending.
        own: Rows below this one are samples; pairs among the others are not looked for.
        similarity: Smallest cosine.
    """
    x = features - features[rows < own].mean(axis=0)
    faiss.normalize_L2(x)
    index, k = _index(x), min(NEIGHBOURS, len(x))
    mine, parts = int(np.searchsorted(rows, own)), [Pairs.of(rows[:0], rows[:0], FEATURES)]
    with progress("comparing", float(mine), "features") as advance:
        for start in range(0, mine, _QUERIES):
            asked = np.arange(start, min(start + _QUERIES, mine))
            cosines, found = index.search(x[asked], k)
            alike = (cosines >= similarity) & (found != asked[:, None])
            one, other = np.repeat(asked, k)[alike.ravel()], found[alike]
            first, second = rows[np.minimum(one, other)], rows[np.maximum(one, other)]
            parts.append(Pairs.of(first, second, FEATURES, likeness=cosines[alike]))
            advance(len(asked))
    return joined(parts)


def _index(x: Float32[np.ndarray, "m d"]) -> faiss.Index:
    if len(x) <= EXACT:
        index: faiss.Index = faiss.IndexFlatIP(x.shape[1])
    else:
        cells = 4 * math.isqrt(len(x))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(x.shape[1]), x.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = _PROBES
        index.train(x)
    index.add(x)
    return index
