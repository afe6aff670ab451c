"""Hiera's files (facebookresearch/hiera): encoders, pretrained with MAE or fine-tuned; their decoder is left out."""

from itertools import pairwise
from typing import Any

from mae_kit.weights.config import ModelConfig, published_crop
from mae_kit.weights.files import Raw
from mae_kit.weights.names import Names, Tensors, prefixed
from mae_kit.weights.plain_vit import BLOCK, Hints, depth_of
from mae_kit.weights.preprocessor import imagenet_statistics
from mae_kit.weights.pretrained import Pretrained, classifier_args, described, numbered

SIZES: dict[tuple[int, tuple[int, ...]], tuple[str, int]] = {
    (96, (1, 2, 7, 2)): ("hiera_tiny_224", 1),
    (96, (1, 2, 11, 2)): ("hiera_small_224", 1),
    (96, (2, 3, 16, 3)): ("hiera_base_224", 1),
    (112, (2, 3, 16, 3)): ("hiera_base_plus_224", 2),
    (144, (2, 6, 36, 4)): ("hiera_large_224", 2),
    (256, (2, 6, 36, 4)): ("hiera_huge_224", 4),
}
STRIDE = 4  # of the patch embedding
NAMES = Names(
    {
        "pos_embed": "pos_embed",
        "patch_embed.proj.*": "patch_embed.proj.*",
        **prefixed(BLOCK | {"proj.*": "proj.*"}, "blocks.#.", "blocks.#."),
        "norm.*": "head.norm.*",
        "encoder_norm.*": "head.norm.*",
        "head.projection.*": "head.fc.*",
    },
    left_out=r"mask_token|decoder_.*|multi_scale_fusion_heads\..*",
)


def recognizes(raw: Raw) -> bool:
    return not raw.config and {"pos_embed", "blocks.1.proj.weight", "blocks.0.attn.qkv.weight"} <= raw.tensors.keys()


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    tensors, left_out, unknown = NAMES.ours(raw.tensors)
    classes = numbered(tensors.get("head.fc.weight"))
    name, args, notes = _model(tensors, hints)
    args = classifier_args(name, args) if classes else args
    side = STRIDE * round(tensors["pos_embed"].shape[1] ** 0.5)
    mean, std = imagenet_statistics(args["in_chans"])
    how: dict[str, Any] = {"image_size": (side, side), "crop_pct": published_crop(side), "classes": classes}
    config = ModelConfig(name, args | {"img_size": side}, mean, std, "none" if classes else "HieraMAE", **how)
    return Pretrained(f"original Hiera, {described(classes)}", config, tensors, None, left_out, notes), unknown


def _model(tensors: Tensors, hints: Hints) -> tuple[str, dict[str, Any], list[str]]:
    """A stage starts with a block that projects to another width."""
    dim, channels = tensors["patch_embed.proj.weight"].shape[:2]
    depth = depth_of(tensors)
    starts = [0, *(block for block in range(1, depth) if f"blocks.{block}.proj.weight" in tensors), depth]
    stages = [end - start for start, end in pairwise(starts)]
    if found := SIZES.get((dim, tuple(stages))):
        return found[0], {"in_chans": channels}, []
    heads = hints.encoder_heads or max(1, dim // 96)
    unit = [2 ** (len(stages) - 1)] * 2
    sizes = {"embed_dim": dim, "stages": stages, "num_heads": heads, "mask_unit_size": unit}
    note = f"encoder: {heads} attention heads in the first stage, from its width of {dim}; --encoder-heads overrides it"
    return "hiera_tiny_224", sizes | {"in_chans": channels}, [note]
