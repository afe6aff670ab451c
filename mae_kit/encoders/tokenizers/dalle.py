"""The tokenizer of DALL-E as OpenAI publishes it (dall_e/encoder.py, decoder.py): two pickled modules."""

import re
from pathlib import Path

import torch
from torch import Tensor

from mae_kit.encoders.tokenizers.dvae import DVAE
from mae_kit.errors import UserError
from mae_kit.files.safe_pickle import load_module

ENCODER, DECODER = "encoder.pkl", "decoder.pkl"
TORCH = ("container.Sequential", "activation.ReLU", "pooling.MaxPool2d", "linear.Identity", "upsampling.Upsample")
CLASSES = [
    *(f"dall_e.{name}" for name in ("encoder.Encoder", "encoder.EncoderBlock", "utils.Conv2d")),
    *(f"dall_e.{name}" for name in ("decoder.Decoder", "decoder.DecoderBlock")),
    *(f"torch.nn.modules.{name}" for name in TORCH),
]
BLOCK = re.compile(r"blocks\.group_(\d+)\.block_(\d+)\.(?:(id_path)|res_path\.conv_(\d+))\.([wb])")
END = re.compile(r"blocks\.(?:(input)|output\.conv)\.([wb])")
KIND = {"w": "weight", "b": "bias"}


def read(folder: Path) -> DVAE:
    """Load the tokenizer with its published weights.

    Args:
        folder: Holds encoder.pkl and decoder.pkl.

    Raises:
        UserError: A file is missing, or holds other code or another module; no code of a file is run.
    """
    try:
        encoder, decoder = (load_module(folder / name, CLASSES) for name in (ENCODER, DECODER))
        groups, blocks = _counts(encoder)
        codes, channels = len(encoder["blocks.output.conv.b"]), encoder["blocks.input.w"].shape[1]
        with torch.device("meta"):
            width, code_dim = (len(part["blocks.input.b"]) for part in (encoder, decoder))
            tokenizer = DVAE(codes, 2 ** (groups - 1), channels, width, blocks, code_dim)
        for part, tensors in ((tokenizer.encoder, encoder), (tokenizer.decoder, decoder)):
            named = {_our_name(name, groups, blocks): tensor for name, tensor in tensors.items()}
            part.load_state_dict(named, strict=True, assign=True)
    except (ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        fix = f"give the folder of the published {ENCODER} and {DECODER}"
        raise UserError("tokenizer.dalle", f"{folder} does not hold DALL-E's tokenizer ({reason})", fix) from error
    return tokenizer


def _counts(tensors: dict[str, Tensor]) -> tuple[int, int]:
    """Count the groups, and the blocks in each."""
    found = [BLOCK.fullmatch(name) for name in tensors]
    places = {(int(block[1]), int(block[2])) for block in found if block}
    return max(group for group, _ in places), max(block for _, block in places)


def _our_name(name: str, groups: int, blocks: int) -> str:
    """Translate a parameter name; in our sequence a layer that changes the resolution separates two groups."""
    if block := BLOCK.fullmatch(name):
        group, number, skip, layer, kind = block.groups()
        place = 1 + (int(group) - 1) * (blocks + 1) + int(number) - 1
        return f"{place}.skip.{KIND[kind]}" if skip else f"{place}.path.{2 * int(layer) - 1}.{KIND[kind]}"
    if end := END.fullmatch(name):
        return f"{0 if end[1] else groups * (blocks + 1) + 1}.{KIND[end[2]]}"
    raise KeyError(name)
