"""Frozen features as predictors of numbers: nearest neighbors and ridge regression, scored by R2.

Whole images are resized to the encoder's size, as regression sees them: a crop would cut off some of what was counted.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mae_kit.console import progress
from mae_kit.data.index.open import Index
from mae_kit.data.loading.decoded import decoded
from mae_kit.data.loading.targets import TargetBatches
from mae_kit.data.transforms.augment import Normalize
from mae_kit.evaluation.features import FeatureSource, layers_of, pooled
from mae_kit.evaluation.knn import nearest
from mae_kit.evaluation.numbers import Numbers

KNN, PROBE = "number_knn", "number_probe"
BATCH = 64
PENALTIES = [10.0**power for power in range(-5, 4)]  # times the number of images


def score_numbers(
    encoder: Any, train: Index, val: Index, methods: Sequence[str], layers: Sequence[int], k: int, temperature: float
) -> dict[tuple[str, FeatureSource], Numbers]:
    """Fit every method to the numbers of training images, and predict those of the validation images.

    Args:
        encoder: As `load_encoder` returns it.
        train: Shards with numbers.
        val: Shards with the same numbers.
        methods: Of `number_knn` and `number_probe`.
        layers: Layers of the encoder; none for the last.
        k: Neighbors.
        temperature: Of their votes.

    Raises:
        UserError: `layers`: the encoder has no such layer.
    """
    numbers = layers_of(encoder, layers)
    model = encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    (known, aims), (asked, truth) = (_features(model, index, numbers) for index in (train, val))
    found: dict[tuple[str, FeatureSource], Numbers] = {}
    for source, features in known.items():
        queries = asked[source]
        if KNN in methods:
            near = predict_by_neighbors(features, aims, queries, k, temperature)
            found[KNN, source] = Numbers(near.numpy(), truth.numpy())
        if PROBE in methods:
            found[PROBE, source] = Numbers(predict_by_ridge(features, aims, queries).numpy(), truth.numpy())
    return found


@torch.no_grad()
def _features(
    encoder: Any, index: Index, layers: list[int]
) -> tuple[dict[FeatureSource, Float64[Tensor, "m d"]], Float64[Tensor, "m t"]]:
    """Features of the images of an index that decode, and their numbers; how many were left out is logged."""
    config, device = encoder.pretrained_cfg, next(encoder.parameters()).device
    normalize = Normalize(config.mean, config.std).to(device)
    batches = TargetBatches(index, BATCH, encoder.image_size, encoder.channels, index.targeted())
    found, numbers = defaultdict[FeatureSource, list[Tensor]](list), list[Tensor]()
    with progress("Encoding", len(batches), "batches") as advance:
        for batch in decoded(batches, str(index.folder), advance):
            tokens = encoder.layers(normalize(batch.images.to(device)), layers)
            for source, values in pooled(encoder, dict(zip(layers, tokens, strict=True))).items():
                found[source].append(values.double().cpu())
            numbers.append(batch.labels.double())
    return {source: torch.cat(parts) for source, parts in found.items()}, torch.cat(numbers)


def predict_by_neighbors(
    bank: Float[Tensor, "m d"], numbers: Float[Tensor, "m t"], queries: Float[Tensor, "q d"], k: int, temperature: float
) -> Float[Tensor, "q t"]:
    """The mean of the numbers of each query's k nearest in the bank, weighted by exp(cosine / temperature)."""
    cosines, places = nearest([bank], queries, min(k, len(bank)))
    weights = (cosines / temperature).softmax(dim=1).to(numbers)
    return torch.einsum("qn,qnt->qt", weights, numbers[places])


def predict_by_ridge(
    known: Float64[Tensor, "m d"], numbers: Float64[Tensor, "m t"], queries: Float64[Tensor, "q d"]
) -> Float64[Tensor, "q t"]:
    """Linear regression on standardized features; of the penalties the one with the least leave-one-out error.

    That error is exact and needs no refit: the residual of an image divided by 1 - its leverage (Hastie et al., "The
    Elements of Statistical Learning", 7.64).
    """
    spread, mean = torch.std_mean(known, dim=0, correction=0)
    scale, center = torch.std_mean(numbers, dim=0, correction=0)
    x, y = (known - mean) / (spread + 1e-5), (numbers - center) / scale.where(scale > 0, 1)
    left, singular, right = torch.linalg.svd(x, full_matrices=False)
    aims = left.T @ y

    def left_out(penalty: float) -> float:
        kept = singular**2 / (singular**2 + penalty)
        residual = y - left @ (kept[:, None] * aims)
        leverage = left**2 @ kept + 1 / len(x)
        return float((residual / (1 - leverage).clamp(min=1e-6)[:, None]).square().mean())

    best = min((len(x) * penalty for penalty in PENALTIES), key=left_out)
    weights = right.T @ ((singular / (singular**2 + best))[:, None] * aims)
    return ((queries - mean) / (spread + 1e-5)) @ weights * scale + center
