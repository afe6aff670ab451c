"""DINOv2, with and without registers, and Pixio, whose blocks have the same names: transformers' folders."""

from typing import Any

from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import check_gelu, epsilon_note
from mae_kit.weights.names import PARTS, Names, prefixed
from mae_kit.weights.plain_vit import Hints, depth_of, mlp_ratio, named
from mae_kit.weights.preprocessor import read_preprocessor
from mae_kit.weights.pretrained import Pretrained

LAYER = {
    "norm1.*": "norm1.*",
    "layernorm_before.*": "norm1.*",
    "attention.attention.query.*": "attn.qkv.*|q",
    "attention.attention.key.*": "attn.qkv.*|k",
    "attention.attention.value.*": "attn.qkv.*|v",
    **{f"attention.{part}_proj.*": f"attn.qkv.*|{part}" for part in PARTS},
    "attention.output.dense.*": "attn.proj.*",
    "attention.o_proj.*": "attn.proj.*",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2.*": "norm2.*",
    "layernorm_after.*": "norm2.*",
    "mlp.fc1.*": "mlp.fc1.*",
    "mlp.fc2.*": "mlp.fc2.*",
    "intermediate.dense.*": "mlp.fc1.*",
    "output.dense.*": "mlp.fc2.*",
    "mlp.weights_in.*": "mlp.fc1.*",
    "mlp.weights_out.*": "mlp.fc2.*",
    "layer_scale2.lambda1": "ls2.gamma",
}
ENCODER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    **prefixed(LAYER, "encoder.layer.#.", "blocks.#."),
    **prefixed(LAYER, "layers.#.", "blocks.#."),
    "layernorm.*": "norm.*",
}
TYPES = ("dinov2", "dinov2_with_registers", "pixio")
NAMES = Names(
    ENCODER | {k: v for kind in TYPES for k, v in prefixed(ENCODER, f"{kind}.").items()},
    left_out=r"(\w+\.)?embeddings\.mask_token|classifier\.(weight|bias)",
)
SWIGLU = {False: "vit_giant_patch14_dinov2", True: "vit_giant_patch14_reg4_dinov2"}


def recognizes(raw: Raw) -> bool:
    return raw.config.get("model_type") in TYPES


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    config = raw.config
    if not config.get("use_swiglu_ffn"):
        check_gelu(raw)
    tensors, left_out, unknown = NAMES.ours(raw.tensors)
    tensors = with_first_class_token(tensors) if config["model_type"] == "pixio" else behind_class_token(tensors)
    name, args = _model(config, tensors)
    prepared = read_preprocessor(raw, config["num_channels"])
    fields: dict[str, Any] = prepared.fields | {"image_size": pair(config["image_size"])}
    objective = "MAE" if config["model_type"] == "pixio" else "none"
    whole = Pretrained(
        f"Hugging Face {config['model_type']}, encoder only",
        ModelConfig(name, args, objective=objective, **fields),
        tensors,
        None,
        left_out,
        prepared.notes + epsilon_note({"layer_norm_eps": 1e-6} | config),
    )
    return whole, unknown


def behind_class_token(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Registers have no positions, and are inserted behind a class token that has one (vision_transformer.py)."""
    if "reg_token" not in tensors:
        return tensors
    table = tensors["pos_embed"]
    return tensors | {"cls_token": tensors["cls_token"] + table[:, :1], "pos_embed": table[:, 1:]}


def with_first_class_token(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of several class tokens timm has one, and registers, which have positions too."""
    first, others = tensors["cls_token"].tensor_split([1], dim=1)
    return tensors | {"cls_token": first} | ({"reg_token": others} if others.numel() else {})


def _model(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    dim, hidden = config["hidden_size"], len(tensors["blocks.0.mlp.fc1.weight"])
    sizes = {"img_size": config["image_size"], "patch_size": config["patch_size"], "in_chans": config["num_channels"]}
    args = sizes | ({"init_values": 1e-5} if "blocks.0.ls1.gamma" in tensors else {})
    if "reg_token" in tensors:
        args |= {"reg_tokens": tensors["reg_token"].shape[1], "no_embed_class": config["model_type"] != "pixio"}
    args |= {} if "blocks.0.attn.qkv.bias" in tensors else {"qkv_bias": False}
    args |= {} if hidden == 4 * dim else {"mlp_ratio": mlp_ratio(hidden, dim)}
    depth, heads = depth_of(tensors), config["num_attention_heads"]
    if config.get("use_swiglu_ffn"):
        return SWIGLU["reg_token" in tensors], args | {"embed_dim": dim, "depth": depth, "num_heads": heads}
    return named(dim, depth, heads, args)
