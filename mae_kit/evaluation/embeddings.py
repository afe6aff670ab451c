"""Features of all images of an index, with what is known of each image, a batch in memory at a time."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from mae_kit.data.index.open import Index
from mae_kit.errors import UserError
from mae_kit.evaluation.features import CLASS, PATCHES, FeatureSource, extract_features, patch_features, token_shape
from mae_kit.evaluation.rows import Rows
from mae_kit.parallel import Engine

log = logging.getLogger(__name__)

Token = Literal["mean", "class", "patches"]
_BATCH = 2**22  # bytes of features


class Embeddings(NamedTuple):
    """Features of some images.

    Attributes:
        shards: Of each image the name of its shard.
        keys: Its webdataset key.
        files: The file it was packed from, empty where it is unknown.
        labels: Its class, -1 = none; of multi-label data True for each class that it has.
        features: [b d], or [b t d] for all patches.
    """

    shards: list[str]
    keys: list[str]
    files: list[str]
    labels: Int64[np.ndarray, " b"] | Bool[np.ndarray, "b k"]
    features: Float32[np.ndarray, " b *shape"]


class EmbeddedImages(NamedTuple):
    """Features of all images that decode.

    Attributes:
        index: The shards.
        rows: Of the index, ascending.
        values: One row an image, on disk.
        shape: Of the features of one image: (d,) or (t, d).
    """

    index: Index
    rows: Int64[np.ndarray, " m"]
    values: Rows
    shape: tuple[int, ...]

    def __iter__(self) -> Iterator[Embeddings]:
        """In the order of the index."""
        step = max(1, _BATCH // (4 * self.values.shape[1]))
        for start in range(0, len(self.rows), step):
            yield self._batch(np.arange(start, min(start + step, len(self.rows))))

    def _batch(self, places: Int64[np.ndarray, " b"]) -> Embeddings:
        index, rows = self.index, self.rows[places]
        return Embeddings(
            [index.shards[shard] for shard in index.shard[rows]],
            [index.keys[row] for row in rows.tolist()],
            [index.file(row) for row in rows.tolist()],
            index.labels(rows),
            self.values[torch.from_numpy(places)].cpu().numpy().reshape(-1, *self.shape),
        )


@contextmanager
def embedded(
    encoder: Any, index: Index, token: Token, layer: int | None, workers: int = 0, engine: Engine = "processes"
) -> Iterator[EmbeddedImages]:
    """Extract the features of all images; what an interrupted call has extracted is read from disk.

    Args:
        encoder: As `load_encoder` returns it.
        index: The shards.
        token: `mean` of the patch tokens, `class` token, or all `patches`, for as long as the block runs.
        layer: Block of a ViT or stage of a Swin, from 1; by default the last.
        workers: Processes; 0 = one a core, or up to 8 that decode for a GPU.
        engine: Where shards are worked on.

    Raises:
        UserError: The encoder has no such layer or no class token, or no image decodes.
    """
    depth = encoder.depth
    source = FeatureSource(depth if layer is None else layer, token)
    if not 1 <= source.layer <= depth:
        raise UserError(
            "layer", f"layer is {layer}, the encoder has {depth} layers", f"give a number from 1 to {depth}"
        )
    if token == CLASS and not encoder.has_class_token:
        raise UserError("token", "the encoder has no class token", "choose mean or patches")
    if token == PATCHES:
        extracting = patch_features(encoder, index, source.layer, workers, engine)
    else:
        extracting = nullcontext(extract_features(encoder, index, workers, [source.layer], engine))
    with extracting as features:
        if left_out := len(index) - len(features.rows):
            log.warning(f"{left_out:,} of {len(index):,} images do not decode and are left out")
        if not len(features.rows):
            raise UserError(
                "data.none_decodes", "no image decodes", "`mae-kit index` reports what is wrong with the shards"
            )
        yield EmbeddedImages(index, features.rows, features.values[source], token_shape(encoder, source))
