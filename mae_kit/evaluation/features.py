"""Features of a frozen encoder, computed once: a task a shard, its result kept beside the shard."""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from multiprocessing import parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64

from mae_kit.backbones.vit import ViT
from mae_kit.data.augment import Normalise
from mae_kit.data.index import Index
from mae_kit.data.loader import EvaluationBatches
from mae_kit.data.sidecars import Arrays, Sidecars
from mae_kit.encoder_file import FILE, load_encoder

_BATCH = 64


class Features(NamedTuple):
    """Of the whole image, nothing hidden, for every image that decodes.

    Attributes:
        rows: Of the index, ascending.
        values: Mean of the patch tokens.
        class_tokens: No columns where the encoder has no class token.
    """

    rows: Int64[np.ndarray, " m"]
    values: Float32[np.ndarray, "m d"]
    class_tokens: Float32[np.ndarray, "m e"]


def extract_features(encoder: Path, index: Index, workers: int = 0) -> Features:
    """Of all images of an index, centrally cropped; what earlier calls have done is read.

    Args:
        encoder: A run folder, or its encoder.safetensors.
        index: The shards.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.

    Raises:
        UserError: There is no such encoder.
    """
    load_encoder(encoder)
    file = encoder / FILE if encoder.is_dir() else encoder
    content = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    kept = Sidecars(f"features-{content}", "mean of patch tokens and class token, central crop; 2")
    workers = 1 if torch.cuda.is_available() else workers
    parts = kept.compute(index, partial(extract_shard, encoder, content), workers, preload=(__name__,))
    starts = np.searchsorted(index.shard, np.arange(len(parts)))
    rows = [part["rows"] + start for part, start in zip(parts, starts, strict=True)]
    values = (np.concatenate([part[name] for part in parts]) for name in ("values", "class_tokens"))
    return Features(np.concatenate(rows), *values)


def extract_shard(encoder: Path, content: str, part: Index, tick: Callable[[], None]) -> Arrays:
    """The task: fields of `Features` for one shard, rows counted from its first."""
    model, normalise = _load(encoder, content)
    device = next(model.parameters()).device
    batches = EvaluationBatches(part, np.arange(len(part)), _BATCH, model.image_size, model.channels)
    first = 0 if model.model.cls_token is None else 1
    rows, values = [np.empty(0, np.int64)], [np.empty((0, model.dim), np.float32)]
    class_tokens = [np.empty((0, first * model.dim), np.float32)]
    for batch in batches:
        with torch.no_grad():
            tokens = model(normalise(batch.images.to(device))).float()
        values.append(tokens[:, model.prefix :].mean(dim=1).cpu().numpy())
        class_tokens.append(tokens[:, :first].flatten(1).cpu().numpy())
        rows.append(batch.ids.numpy())
        for _ in range(len(batch.ids) + len(batch.bad)):
            tick()
    joined = {"rows": rows, "values": values, "class_tokens": class_tokens}
    return {name: np.concatenate(parts) for name, parts in joined.items()}


@cache
def _load(encoder: Path, content: str) -> tuple[ViT, Normalise]:
    """Once a process and content of the file; one process of many works with one thread."""
    if parent_process() is not None:
        torch.set_num_threads(1)
    config, tensors = load_encoder(encoder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = ViT(config.model, **config.model_args).eval()
    model.model.load_state_dict(tensors, strict=True)
    return model.to(device), Normalise(config.mean, config.std).to(device)
