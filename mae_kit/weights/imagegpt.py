"""ImageGPT as transformers writes it: OpenAI's iGPT, its palette in preprocessor_config.json."""

import re
from typing import Any

import torch
from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.files import Raw
from mae_kit.weights.names import Names, prefixed
from mae_kit.weights.plain_vit import Hints, named
from mae_kit.weights.pretrained import Pretrained

SIZES = {(512, 24, 8): "igpt_s", (1024, 36, 8): "igpt_m", (1536, 48, 16): "igpt_l"}
BLOCK = {
    "ln_1.weight": "norm1.weight",
    "attn.c_attn.weight": "attn.qkv.weight",
    "attn.c_proj.weight": "attn.proj.weight",
    "ln_2.weight": "norm2.weight",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_proj.weight": "mlp.fc2.weight",
}
MODEL = {
    "wte.weight": "embed.weight",
    "wpe.weight": "pos_embed",
    **prefixed(BLOCK, "h.#.", "blocks.#."),
    "ln_f.weight": "norm.weight",
}
NAMES = Names(
    MODEL | prefixed(MODEL, "transformer.") | {"lm_head.weight": "color_head.weight"},
    left_out=r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)|score\.weight",
)
BIAS = re.compile(r"(transformer\.)?h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.bias")
COMPUTED = {
    "activation_function": "quick_gelu",
    "layer_norm_epsilon": 1e-5,
    "n_inner": None,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def recognizes(raw: Raw) -> bool:
    return raw.config.get("model_type") == "imagegpt"


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    _must_be_computed_alike(raw)
    tensors, left_out, others = NAMES.ours(raw.tensors)
    biases = [name for name in others if BIAS.fullmatch(name)]
    if any(raw.tensors[name].any() for name in biases):
        raise UserError(
            "weights.biases", f"{raw.path} has biases, which iGPT lacks", "give one trained without, like OpenAI's"
        )
    tensors = {name: _upright(name, tensor) for name, tensor in tensors.items()}
    tensors |= {"palette": _palette(raw), "start": tensors["embed.weight"][-1]}
    tensors["embed.weight"] = tensors["embed.weight"][:-1]  # transformers counts the start as a color
    notes = []
    if "color_head.weight" not in tensors:
        tensors["color_head.weight"] = torch.zeros_like(tensors["embed.weight"])
        notes.append("the layer that predicts colors is not in the file and starts at zero")
    name, args = _model(raw, tensors)
    channels = args["in_chans"]
    config = ModelConfig(name, args, [0.5] * channels, [0.5] * channels, "IGPT", image_size=pair(args["img_size"]))
    whole = Pretrained("Hugging Face ImageGPT", config, tensors, left_out=left_out, notes=notes)
    return whole, [name for name in others if name not in biases]


def _must_be_computed_alike(raw: Raw) -> None:
    for key, value in COMPUTED.items():
        if raw.config.get(key, value) != value:
            raise UserError(
                "weights.igpt_config", f"{raw.path}: {key} is {raw.config[key]}", f"only {value} is supported"
            )


def _upright(name: str, tensor: Tensor) -> Tensor:
    """Their linear layers in the blocks are (in, out), torch's (out, in)."""
    return tensor.T.contiguous() if name.startswith("blocks.") and tensor.ndim == 2 else tensor


def _palette(raw: Raw) -> Tensor:
    clusters = raw.preprocessor.get("clusters")
    if clusters is None:
        raise UserError(
            "weights.palette",
            f"{raw.path} has no palette",
            "give the folder with preprocessor_config.json and its clusters",
        )
    return torch.tensor(clusters, dtype=torch.float32)


def _model(raw: Raw, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """A square of as many pixels as there are positions."""
    config, (colors, channels) = raw.config, tensors["palette"].shape
    side = round(len(tensors["pos_embed"]) ** 0.5)
    args = {"img_size": side, "in_chans": channels, "colors": colors, "causal": True}
    return named(config["n_embd"], config["n_layer"], config["n_head"], args, SIZES, "igpt_s")
