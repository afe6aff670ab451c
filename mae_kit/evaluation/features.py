"""Features of a frozen encoder, computed once: a task a shard, its result kept beside the shard and read from there."""

import hashlib
from collections.abc import Callable, Iterable
from functools import cache, partial
from multiprocessing import parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from safetensors import safe_open
from torch import Tensor

from mae_kit.data.index.open import Index
from mae_kit.data.index.sidecars import Arrays, Sidecars
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import Encoder, create_encoder
from mae_kit.errors import UserError
from mae_kit.evaluation.rows import Rows, stored_matrices
from mae_kit.parallel import Engine
from mae_kit.weights.encoder_file import CONFIG, FILE, load_encoder

MEAN, CLASS = "mean", "class"
_BATCH = 64


class Source(NamedTuple):
    """What features are made of.

    Attributes:
        layer: Block of a ViT or stage of a Swin whose output is taken, from 1.
        token: `mean` of the patch tokens, or `class` token.
    """

    layer: int
    token: str


class Features(NamedTuple):
    """Of the whole image, nothing hidden, for every image that decodes.

    Attributes:
        rows: Of the index, ascending.
        values: On disk, by what they are made of; no class token where the encoder has none.
    """

    rows: Int64[np.ndarray, " m"]
    values: dict[Source, Rows]

    @property
    def last(self) -> Rows:
        """Mean of the patch tokens of the last layer."""
        return self.values[Source(max(self.values).layer, MEAN)]


def extract_features(
    encoder: Path, index: Index, workers: int = 0, layers: Iterable[int] = (), engine: Engine = "processes"
) -> Features:
    """Of all images of an index, centrally cropped, in one pass; what earlier calls have done is read.

    Args:
        encoder: A run folder, or its encoder.safetensors.
        index: The shards.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.
        layers: Blocks of a ViT or stages of a Swin, from 1; by default the last.
        engine: Where shards are worked on; all see the file of the encoder.

    Raises:
        UserError: There is no such encoder, or it has no such layer.
    """
    depth = _depth(encoder)
    chosen = sorted(set(layers)) or [depth]
    if not 1 <= chosen[0] <= chosen[-1] <= depth:
        raise UserError(
            "features.extract_features",
            f"layers are {chosen}, the encoder has {depth}",
            f"give numbers from 1 to {depth}",
        )
    content = _content(encoder)
    asked = "" if chosen == [depth] else "".join(f"-{layer}" for layer in chosen)
    kept = Sidecars(f"features-{content}{asked}", "mean of patch tokens and class token, central crop; 3")
    workers = 1 if engine == "processes" and torch.cuda.is_available() else workers
    files = kept.complete(index, partial(extract_shard, encoder, content, chosen), workers, engine, (__name__,))
    starts = np.searchsorted(index.shard, np.arange(len(files)))
    rows = [_rows(file) + start for file, start in zip(files, starts, strict=True)]
    parts = [stored_matrices(file) for file in files]
    values = {_source(name): Rows([part[name] for part in parts]) for name in parts[0]}
    return Features(np.concatenate(rows), values)


def extract_shard(encoder: Path, content: str, layers: list[int], part: Index, tick: Callable[[], None]) -> Arrays:
    """The task: `rows`, counted from the shard's first, and features under the names of their sources."""
    model, normalize = _load(encoder, content)
    batches = EvaluationBatches(part, np.arange(len(part)), _BATCH, model.image_size, model.channels)
    blank = torch.zeros(1, model.channels, *model.image_size, dtype=torch.uint8)
    widths = {name: values[:0] for name, values in _encode(model, normalize, layers, blank).items()}
    rows, parts = [np.empty(0, np.int64)], [widths]  # should no image of the shard decode
    for batch in batches:
        if len(batch.ids):
            parts.append(_encode(model, normalize, layers, batch.images))
            rows.append(batch.ids.numpy())
        for _ in range(len(batch.ids) + len(batch.bad)):
            tick()
    return {"rows": np.concatenate(rows)} | {name: np.concatenate([each[name] for each in parts]) for name in widths}


def _encode(model: Encoder, normalize: Normalize, layers: list[int], images: UInt8[Tensor, "b c h w"]) -> Arrays:
    device = next(model.parameters()).device
    with torch.no_grad():
        found = dict(zip(layers, model.layers(normalize(images.to(device)), layers), strict=True))
    pooled = {Source(layer, MEAN): tokens[:, model.prefix :].mean(dim=1) for layer, tokens in found.items()}
    if model.has_class_token:
        pooled |= {Source(layer, CLASS): tokens[:, 0] for layer, tokens in found.items()}
    return {f"{source.layer} {source.token}": values.float().cpu().numpy() for source, values in pooled.items()}


def _rows(file: Path) -> Int64[np.ndarray, " m"]:
    with safe_open(file, "numpy") as opened:
        return opened.get_tensor("rows")


def _source(name: str) -> Source:
    layer, token = name.split()
    return Source(int(layer), token)


def _content(encoder: Path) -> str:
    """A hash of the weights, and of the file that says what they are of and how images are normalized for them."""
    file = encoder / FILE if encoder.is_dir() else encoder
    return hashlib.sha256(file.read_bytes() + (file.parent / CONFIG).read_bytes()).hexdigest()[:16]


def _depth(encoder: Path) -> int:
    config, _ = load_encoder(encoder)
    with torch.device("meta"):
        return create_encoder(config.model, config.model_args, config.image_size).depth


@cache
def _load(encoder: Path, content: str) -> tuple[Encoder, Normalize]:
    """Once a process and content of the files; one process of many works with one thread."""
    if parent_process() is not None:
        torch.set_num_threads(1)
    config, tensors = load_encoder(encoder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = create_encoder(config.model, config.model_args, config.image_size).eval()
    model.model.load_state_dict(tensors, strict=True)
    return model.to(device), Normalize(config.mean, config.std).to(device)
