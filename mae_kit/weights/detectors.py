"""YOLOS and DETR as transformers reads and writes them, config.json and model.safetensors, under our names."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models.resnet import ResNet
from torch import Tensor

from mae_kit.encoders.timm_models import build, pair
from mae_kit.errors import UserError
from mae_kit.files.json_file import read_json
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.files import CONFIG, Raw
from mae_kit.weights.huggingface import ENCODER, ENCODER_5, check_plain, labels, written_config, written_labels
from mae_kit.weights.names import PARTS, Names, Tensors, prefixed
from mae_kit.weights.plain_vit import Hints, depth_of, named
from mae_kit.weights.preprocessor import read_preprocessor, write_preprocessor
from mae_kit.weights.pretrained import Pretrained

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


_BACKBONE = "backbone."
_COUNTER = "num_batches_tracked"
_TWO = "encoder", "decoder"
_FIX = "give --format onnx or pt2"


class Published(NamedTuple):
    """A detector that was published, or is to be.

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


def is_detector(folder: Path) -> bool:
    """Tell whether a folder holds a detector that transformers has written."""
    file = folder / CONFIG
    config = read_json(file, "weights.damaged", "fetch it again") if file.is_file() else {}
    return config.get("model_type") in ("detr", "yolos")


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read the encoder of a detector under timm's names; the detector itself is left out."""
    published = read_detector(raw)
    inside, left_out = _parted(published.tensors)
    args = {name: value for name, value in published.model.model_args.items() if name != "global_pool"}
    config = replace(published.model, classes=[], model_args=args)
    tensors = with_counters(inside, _empty(config).state_dict())
    kind = f"Hugging Face {published.detector.upper()}, its backbone"
    return Pretrained(kind, config, tensors, left_out=list(left_out)), []


def read_detector(raw: Raw) -> Published:
    """Read a detector.

    Raises:
        UserError: `detector.layout`: it has parts that ours has not.
    """
    return _read_yolos(raw) if raw.config["model_type"] == "yolos" else _read_detr(raw)


def _read_yolos(raw: Raw) -> Published:
    check_plain(raw)
    config = raw.config
    tensors, _, unknown = YOLOS.ours(raw.tensors)
    _check(unknown)
    queries, size = config["num_detection_tokens"], pair(config["image_size"])
    table = tensors["backbone.pos_embed"]
    tensors["backbone.pos_embed"] = table[:, :-queries].contiguous()
    tensors["tokens"] = tensors["tokens"] + table[:, -queries:]
    sizes = {"img_size": list(size), "patch_size": config["patch_size"], "in_chans": config["num_channels"]}
    bare = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    name, args = named(config["hidden_size"], depth_of(bare), config["num_attention_heads"], sizes)
    model = _model(raw, name, args | {"global_pool": ""}, size, tensors["class_embed.layers.2.bias"])
    return Published("yolos", model, {"queries": queries}, tensors)


def _read_detr(raw: Raw) -> Published:
    config = raw.config
    form = config.get("backbone_config") or {}
    backbone = {_BACKBONE + _bare(name): tensor for name, tensor in raw.tensors.items() if _bare(name) != name}
    rest = {name: tensor for name, tensor in raw.tensors.items() if _bare(name) == name}
    tensors, _, unknown = DETR.ours(rest)
    _check(unknown)
    name = config.get("backbone") or form.get("backbone")
    if not isinstance(name, str) or not backbone or config.get("dilation"):
        what = "its backbone is not one of timm's, or is dilated"
        raise UserError("detector.layout", what, "give a DETR with a timm backbone")
    tensors |= {name: tensor for name, tensor in backbone.items() if not name.endswith(_COUNTER)}
    parts: dict[str, Any] = {
        "queries": config["num_queries"],
        "width": config["d_model"],
        "heads": config["encoder_attention_heads"],
        "layers": [config["encoder_layers"], config["decoder_layers"]],
        "feedforward": config["encoder_ffn_dim"],
        "dropout": config["dropout"],
    }
    padded = raw.preprocessor.get("pad_size") or {"height": 800, "width": 1333}
    args = {"in_chans": config.get("num_channels", 3)}
    model = _model(raw, name, args, (padded["height"], padded["width"]), tensors["class_embed.bias"])
    last = (form.get("out_indices") or [-1])[-1]
    parts["stride"] = _empty(model).feature_info[last]["reduction"]
    return Published("detr", model, parts, tensors)


