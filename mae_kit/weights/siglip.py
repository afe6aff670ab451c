"""The vision towers of SigLIP and SigLIP 2: transformers' folders, with or without the text tower."""

from typing import Any

from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import epsilon_note
from mae_kit.weights.names import PARTS, Names, prefixed
from mae_kit.weights.plain_vit import Hints, depth_of, mlp_ratio, named
from mae_kit.weights.preprocessor import read_preprocessor
from mae_kit.weights.pretrained import Pretrained

LAYER = {
    "layer_norm1.*": "norm1.*",
    **{f"self_attn.{part}_proj.*": f"attn.qkv.*|{part}" for part in PARTS},
    "self_attn.out_proj.*": "attn.proj.*",
    "layer_norm2.*": "norm2.*",
    "mlp.fc1.*": "mlp.fc1.*",
    "mlp.fc2.*": "mlp.fc2.*",
}
ENCODER = {
    "embeddings.patch_embedding.*": "patch_embed.proj.*",
    "embeddings.position_embedding.weight": "pos_embed",
    **prefixed(LAYER, "encoder.layers.#.", "blocks.#."),
    "post_layernorm.*": "norm.*",
}
NAMES = Names(
    ENCODER | prefixed(ENCODER, "vision_model."),
    left_out=r"(vision_model\.)?head\..*|text_model\..*|logit_(scale|bias)",
)
TYPES = ("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
SIZES = {"hidden_size": 768, "num_attention_heads": 12, "num_channels": 3, "patch_size": 16}  # transformers' defaults


def recognizes(raw: Raw) -> bool:
    return raw.config.get("model_type") in TYPES


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    config = SIZES | raw.config.get("vision_config", raw.config)
    tensors, left_out, unknown = NAMES.ours(raw.tensors)
    patch, channels = config["patch_size"], config["num_channels"]
    tensors["pos_embed"] = tensors["pos_embed"][None]
    if tensors["patch_embed.proj.weight"].ndim == 2:
        tensors["patch_embed.proj.weight"] = _as_kernel(tensors["patch_embed.proj.weight"], patch, channels)
    name, args = _model(raw, config, tensors)
    prepared = read_preprocessor(raw._replace(config={"model_type": "vit"}), channels)  # images in -1..1
    fields: dict[str, Any] = prepared.fields | {"image_size": (args["img_size"],) * 2}
    whole = Pretrained(
        "Hugging Face SigLIP, vision tower without its pooling",
        ModelConfig(name, args, **fields),
        tensors,
        None,
        left_out,
        prepared.notes + epsilon_note({"layer_norm_eps": 1e-6} | config),
    )
    return whole, unknown


def _as_kernel(weight: Tensor, patch: int, channels: int) -> Tensor:
    """A layer for patches in the order row, column, channel as a convolution."""
    return weight.reshape(-1, patch, patch, channels).permute(0, 3, 1, 2).contiguous()


def _model(raw: Raw, config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    activation = config.get("hidden_act", "gelu_pytorch_tanh")
    if activation not in ACTIVATIONS:
        what = f"{raw.path}: the activation is {activation}"
        raise UserError("weights.activation.tanh", what, "only gelu and its tanh approximation are supported")
    dim, hidden = config["hidden_size"], len(tensors["blocks.0.mlp.fc1.weight"])
    side = round(tensors["pos_embed"].shape[1] ** 0.5) * config["patch_size"]
    args = {"img_size": side, "patch_size": config["patch_size"], "in_chans": config["num_channels"]}
    args |= {"class_token": False, "global_pool": "avg", "fc_norm": False, "act_layer": ACTIVATIONS[activation]}
    args |= {} if hidden == 4 * dim else {"mlp_ratio": mlp_ratio(hidden, dim)}
    return named(dim, depth_of(tensors), config["num_attention_heads"], args)
