"""Features of a frozen encoder, in bf16 where the machine has it, computed once per shard and cached next to it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Num
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from mae_kit.data.index.open import Index
from mae_kit.data.index.sidecars import ROWS, Arrays, Sidecars
from mae_kit.data.loading.loader import EvaluationBatches, Loader
from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import Encoder
from mae_kit.errors import UserError
from mae_kit.evaluation.rows import Rows, stored_matrices
from mae_kit.files.tensor_file import contiguous
from mae_kit.parallel import Engine
from mae_kit.parallel.device import frozen_device
from mae_kit.parallel.processes import cores
from mae_kit.training.precision import half_type
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.pretrained import load_weights

MEAN, CLASS, PATCHES = "mean", "class", "patches"
_BATCH = 64
_PIECE = 2**26  # bytes of patch tokens a file, which the process that makes it holds
_LOADERS = 8  # processes that decode for one GPU


class FeatureSource(NamedTuple):
    """What features are made of.

    Attributes:
        layer: Block of a ViT or stage of a Swin whose output is taken, from 1.
        token: `mean` of the patch tokens, `class` token, or all `patches`.
    """

    layer: int
    token: str


class Features(NamedTuple):
    """Of the whole image, nothing hidden, for every image that decodes.

    Attributes:
        rows: Of the index, ascending.
        values: On disk, by what they are made of; no class token where the encoder has none. Patch tokens of an image
            are one row, a token behind the other.
    """

    rows: Int64[np.ndarray, " m"]
    values: dict[FeatureSource, Rows]

    @property
    def last(self) -> Rows:
        """Mean of the patch tokens of the last layer."""
        return self.values[FeatureSource(max(self.values).layer, MEAN)]


def extract_features(
    encoder: Any, index: Index, workers: int = 0, layers: Iterable[int] = (), engine: Engine = "processes"
) -> Features:
    """Encode all images of an index, center-cropped, in one pass; features of earlier calls are read from the cache.

    Args:
        encoder: As `load_encoder` returns it.
        index: The shards.
        workers: Processes; 0 = one a core. Where there is a GPU, they decode for it; 0 = up to 8.
        layers: Blocks of a ViT or stages of a Swin, from 1; by default the last.
        engine: Where shards are worked on.

    Raises:
        UserError: `layers`: the encoder has no such layer.
    """
    chosen = layers_of(encoder, layers)
    asked = "" if chosen == [encoder.depth] else "".join(f"-{layer}" for layer in chosen)
    recipe = f"mean of patch tokens and class token, central crop; 3{_precision()}"
    empty = _of_no_image(encoder, chosen, False)
    kept = Sidecars(f"features-{encoder.fingerprint}{asked}", recipe, empty)
    return _extract(encoder, index, chosen, kept, False, workers, engine)


@contextmanager
def patch_features(
    encoder: Any, index: Index, layer: int, workers: int = 0, engine: Engine = "processes"
) -> Iterator[Features]:
    """Encode all images as `extract_features` does, for all patch tokens of a layer.

    They are many times the size of the images. Their files are removed at the end of the block, unless it fails: then
    they are kept, and the next call resumes.
    """
    (layer,) = layers_of(encoder, [layer])
    _, tokens, dim = _blank_tokens(encoder, layer).shape
    most = max(1, _PIECE // (4 * tokens * dim))
    recipe, empty = f"patch tokens, central crop; 1{_precision()}", _of_no_image(encoder, [layer], True)
    kept = Sidecars(f"patches-{encoder.fingerprint}-{layer}", recipe, empty, most)
    yield _extract(encoder, index, [layer], kept, True, workers, engine)
    kept.remove(index)


def _precision() -> str:
    """A part of what determines features, empty for fp32."""
    return ", bf16" if half_type("auto", frozen_device()) is torch.bfloat16 else ""


def layers_of(encoder: Any, layers: Iterable[int]) -> list[int]:
    """The layers that are asked for, ascending; by default the last.

    Raises:
        UserError: `layers`: the encoder has no such layer.
    """
    depth = encoder.depth
    chosen = sorted(set(layers)) or [depth]
    if not 1 <= chosen[0] <= chosen[-1] <= depth:
        raise UserError(
            "layers", f"layers are {chosen}, the encoder has {depth} of them", f"give numbers from 1 to {depth}"
        )
    return chosen


def token_shape(encoder: Any, source: FeatureSource) -> tuple[int, ...]:
    """Of the features of one image: [d], or [t d] for all patches."""
    _, tokens, dim = _blank_tokens(encoder, source.layer).shape
    return (tokens, dim) if source.token == PATCHES else (dim,)


def _blank_tokens(encoder: Any, layer: int) -> Float[Tensor, "1 t d"]:
    """The patch tokens of an image of zeros."""
    device = next(encoder.parameters()).device
    with torch.no_grad():
        (tokens,) = encoder.layers(torch.zeros(1, encoder.channels, *encoder.image_size, device=device), [layer])
    return tokens[:, encoder.prefix :]


def _extract(
    encoder: Any, index: Index, layers: list[int], kept: Sidecars, patches: bool, workers: int, engine: Engine
) -> Features:
    """On a machine with a GPU one process encodes, and the workers decode for it."""
    one_gpu = engine == "processes" and torch.cuda.is_available()
    loaders = (workers or min(cores(), _LOADERS)) if one_gpu else 0
    make = partial(extract_shard, _Shipped(encoder), layers, patches, loaders)
    files = kept.complete(index, make, 1 if one_gpu else workers, engine, (__name__,))
    starts = [rows.start for _, rows in index.pieces(kept.most)]
    rows = [_rows(file) + start for file, start in zip(files, starts, strict=True)]
    parts = [stored_matrices(file) for file in files]
    values = {_source(name): Rows([part[name] for part in parts]) for name in parts[0]}
    return Features(np.concatenate(rows), values)


class _Shipped:
    """An encoder on its way to worker processes: by value, since torch would share its tensors through /dev/shm, which
    containers keep small.
    """

    def __init__(self, encoder: Any):
        self.encoder = encoder

    def __reduce__(self) -> Any:
        return _unpacked, (self.encoder.pretrained_cfg, save(contiguous(self.encoder.model.state_dict())))


def _unpacked(config: ModelConfig, tensors: bytes) -> _Shipped:
    """Once a worker process, which works with one thread next to the others."""
    torch.set_num_threads(1)
    return _Shipped(load_weights(config, load(tensors), "the encoder"))


def extract_shard(
    shipped: _Shipped, layers: list[int], patches: bool, loaders: int, part: Index, tick: Callable[[], None]
) -> Arrays:
    """Compute the arrays of one shard: `rows`, relative to the shard, and features under the names of their sources."""
    device = frozen_device()
    model: Encoder = shipped.encoder.to(device)
    config = shipped.encoder.pretrained_cfg
    normalize = Normalize(config.mean, config.std).to(device)
    batches = EvaluationBatches(part, np.arange(len(part)), _BATCH, model.image_size, model.channels)
    encode = partial(_encode, model, normalize, layers, patches)
    empty = _of_no_image(model, layers, patches)  # should no image of the shard decode
    rows, parts = [empty.pop(ROWS)], [empty]
    for batch in Loader(batches, 0, len(batches), loaders, pin=device == "cuda"):
        if len(batch.ids):
            parts.append(encode(batch.images))
            rows.append(batch.ids.numpy())
        for _ in range(len(batch.ids) + len(batch.bad)):
            tick()
    return {ROWS: np.concatenate(rows)} | {name: np.concatenate([each[name] for each in parts]) for name in empty}


def _of_no_image(encoder: Any, layers: list[int], patches: bool) -> Arrays:
    config, blank = encoder.pretrained_cfg, torch.zeros(1, encoder.channels, *encoder.image_size, dtype=torch.uint8)
    normalize = Normalize(config.mean, config.std).to(next(encoder.parameters()).device)
    widths = {name: values[:0] for name, values in _encode(encoder, normalize, layers, patches, blank).items()}
    return {ROWS: np.empty(0, np.int64), **widths}


def _encode(
    model: Encoder, normalize: Normalize, layers: list[int], patches: bool, images: Num[Tensor, "b c h w"]
) -> Arrays:
    device = next(model.parameters()).device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bool(_precision())):
        tokens = model.layers(normalize(images.to(device)), layers)
    found = {layer: each.float() for layer, each in zip(layers, tokens, strict=True)}
    if patches:
        made = {FeatureSource(layer, PATCHES): t[:, model.prefix :].flatten(1) for layer, t in found.items()}
    else:
        made = pooled(model, found)
    return {f"{source.layer} {source.token}": values.cpu().numpy() for source, values in made.items()}


def pooled(model: Encoder, found: dict[int, Float[Tensor, "b t d"]]) -> dict[FeatureSource, Float[Tensor, "b d"]]:
    """The mean of the patch tokens of each layer, and the class token where there is one."""
    made = {FeatureSource(layer, MEAN): tokens[:, model.prefix :].mean(dim=1) for layer, tokens in found.items()}
    if model.has_class_token:
        made |= {FeatureSource(layer, CLASS): tokens[:, 0] for layer, tokens in found.items()}
    return made


def _rows(file: Path) -> Int64[np.ndarray, " m"]:
    with safe_open(file, "numpy") as opened:
        return opened.get_tensor(ROWS)


def _source(name: str) -> FeatureSource:
    layer, token = name.split()
    return FeatureSource(int(layer), token)
