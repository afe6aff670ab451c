"""YOLOS and DETR as transformers publishes them: config.json and model.safetensors, read under our names."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import ENCODER, ENCODER_5, check_plain, labels
from mae_kit.weights.names import PARTS, Names, prefixed
from mae_kit.weights.plain_vit import depth_of, named
from mae_kit.weights.preprocessor import read_preprocessor

_BACKBONES = ("model.backbone.conv_encoder.model.", "model.backbone.model.")
_LAYER = {
    **{f"self_attn.{part}_proj.*": f"self_attn.in_proj_*|{part}" for part in PARTS},
    "self_attn.out_proj.*": "self_attn.out_proj.*",
    "self_attn.o_proj.*": "self_attn.out_proj.*",
    "self_attn_layer_norm.*": "norm1.*",
    **{f"{place}fc{number}.*": f"linear{number}.*" for place in ("", "mlp.") for number in (1, 2)},
}
_CROSS = {
    **{f"encoder_attn.{part}_proj.*": f"multihead_attn.in_proj_*|{part}" for part in PARTS},
    "encoder_attn.out_proj.*": "multihead_attn.out_proj.*",
    "encoder_attn.o_proj.*": "multihead_attn.out_proj.*",
    "encoder_attn_layer_norm.*": "norm2.*",
    "final_layer_norm.*": "norm3.*",
}
DETR = Names(
    {
        **prefixed(
            _LAYER | {"final_layer_norm.*": "norm2.*"}, "model.encoder.layers.#.", "transformer.encoder.layers.#."
        ),
        **prefixed(_LAYER | _CROSS, "model.decoder.layers.#.", "transformer.decoder.layers.#."),
        "model.decoder.layernorm.*": "transformer.decoder.norm.*",
        "model.query_position_embeddings.*": "query_embed.*",
        "model.input_projection.*": "input_proj.*",
        "class_labels_classifier.*": "class_embed.*",
        "bbox_predictor.layers.#.*": "bbox_embed.layers.#.*",
    }
)
YOLOS = Names(
    {
        **prefixed(ENCODER | ENCODER_5, "vit.", "backbone."),
        "vit.embeddings.detection_tokens": "tokens",
        "class_labels_classifier.layers.#.*": "class_embed.layers.#.*",
        "bbox_predictor.layers.#.*": "bbox_embed.layers.#.*",
    }
)


class Published(NamedTuple):
    """A detector that was published.

    Attributes:
        detector: detr or yolos.
        model: Of the backbone; images are fitted into its image size.
        parts: What else the detector is made of.
        tensors: By our names.
    """

    detector: str
    model: ModelConfig
    parts: dict[str, Any]
    tensors: dict[str, Tensor]


def recognizes(raw: Raw) -> bool:
    return raw.config.get("model_type") in ("detr", "yolos")


def read(raw: Raw) -> Published:
    """Read a detector.

    Raises:
        UserError: `detector.layout`: it has parts that ours has not.
    """
    return _read_yolos(raw) if raw.config["model_type"] == "yolos" else _read_detr(raw)


def _read_yolos(raw: Raw) -> Published:
    check_plain(raw)
    config = raw.config
    tensors, unknown = YOLOS.ours(raw.tensors)
    _check(unknown)
    queries, size = config["num_detection_tokens"], pair(config["image_size"])
    table = tensors["backbone.pos_embed"]
    tensors["backbone.pos_embed"] = table[:, :-queries].contiguous()
    tensors["tokens"] = tensors["tokens"] + table[:, -queries:]
    sizes = {"img_size": list(size), "patch_size": config["patch_size"], "in_chans": config["num_channels"]}
    bare = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    name, args = named(config["hidden_size"], depth_of(bare), config["num_attention_heads"], sizes)
    outputs = len(tensors["class_embed.layers.2.bias"]) - 1
    model = _model(raw, name, args | {"global_pool": ""}, size, outputs)
    return Published("yolos", model, {"queries": queries}, tensors)


def _read_detr(raw: Raw) -> Published:
    config = raw.config
    backbone = {"backbone." + _bare(name): tensor for name, tensor in raw.tensors.items() if _bare(name) != name}
    rest = {name: tensor for name, tensor in raw.tensors.items() if _bare(name) == name}
    tensors, unknown = DETR.ours(rest)
    _check(unknown)
    name = config.get("backbone") or (config.get("backbone_config") or {}).get("backbone")
    if not isinstance(name, str) or not backbone or config.get("dilation"):
        what = "its backbone is not one of timm's, or is dilated"
        raise UserError("detector.layout", what, "give a DETR with a timm backbone")
    counters = {name for name in backbone if name.endswith("num_batches_tracked")}
    tensors |= {name: tensor for name, tensor in backbone.items() if name not in counters}
    parts = {
        "queries": config["num_queries"],
        "width": config["d_model"],
        "heads": config["encoder_attention_heads"],
        "layers": [config["encoder_layers"], config["decoder_layers"]],
        "feedforward": config["encoder_ffn_dim"],
        "dropout": config["dropout"],
    }
    model = _model(raw, name, {}, (800, 1333), len(tensors["class_embed.bias"]) - 1)
    return Published("detr", model, parts, tensors)


def _bare(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in _BACKBONES if name.startswith(prefix)), name)


def _model(raw: Raw, name: str, args: dict[str, Any], size: tuple[int, int], outputs: int) -> ModelConfig:
    classes, _ = labels(raw.config, outputs)
    fields = read_preprocessor(raw, 3).fields | {"image_size": size, "classes": classes}
    return ModelConfig(name, args, objective="none", **fields)


def _check(unknown: list[str]) -> None:
    if unknown:
        what = f"{len(unknown)} of its tensors have no counterpart here, such as {unknown[0]}"
        raise UserError("detector.layout", what, "give a YOLOS without mid position embeddings, or a plain DETR")


def with_counters(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors, and the counters of a batch normalization that was frozen and has none."""
    counters = {name: torch.zeros_like(tensor) for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    return counters | tensors
