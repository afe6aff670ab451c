"""Swin encoders: SimMIM's files (microsoft/SimMIM), the original Swin's, and transformers' folders."""

import re
from typing import Any

from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig, published_crop
from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import LAYER_5 as VIT_LAYER_5
from mae_kit.weights.huggingface import check_gelu, epsilon_note, labels
from mae_kit.weights.names import Names, prefixed
from mae_kit.weights.plain_vit import BLOCK, Hints
from mae_kit.weights.preprocessor import read_preprocessor
from mae_kit.weights.pretrained import Pretrained, described

TABLE = "relative_position_bias_table"
EPSILON = 1e-5  # of Swin's layer norms
PATCH = 4  # of the named sizes
SIZES: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "tiny",
    (96, (2, 2, 18, 2)): "small",
    (128, (2, 2, 18, 2)): "base",
    (192, (2, 2, 18, 2)): "large",
}
# The originals merge patches at the end of a stage, timm at the start of the next one.
MERGE = {f"layers.#.downsample.{part}": f"layers.#+1.downsample.{part}" for part in ("norm.*", "reduction.*")}
ORIGINAL = {
    "patch_embed.proj.*": "patch_embed.proj.*",
    "patch_embed.norm.*": "patch_embed.norm.*",
    **{f"layers.#.blocks.#.{name}": f"layers.#.blocks.#.{name}" for name in (*BLOCK, f"attn.{TABLE}")},
    **MERGE,
    "norm.*": "norm.*",
    "head.*": "head.fc.*",
}
LAYER = {
    "layernorm_before.*": "norm1.*",
    "attention.self.query.*": "attn.qkv.*|q",
    "attention.self.key.*": "attn.qkv.*|k",
    "attention.self.value.*": "attn.qkv.*|v",
    f"attention.self.{TABLE}": f"attn.{TABLE}",
    "attention.output.dense.*": "attn.proj.*",
    "layernorm_after.*": "norm2.*",
    "intermediate.dense.*": "mlp.fc1.*",
    "output.dense.*": "mlp.fc2.*",
}
LAYER_5 = VIT_LAYER_5 | {f"attention.relative_position_bias.{TABLE}": f"attn.{TABLE}"}  # in transformers' memory
ENCODER = {
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    "embeddings.norm.*": "patch_embed.norm.*",
    **prefixed(LAYER, "encoder.layers.#.blocks.#.", "layers.#.blocks.#."),
    **prefixed(LAYER_5, "encoder.layers.#.blocks.#.", "layers.#.blocks.#."),
    **{f"encoder.{theirs}": ours for theirs, ours in MERGE.items()},
    "layernorm.*": "norm.*",
}
LEFT_OUT = (
    r"(encoder\.|swin\.embeddings\.|embeddings\.)?mask_token|decoder\.0\.(weight|bias)"
    r"|.*\.(attn_mask|relative_position_index)"
)
SPELLINGS = Names(ORIGINAL | prefixed(ORIGINAL, "encoder."), LEFT_OUT)
HUGGING_FACE = Names(ENCODER | prefixed(ENCODER, "swin.") | {"classifier.*": "head.fc.*"}, LEFT_OUT)


def recognizes(raw: Raw) -> bool:
    first = f"layers.0.blocks.0.attn.{TABLE}"
    return raw.config.get("model_type") == "swin" or (
        not raw.config and bool({first, f"encoder.{first}"} & {*raw.tensors})
    )


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    theirs = bool(raw.config)
    check_gelu(raw)
    tensors, left_out, unknown = (HUGGING_FACE if theirs else SPELLINGS).ours(raw.tensors)
    name, args, notes = _model(raw, tensors)
    prepared = read_preprocessor(raw, args["in_chans"])
    classes, multi_label = labels(raw.config, tensors.get("head.fc.weight"))
    simmim = any("mask_token" in name for name in left_out)
    what = "pretrained with SimMIM" if simmim and not classes else described(classes)
    kind = f"{'Hugging Face' if theirs else 'original'} Swin, {what}"
    size = pair(args["img_size"])
    fields: dict[str, Any] = {"crop_pct": published_crop(min(size))} | prepared.fields | {"image_size": size}
    config = ModelConfig(
        name, args, objective="SimMIM" if simmim else "none", classes=classes, multi_label=multi_label, **fields
    )
    notes += prepared.notes + (epsilon_note(raw.config, EPSILON) if theirs else [])
    return Pretrained(kind, config, tensors, None, left_out, notes), unknown


def check_windows(raw: Raw, size: tuple[int, int], patch: int, window: int, stages: int) -> None:
    """Refuse grids at which transformers pads and shifts in another order than timm, or by another side.

    Raises:
        UserError: A stage has rows or columns that are more than a window and no multiple, or only one side is more.
    """
    for stage in range(stages):
        grid = [side // (patch * 2**stage) for side in size]
        more = [side > window for side in grid]
        if any(large and side % window for large, side in zip(more, grid, strict=True)) or more[0] != more[1]:
            what = (
                f"{raw.path}: stage {stage + 1} has {grid[0]} x {grid[1]} cells, which windows of {window} do not fill"
            )
            raise UserError(
                "weights.windows", what, "give a Swin whose windows divide its image, like the published ones"
            )


def _model(raw: Raw, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any], list[str]]:
    """From the shapes: a row of the bias table for each offset in a window, a column for each head."""
    dim, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    numbers = {tuple(map(int, re.findall(r"\d+", name)[:2])) for name in tensors if name.endswith("norm1.weight")}
    depths = [sum(stage == i for stage, _ in numbers) for i in range(1 + max(stage for stage, _ in numbers))]
    tables = [tensors[f"layers.{i}.blocks.0.attn.{TABLE}"] for i in range(len(depths))]
    window, heads = (round(tables[0].shape[0] ** 0.5) + 1) // 2, [table.shape[1] for table in tables]
    size, notes = raw.config.get("image_size"), []
    if size is None:
        size = window * patch * 2 ** (len(depths) - 1)
        notes.append(f"images of {size} pixels, the smallest that windows of {window} fill")
    if raw.config:
        check_windows(raw, pair(size), patch, window, len(depths))
    args: dict[str, Any] = {"img_size": size, "in_chans": channels, "window_size": window}
    if patch == PATCH and (kind := SIZES.get((dim, tuple(depths)))):
        return f"swin_{kind}_patch4_window7_224", args, notes
    sizes: dict[str, Any] = {"embed_dim": dim, "depths": depths, "num_heads": heads}
    sizes |= {"patch_size": patch} if patch != PATCH else {}
    return "swin_base_patch4_window7_224", args | sizes, notes
