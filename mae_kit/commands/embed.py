"""Write the features of a frozen encoder to a file, or yield them."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.statistics import share_scale, warn_of_mismatch
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.resolve import Split, resolve
from mae_kit.evaluation.embeddings import Embeddings, Token, embedded
from mae_kit.evaluation.feature_files import check_file, write_features
from mae_kit.parallel import Engine
from mae_kit.weights.recognize import load_encoder

log = logging.getLogger(__name__)


def embed(
    encoder: Path,
    *,
    data: Place,
    out: Path | None = None,
    token: Token = "mean",
    layer: int | None = None,
    split: Split = "all",
    workers: int = 0,
    engine: Engine = "processes",
    pack: bool = True,
) -> dict[str, Any] | Iterator[Embeddings]:
    """Write the features of images to a file, with sample ids, file names and labels.

    Features come from the center crop of each image, without augmentation. They are extracted a shard at a time into
    hidden folders next to the shards (.features-*, which `mae-kit evaluate` shares, and .patches-*, which are removed
    at the end), so that an interrupted command resumes.

    Args:
        encoder: A run, any encoder file or folder that `mae-kit import` reads, or timm:NAME.
        data: Images: what `mae-kit shard` made, a pattern, a folder of images, or a URL.
        out: File for the features. A .parquet or .csv also holds shard, key, file, label and class of each image; for
            .npy and .safetensors these are in a .csv of the same name next to it. In Python it may be left out: batches
            of shards, keys, files, labels and features (float32 [b d] or [b t d]) are then yielded.
        token: mean = mean of the patch tokens; class = the class token; patches = all patch tokens.
        layer: Block of a ViT, or stage of a Swin, counted from 1; by default the last.
        split: Which split of the data.
        workers: Processes; 0 = one per core. With a GPU they only decode, and 0 = up to 8.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see the shards and ENCODER (a
            run) under the same paths.
        pack: Pack a plain folder of images into shards in the user's cache, once; `--no-pack` refuses such a folder.

    Returns:
        `out` and `files`; `images`, how many, and `left_out`, how many do not decode; `shape`, `token` and `layer` of
        the features. Without `out` an iterator of batches.

    Raises:
        UserError: No encoder, no such layer, no class token, no images, or a file that cannot be written.
    """
    if out is not None:
        check_file(out, token)
    loaded, index = load_encoder(encoder), open_index(resolve(str(data), split, pack))
    share_scale(loaded.pretrained_cfg.scale, index, bands=loaded.pretrained_cfg.bands)
    warn_of_mismatch((loaded.pretrained_cfg.mean, loaded.pretrained_cfg.std), index, "the encoder normalizes with")
    if out is None:
        return _batches(loaded, index, token, layer, workers, engine)
    with embedded(loaded, index, token, layer, workers, engine) as images:
        count, about = len(images.rows), {"token": token, "layer": layer or loaded.depth, "shape": list(images.shape)}
        source = {"encoder": str(encoder), "fingerprint": loaded.fingerprint, "data": str(data)}
        files = [str(file) for file in write_features(out, images, about | source)]
    log.info(f"features of {count:,} images, {' x '.join(map(str, about['shape']))} each: {' and '.join(files)}")
    return {"out": str(out), "files": files, "images": count, "left_out": len(index) - count, **about}


def _batches(encoder: Any, index: Index, *asked: Any) -> Iterator[Embeddings]:
    with embedded(encoder, index, *asked) as images:
        yield from images
