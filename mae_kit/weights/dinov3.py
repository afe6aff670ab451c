"""DINOv3's vision transformers: transformers' folders."""

from typing import Any

from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import epsilon_note
from mae_kit.weights.names import PARTS, Names, prefixed
from mae_kit.weights.plain_vit import Hints, depth_of, mlp_ratio
from mae_kit.weights.preprocessor import read_preprocessor
from mae_kit.weights.pretrained import Pretrained

EPSILON = 1e-5  # of its layer norms
LAYER = {
    "norm1.*": "norm1.*",
    **{f"attention.{part}_proj.weight": f"attn.qkv.weight|{part}" for part in PARTS},
    "attention.q_proj.bias": "attn.q_bias",
    "attention.v_proj.bias": "attn.v_bias",
    "attention.o_proj.*": "attn.proj.*",
    "layer_scale1.lambda1": "gamma_1",
    "norm2.*": "norm2.*",
    "mlp.gate_proj.*": "mlp.fc1_g.*",
    "mlp.down_proj.*": "mlp.fc2.*",
    "layer_scale2.lambda1": "gamma_2",
}
ENCODER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.*": "patch_embed.proj.*",
    **prefixed(LAYER, "layer.#.", "blocks.#."),
    **prefixed(LAYER, "model.layer.#.", "blocks.#."),  # in transformers' memory
    "norm.*": "norm.*",
}
LEFT_OUT = r"embeddings\.mask_token"


def recognizes(raw: Raw) -> bool:
    return raw.config.get("model_type") == "dinov3_vit"


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    config, gated = raw.config, bool(raw.config.get("use_gated_mlp"))
    if (activation := config.get("hidden_act", "gelu")) != (used := "silu" if gated else "gelu"):
        what = f"{raw.path}: the activation is {activation}"
        raise UserError(
            "weights.activation.gated", what, f"only {used} is supported {'with' if gated else 'without'} gates"
        )
    up = {f"{at}layer.#.mlp.up_proj.*": f"blocks.#.mlp.{'fc1_x' if gated else 'fc1'}.*" for at in ("", "model.")}
    tensors, left_out, unknown = Names(ENCODER | up, LEFT_OUT).ours(raw.tensors)
    if not config.get("num_register_tokens"):
        tensors.pop("reg_token", None)  # of no rows
    prepared = read_preprocessor(raw, config["num_channels"])
    fields: dict[str, Any] = prepared.fields | {"image_size": pair(config["image_size"])}
    name = "vit_small_plus_patch16_dinov3_qkvb" if gated else "vit_base_patch16_dinov3_qkvb"
    whole = Pretrained(
        "Hugging Face DINOv3, encoder only",
        ModelConfig(name, _args(config, tensors), **fields),
        tensors,
        None,
        left_out,
        prepared.notes + epsilon_note({"layer_norm_eps": EPSILON} | config, EPSILON),
    )
    return whole, unknown


def _args(config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    dim = config["hidden_size"]
    theta = config.get("rope_theta") or config.get("rope_parameters", {}).get("rope_theta", 100.0)
    return {
        "img_size": list(pair(config["image_size"])),
        "patch_size": config["patch_size"],
        "in_chans": config["num_channels"],
        "embed_dim": dim,
        "depth": depth_of(tensors),
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": mlp_ratio(config["intermediate_size"], dim),
        "num_reg_tokens": tensors["reg_token"].shape[1] if "reg_token" in tensors else 0,
        "rope_temperature": float(theta),
        "qkv_bias": "blocks.0.attn.q_bias" in tensors,
    }
