"""BEiT's encoders, which SimMIM's ViT are too: the originals' files (unilm/beit, microsoft/SimMIM), pretrained or
fine-tuned, and transformers' folders.
"""

from typing import Any

from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig, published_crop
from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import ENCODER as VIT
from mae_kit.weights.huggingface import LAYER as VIT_LAYER
from mae_kit.weights.huggingface import LAYER_5 as VIT_LAYER_5
from mae_kit.weights.huggingface import check_gelu, epsilon_note, labels, written_config, written_labels
from mae_kit.weights.names import Names, Tensors, prefixed
from mae_kit.weights.plain_vit import BLOCK, Hints, depth_of, named
from mae_kit.weights.preprocessor import Prepared, imagenet_statistics, read_preprocessor
from mae_kit.weights.pretrained import Pretrained, described

SIZES = {(768, 12, 12): "beit_base_patch16_224", (1024, 24, 16): "beit_large_patch16_224"}
TABLE = "relative_position_bias_table"
SHARED = f"rel_pos_bias.{TABLE}"
OWN = {
    "norm1.*": "norm1.*",
    "norm2.*": "norm2.*",
    "attn.q_bias": "attn.q_bias",
    "attn.v_bias": "attn.v_bias",
    f"attn.{TABLE}": f"attn.{TABLE}",
    "gamma_1": "gamma_1",
    "gamma_2": "gamma_2",
}
_ORIGINAL = {
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "patch_embed.proj.*": "patch_embed.proj.*",
    **prefixed(OWN | BLOCK, "blocks.#.", "blocks.#."),
    SHARED: SHARED,
    "norm.*": "norm.*",
    "fc_norm.*": "fc_norm.*",
    "head.*": "head.*",
}
LEFT_OUT = r"((beit\.)?embeddings\.|encoder\.)?mask_token|(lm_head|decoder\.0)\..*|(.*\.)?relative_position_index"
ORIGINAL = Names(_ORIGINAL | prefixed(_ORIGINAL, "encoder."), LEFT_OUT)  # SimMIM's pretraining
LAYER = {
    "attention.attention.query.bias": "attn.q_bias",
    "attention.attention.value.bias": "attn.v_bias",
    f"attention.attention.relative_position_bias.{TABLE}": f"attn.{TABLE}",
    "lambda_1": "gamma_1",
    "lambda_2": "gamma_2",
    **VIT_LAYER,
}
ENCODER = {  # before the plain ViT's entries, which would take the biases for thirds
    **prefixed(LAYER, "encoder.layer.#.", "blocks.#."),
    f"encoder.relative_position_bias.{TABLE}": SHARED,
    "pooler.layernorm.*": "fc_norm.*",
    **VIT,
}
LAYER_5 = {  # in the memory of transformers 5
    "attention.q_proj.bias": "attn.q_bias",
    "attention.v_proj.bias": "attn.v_bias",
    f"relative_position_bias.{TABLE}": f"attn.{TABLE}",
    "lambda_1": "gamma_1",
    "lambda_2": "gamma_2",
    **VIT_LAYER_5,
}
ENCODER_5 = prefixed(LAYER_5, "layers.#.", "blocks.#.") | {f"shared_position_bias.{TABLE}": SHARED}
CLASSIFIER = Names(prefixed(ENCODER, "beit.") | {"classifier.*": "head.*"})
HUGGING_FACE = Names(ENCODER | CLASSIFIER.table | ENCODER_5 | prefixed(ENCODER_5, "beit."), LEFT_OUT)
_ASSUMED = "images normalized to [-1, 1], as BEiT's; for SimMIM's ViT, give ImageNet's mean and std by --mean and --std"


