"""Swin encoders: SimMIM's files (microsoft/SimMIM), the original Swin's, and transformers' folders."""

import re
from typing import Any

from torch import Tensor

from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import epsilon_note, normalization
from mae_kit.weights.names import Names, prefixed
from mae_kit.weights.plain_vit import BLOCK, Hints
from mae_kit.weights.pretrained import EncoderConfig, Pretrained, numbered

TABLE = "relative_position_bias_table"
EPSILON = 1e-5  # of Swin's layer norms
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
ENCODER = {
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    "embeddings.norm.*": "patch_embed.norm.*",
    **prefixed(LAYER, "encoder.layers.#.blocks.#.", "layers.#.blocks.#."),
    **{f"encoder.{theirs}": ours for theirs, ours in MERGE.items()},
    "layernorm.*": "norm.*",
}
SPELLINGS = Names(ORIGINAL | prefixed(ORIGINAL, "encoder."))
HUGGING_FACE = Names(ENCODER | prefixed(ENCODER, "swin.") | {"classifier.*": "head.fc.*"})
LEFT_OUT = re.compile(
    r"(encoder\.|swin\.embeddings\.|embeddings\.)?mask_token|decoder\.0\.(weight|bias)"
    r"|.*\.(attn_mask|relative_position_index)"
)


def recognizes(raw: Raw) -> bool:
    first = f"layers.0.blocks.0.attn.{TABLE}"
    return raw.config.get("model_type") == "swin" or (
        not raw.config and bool({first, f"encoder.{first}"} & {*raw.tensors})
    )


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    theirs = bool(raw.config)
    tensors, others = (HUGGING_FACE if theirs else SPELLINGS).ours(raw.tensors)
    left_out = [name for name in others if LEFT_OUT.fullmatch(name)]
    name, args, notes = _model(raw, tensors)
    mean, std = normalization(raw, args["in_chans"])
    classes = numbered(tensors.get("head.fc.weight"))
    simmim = any("mask_token" in name for name in left_out)
    what = (
        f"classifier of {len(classes)} classes" if classes else "pretrained with SimMIM" if simmim else "encoder only"
    )
    kind = f"{'Hugging Face' if theirs else 'original'} Swin, {what}"
    config = EncoderConfig(name, args, mean, std, objective="SimMIM" if simmim else "none", step=0)
    notes += epsilon_note(raw.config, EPSILON) if theirs else []
    whole = Pretrained(kind, config, tensors, None, classes, left_out, notes)
    return whole, [name for name in others if name not in left_out]


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
    args: dict[str, Any] = {"img_size": size, "in_chans": channels, "window_size": window}
    if patch == 4 and (kind := SIZES.get((dim, tuple(depths)))):
        return f"swin_{kind}_patch4_window7_224", args, notes
    sizes = {"patch_size": patch, "embed_dim": dim, "depths": depths, "num_heads": heads}
    return "swin_base_patch4_window7_224", args | sizes, notes