def _bare(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in _BACKBONES if name.startswith(prefix)), name)


def _model(raw: Raw, name: str, args: dict[str, Any], size: tuple[int, int], logits: Tensor) -> ModelConfig:
    classes, _ = labels(raw.config, logits[:-1])  # the last one is no object's
    fields = read_preprocessor(raw, args["in_chans"]).fields | {"image_size": size, "classes": classes}
    return ModelConfig(name, args, objective="none", **fields)


def _check(unknown: list[str]) -> None:
    if unknown:
        what = f"{len(unknown)} of its tensors have no counterpart here, such as {unknown[0]}"
        raise UserError("detector.layout", what, "give a YOLOS without mid position embeddings, or a plain DETR")


def with_counters(tensors: Tensors, own: Tensors) -> dict[str, Tensor]:
    """Tensors, and the counters of a batch normalization that was frozen and has none."""
    return {name: torch.tensor(0) for name in own if name.endswith(_COUNTER)} | dict(tensors)


def write(published: Published) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """config.json, tensors and preprocessor_config.json of a YolosForObjectDetection or DetrForObjectDetection.

    Raises:
        UserError: transformers' class has no place for it.
    """
    model, yolos = published.model, published.detector == "yolos"
    config, tensors = (_write_yolos if yolos else _write_detr)(published)
    config |= {"architectures": [f"{'Yolos' if yolos else 'Detr'}ForObjectDetection"]}
    height, width = model.size
    prepared = write_preprocessor(replace(model, crop_mode="squash"), model.size) | {
        "image_processor_type": f"{'Yolos' if yolos else 'Detr'}ImageProcessor",
        "size": {"max_height": height, "max_width": width},
        "do_pad": True,
        "pad_size": {"height": height, "width": width},
    }
    return config | written_labels(Pretrained("", model, {})), tensors, prepared


def _write_yolos(published: Published) -> tuple[dict[str, Any], dict[str, Tensor]]:
    model, tensors = published.model, published.tensors
    inside, _ = _parted(tensors)
    config = written_config(Pretrained("", replace(model, classes=[]), inside), "yolos")
    config |= {"image_size": list(model.size), "num_detection_tokens": published.parts["queries"]}
    places = torch.cat([tensors["backbone.pos_embed"], torch.zeros_like(tensors["tokens"])], dim=1)
    return config | {"use_mid_position_embeddings": False}, YOLOS.theirs(tensors | {"backbone.pos_embed": places})


def _write_detr(published: Published) -> tuple[dict[str, Any], dict[str, Tensor]]:
    model, parts = published.model, published.parts
    inside, rest = _parted(published.tensors)
    empty = _empty(model)
    if parts.get("proposals"):
        raise UserError("format.proposals", "transformers' detr has no proposals", _FIX)
    if not isinstance(empty, ResNet) or set(model.model_args) - {"in_chans"}:
        what = (
            f"transformers' detr has one of timm's ResNets, and none with other arguments than its name ({model.model})"
        )
        raise UserError("format.backbone", what, _FIX)
    last = max(n for n, level in enumerate(empty.feature_info) if level["reduction"] <= parts["stride"])
    config = {
        "model_type": "detr",
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": model.model,
            "num_channels": model.channels,
            "features_only": True,
            "use_pretrained_backbone": False,
            "out_indices": list(range(1, last + 1)),
        },
        "num_channels": model.channels,
        "num_queries": parts["queries"],
        "d_model": parts["width"],
        **{f"{part}_layers": layers for part, layers in zip(_TWO, parts["layers"], strict=True)},
        **{f"{part}_attention_heads": parts["heads"] for part in _TWO},
        **{f"{part}_ffn_dim": parts["feedforward"] for part in _TWO},
        "dropout": parts["dropout"],
    }
    frozen = {_BACKBONES[0] + name: tensor for name, tensor in inside.items() if not name.endswith(_COUNTER)}
    return config, frozen | DETR.theirs(rest)


def _parted(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those of the backbone, by its own names, and the others."""
    inside = {name.removeprefix(_BACKBONE): t for name, t in tensors.items() if name.startswith(_BACKBONE)}
    return inside, {name: t for name, t in tensors.items() if not name.startswith(_BACKBONE)}


def _empty(model: ModelConfig) -> Any:
    """The backbone without weights."""
    with torch.device("meta"):
        return build(model.model, model.model_args, _FIX, num_classes=0)