def recognizes(raw: Raw) -> bool:
    biases = any(f"{prefix}blocks.0.attn.q_bias" in raw.tensors for prefix in ("", "encoder."))
    bare = not raw.config and biases and "reg_token" not in raw.tensors  # which some of timm's DINOv3 have
    return bare or raw.config.get("model_type") == "beit"


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    theirs = bool(raw.config)
    check_gelu(raw)
    if {"beit.layernorm.weight", "layernorm.weight"} <= raw.tensors.keys():
        raise UserError(
            "weights.pooling", f"{raw.path} does not use mean pooling", "give one trained with use_mean_pooling: true"
        )
    tensors, left_out, unknown = (HUGGING_FACE if theirs else ORIGINAL).ours(raw.tensors)
    if "head.weight" not in tensors and "fc_norm.weight" in tensors and "norm.weight" in tensors:
        raise UserError("weights.norms", f"{raw.path} has two final norms and no head", "give a complete file")
    tensors = _a_table_a_block(tensors)
    name, args = _model(raw, tensors)
    simmim = "MODEL" in raw.settings or any(name.startswith("encoder.mask_token") for name in left_out)
    prepared = _prepared(raw, args["in_chans"], simmim)
    classes, multi_label = labels(raw.config, tensors.get("head.weight"))
    whose = "Hugging Face BEiT" if theirs else "original SimMIM ViT" if simmim else "original BEiT"
    size = pair(args["img_size"])
    fields: dict[str, Any] = {"crop_pct": published_crop(min(size))} | prepared.fields | {"image_size": size}
    objective = "SimMIM" if simmim else "BEiT" if args.get("use_rel_pos_bias", True) else "none"
    config = ModelConfig(name, args, objective=objective, classes=classes, multi_label=multi_label, **fields)
    notes = prepared.notes + (epsilon_note(raw.config) if theirs else [])
    return Pretrained(f"{whose}, {described(classes)}", config, tensors, None, left_out, notes), unknown


def _prepared(raw: Raw, channels: int, simmim: bool) -> Prepared:
    """How images are prepared, a note where the file does not decide (run_class_finetuning.py, data_finetune.py)."""
    if raw.config:
        return read_preprocessor(raw, channels)
    if simmim or raw.settings.get("imagenet_default_mean_and_std"):
        mean, std = imagenet_statistics(channels)
        return Prepared({"mean": mean, "std": std}, [])
    half = [0.5] * channels
    notes = [] if "imagenet_default_mean_and_std" in raw.settings else [_ASSUMED]
    return Prepared({"mean": half, "std": half}, notes)


def _a_table_a_block(tensors: Tensors) -> Tensors:
    """Pretraining's one table of relative positions, as the blocks have it: each its copy (modeling_finetune.py)."""
    if SHARED not in tensors:
        return tensors
    copies = {f"blocks.{block}.attn.{TABLE}": tensors[SHARED].clone() for block in range(depth_of(tensors))}
    return {name: tensor for name, tensor in tensors.items() if name != SHARED} | copies


def _model(raw: Raw, tensors: Tensors) -> tuple[str, dict[str, Any]]:
    """All that is no default of timm's, from the shapes: a row of the bias table for each offset, a column a head."""
    dim, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    side, heads = _grid(raw, tensors)
    args: dict[str, Any] = {"img_size": side * patch, "patch_size": patch, "in_chans": channels}
    args |= {"global_pool": "avg" if "fc_norm.weight" in tensors else "token"}
    args |= {"use_abs_pos_emb": True} if "pos_embed" in tensors else {}
    args |= {} if f"blocks.0.attn.{TABLE}" in tensors else {"use_rel_pos_bias": False}
    args |= {} if "blocks.0.gamma_1" in tensors else {"init_values": 0.0}
    return named(dim, depth_of(tensors), heads, args, SIZES, "beit_base_patch16_224")


def _grid(raw: Raw, tensors: Tensors) -> tuple[int, int]:
    """Patches in a row, and attention heads."""
    if (table := tensors.get(f"blocks.0.attn.{TABLE}")) is not None:
        offsets, heads = table.shape
        return (round((offsets - 3) ** 0.5) + 1) // 2, heads
    if "pos_embed" not in tensors or not raw.config:
        what = f"{raw.path} has no relative position bias"
        raise UserError("weights.relative_positions", what, "give a BEiT that has one, like the published ones")
    return round((tensors["pos_embed"].shape[1] - 1) ** 0.5), raw.config["num_attention_heads"]


def write_mean_pooled(weights: Pretrained) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and tensors of a BeitForImageClassification that computes what a mean-pooled plain ViT does.

    Transformers' ViT classifies by the class token. Its BEiT without relative positions is a plain ViT whose keys have
    no bias: one adds the same to all logits of a query, which the softmax takes away.

    Raises:
        UserError: transformers' class has no place for this classifier.
    """
    config = written_config(weights, "beit", pooling="avg") | written_labels(weights)
    config |= {"architectures": ["BeitForImageClassification"], "use_mean_pooling": True, "layer_scale_init_value": 0.0}
    config |= {"use_absolute_position_embeddings": True, "use_relative_position_bias": False}
    tensors = dict(weights.tensors)
    for block in range(depth_of(tensors)):
        query, _, value = tensors.pop(f"blocks.{block}.attn.qkv.bias").chunk(3)
        tensors |= {f"blocks.{block}.attn.q_bias": query, f"blocks.{block}.attn.v_bias": value}
    return config, CLASSIFIER.theirs(tensors)
