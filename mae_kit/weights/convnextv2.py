"""ConvNeXt V2's encoders: the original's files (facebookresearch/ConvNeXt-V2) and transformers' folders."""

import re
from typing import Any

import torch
from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.weights.config import CROP_PCT, ModelConfig
from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import check_gelu, epsilon_note, labels
from mae_kit.weights.names import Names, Tensors, prefixed
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.preprocessor import read_preprocessor
from mae_kit.weights.pretrained import Pretrained, described

SIZES: dict[tuple[int, tuple[int, ...]], str] = {
    (40, (2, 2, 6, 2)): "convnextv2_atto",
    (48, (2, 2, 6, 2)): "convnextv2_femto",
    (64, (2, 2, 6, 2)): "convnextv2_pico",
    (80, (2, 2, 8, 2)): "convnextv2_nano",
    (96, (3, 3, 9, 3)): "convnextv2_tiny",
    (128, (3, 3, 27, 3)): "convnextv2_base",
    (192, (3, 3, 27, 3)): "convnextv2_large",
    (352, (3, 3, 27, 3)): "convnextv2_huge",
}
CONVOLUTIONAL = ("atto", "femto", "pico", "nano")  # timm keeps their linear layers as 1 x 1 convolutions
BLOCK = {
    "dwconv.*": "conv_dw.*",
    "norm.*": "norm.*",
    "pwconv1.*": "mlp.fc1.*",
    "grn.gamma": "mlp.grn.weight",
    "grn.beta": "mlp.grn.bias",
    "pwconv2.*": "mlp.fc2.*",
}
ORIGINAL = Names(
    {
        **{f"downsample_layers.0.{i}.*": f"stem.{i}.*" for i in (0, 1)},
        "downsample_layers.#.#.*": "stages.#.downsample.#.*",
        **prefixed(BLOCK, "stages.#.#.", "stages.#.blocks.#."),
        "norm.*": "head.norm.*",
        "head.*": "head.fc.*",
    }
)
LAYER = {
    "dwconv.*": "conv_dw.*",
    "layernorm.*": "norm.*",
    "pwconv1.*": "mlp.fc1.*",
    "grn.*": "mlp.grn.*",
    "pwconv2.*": "mlp.fc2.*",
}
ENCODER = {
    "embeddings.patch_embeddings.*": "stem.0.*",
    "embeddings.layernorm.*": "stem.1.*",
    **prefixed(LAYER, "encoder.stages.#.layers.#.", "stages.#.blocks.#."),
    "encoder.stages.#.downsampling_layer.#.*": "stages.#.downsample.#.*",
    "layernorm.*": "head.norm.*",
}
HUGGING_FACE = Names(ENCODER | prefixed(ENCODER, "convnextv2.") | {"classifier.*": "head.fc.*"})


SPARSE = re.compile(r"\.(ln|linear)(?=\.)")  # around FCMAE's layers of sparse tensors


def recognizes(raw: Raw) -> bool:
    original = {"downsample_layers.0.0.weight", "stages.0.0.grn.gamma"} <= raw.tensors.keys()
    return raw.config.get("model_type") == "convnextv2" or (not raw.config and original)


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    theirs = bool(raw.config)
    check_gelu(raw)
    tensors, _, unknown = (HUGGING_FACE if theirs else ORIGINAL).ours(raw.tensors if theirs else _dense(raw.tensors))
    name, args = _model(tensors)
    notes = epsilon_note(raw.config) if theirs else []
    if "head.norm.weight" not in tensors:  # FCMAE has no norm behind its encoder
        last = tensors[f"stages.{_stages(tensors) - 1}.blocks.0.norm.weight"]
        tensors |= {"head.norm.weight": torch.ones(len(last)), "head.norm.bias": torch.zeros(len(last))}
        notes.append("the last norm, which the pretraining does not have, starts as the identity")
    linear = not name.endswith(CONVOLUTIONAL)
    tensors = {key: _shaped(key, tensor, linear) for key, tensor in tensors.items()}
    classes, multi_label = labels(raw.config, tensors.get("head.fc.weight"))
    prepared = read_preprocessor(raw, args["in_chans"])
    size = raw.config.get("image_size")
    fields: dict[str, Any] = {"crop_pct": CROP_PCT, "image_size": size and pair(size)} | prepared.fields
    objective = "none" if classes else "FCMAE"
    config = ModelConfig(name, args, objective=objective, classes=classes, multi_label=multi_label, **fields)
    kind = f"{'Hugging Face' if theirs else 'original'} ConvNeXt V2, {described(classes)}"
    return Pretrained(kind, config, tensors, None, [], notes + prepared.notes), unknown


def _dense(tensors: Tensors) -> dict[str, Tensor]:
    """FCMAE's sparse layers as dense ones (ConvNeXt-V2, utils.py): kernels [k*k (in) out], columns before rows."""
    dense = {}
    for name, tensor in tensors.items():
        name = SPARSE.sub("", name)
        if name.endswith(".kernel"):
            name, side = f"{name.removesuffix('kernel')}weight", round(len(tensor) ** 0.5)
            whole = tensor if tensor.ndim == 3 else tensor[:, None]
            tensor = whole.permute(2, 1, 0).unflatten(2, (side, side)).transpose(2, 3).contiguous()
        dense[name] = tensor.flatten() if name.endswith("bias") else tensor
    return dense


def _model(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    dims = [tensors[f"stages.{i}.blocks.0.norm.weight"].numel() for i in range(_stages(tensors))]
    blocks = [name.split(".") for name in tensors if name.endswith("conv_dw.bias")]
    depths = [sum(stage == str(i) for _, stage, *_ in blocks) for i in range(len(dims))]
    channels = {"in_chans": tensors["stem.0.weight"].shape[1]}
    if name := SIZES.get((dims[0], tuple(depths))):
        return name, channels
    return "convnextv2_base", channels | {"depths": depths, "dims": dims}


def _stages(tensors: dict[str, Tensor]) -> int:
    return 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("stages."))


def _shaped(name: str, tensor: Tensor, linear: bool) -> Tensor:
    """As timm has it: one number a channel in the response normalization, and layers that may be convolutions."""
    if ".grn." in name:
        return tensor.flatten()
    if ".mlp.fc" in name and name.endswith("weight") and not linear:
        return tensor[:, :, None, None]
    return tensor
