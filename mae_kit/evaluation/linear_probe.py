"""MAE's linear probe as published (He et al., CVPR 2022, appendix A.1; main_linprobe.py): a linear layer on a frozen
encoder, which sees a new random crop of every image in each epoch.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mae_kit.data.index.open import Index
from mae_kit.data.loading.decoded import decoded
from mae_kit.data.loading.loader import EvaluationBatches, Replica, TrainBatches
from mae_kit.data.transforms.augment import Normalize, PretrainAugment
from mae_kit.evaluation.lars import Lars
from mae_kit.evaluation.predictions import Labels, Predictions, predictions
from mae_kit.evaluation.probe import Probe, classification_loss
from mae_kit.parallel.device import frozen_device
from mae_kit.training.schedule import absolute_learning_rate, learning_rate

EPOCHS, WARMUP, BATCH, BASE_RATE = 90, 10, 16_384, 0.1
CROP_SCALE, CROP_PCT = (0.08, 1.0), 224 / 256
_CHUNK = 256  # images encoded at once


def linear_probe(
    encoder: Any, train: Index, val: Index, classes: int, epochs: int = EPOCHS, batch_size: int = BATCH, seed: int = 0
) -> tuple[Predictions, Labels]:
    """Train on random resized crops (8 to 100% of the area) and flips, score on the central 224/256.

    The feature is the class token of the last layer, or the mean of the patch tokens of an encoder without one. LARS
    without weight decay, base learning rate .1 (x batch / 256), 10 epochs of warm-up, cosine to 0, behind a batch
    normalization without affine parameters.

    Args:
        encoder: As `load_encoder` returns it; it is moved to the GPU if there is one.
        train: Labeled shards.
        val: Labeled shards.
        classes: Number of classes.
        epochs: Passes over `train`.
        batch_size: Images a step; all of them where they are fewer. Large ones are multiples of 256.
        seed: Of the weights, order, crops and flips.

    Returns:
        Predictions and labels of the validation images that decode: classes [q], or logits [q k] of multi-label data.
    """
    device = frozen_device()
    encoder, config = encoder.to(device), encoder.pretrained_cfg
    head = _trained(encoder, train, classes, epochs, batch_size, seed)
    normalize, rows = Normalize(config.mean, config.std).to(device), val.labeled()
    found, truth = [], []
    batches = EvaluationBatches(val, rows, _CHUNK, encoder.image_size, encoder.channels, CROP_PCT)
    with torch.no_grad():
        for batch in decoded(batches, str(val.folder)):
            logits = head(_feature(encoder, normalize(batch.images.to(device))))[0]
            found.append(predictions(logits.cpu(), batch.labels))
            truth.append(batch.labels)
    return torch.cat(found), torch.cat(truth)


def _trained(encoder: Any, train: Index, classes: int, epochs: int, batch_size: int, seed: int) -> Probe:
    rows, device = train.labeled(), next(encoder.parameters()).device
    batch = min(batch_size, len(rows))
    parts = max(1, batch // _CHUNK)
    batch -= batch % parts
    steps = epochs * len(rows) // batch
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Probe(encoder.dim, classes, 1, momentum=0.1).to(device)
    optimizer, peak = Lars(head.parameters(), lr=0.0), absolute_learning_rate(BASE_RATE, batch)
    for step, (x, labels) in enumerate(_features(encoder, train, rows, batch, parts, steps, seed)):
        rate = learning_rate(step * batch / len(rows), peak=peak, floor=0, warmup_epochs=WARMUP, epochs=epochs)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        classification_loss(head(x)[0], labels).backward()
        optimizer.step()
    return head.eval()


def _features(
    encoder: Any, train: Index, rows: np.ndarray, batch: int, parts: int, steps: int, seed: int
) -> Iterator[tuple[Float[Tensor, "b d"], Tensor]]:
    """Of each step: a batch is decoded and encoded in parts."""
    config, device = encoder.pretrained_cfg, next(encoder.parameters()).device
    augment = PretrainAugment(config.mean, config.std, flip=True, color_jitter=0.0).to(device)
    size, replica = encoder.image_size, Replica(micro_batches=parts)
    crops = TrainBatches(train, rows, batch, size, encoder.channels, CROP_SCALE, seed, replica)
    for step in range(steps):
        found = [crops[step * parts + part] for part in range(parts)]
        with torch.no_grad():
            each = [_feature(encoder, augment(b.images.to(device), b.seeds.to(device))) for b in found]
        yield torch.cat(each), torch.cat([b.labels for b in found]).to(device)


def _feature(encoder: Any, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
    tokens = encoder(images)
    return tokens[:, 0] if encoder.has_class_token else tokens[:, encoder.prefix :].mean(dim=1)
