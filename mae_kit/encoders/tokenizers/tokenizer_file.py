"""A tokenizer as a file: safetensors, with what rebuilds it in the header; or DALL-E's two files."""

import hashlib
import json
from pathlib import Path

import torch
from jaxtyping import UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from mae_kit.configured import build
from mae_kit.encoders.tokenizers import dalle
from mae_kit.encoders.tokenizers.dvae import DVAE
from mae_kit.errors import UserError
from mae_kit.tensor_file import read_header

FILE = "tokenizer.safetensors"
FORMAT = "mae_kit_tokenizer"
_FIX = f"give the folder of a finished `mae-kit tokenizer` run, or its {FILE}"


def tokenizer_metadata(tokenizer: DVAE) -> dict[str, str]:
    """The header of the safetensors file."""
    return {FORMAT: json.dumps(tokenizer.config)}


def load_tokenizer(path: Path) -> DVAE:
    """Read a tokenizer, to be used and not to be trained.

    Args:
        path: The run folder of `mae-kit tokenizer`, or its tokenizer.safetensors; or a folder with DALL-E's encoder.pkl
            and decoder.pkl.

    Returns:
        One whose weights are buffers that no state dict holds: they belong to its own file.

    Raises:
        UserError: There is none, or it is a file of another kind.
    """
    if (path / dalle.ENCODER).is_file():
        return frozen(dalle.read(path))
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError("tokenizer_file.load_tokenizer", f"no tokenizer at {file}", _FIX)
    return frozen(_read(file))


def fingerprint(tokenizer: DVAE) -> UInt8[Tensor, "8"]:
    """Of its weights: another one has other codes."""
    digest = hashlib.sha256()
    for _, weights in sorted(tokenizer.named_buffers()):
        digest.update(weights.numpy(force=True).tobytes())
    return torch.tensor(list(digest.digest()[:8]), dtype=torch.uint8)


def _read(file: Path) -> DVAE:
    metadata = read_header(file, _FIX)
    if FORMAT not in metadata:
        raise UserError("tokenizer_file.read", f"{file} is no tokenizer", _FIX)
    with torch.device("meta"):
        tokenizer = build(json.loads(metadata[FORMAT]))
    tokenizer.load_state_dict(load_file(file), strict=True, assign=True)
    return tokenizer


def frozen(tokenizer: DVAE) -> DVAE:
    """The same, its weights no longer parameters and in no state dict."""
    for module in tokenizer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            _replace(module, name, parameter)
    return tokenizer.eval()


def _replace(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    delattr(module, name)
    module.register_buffer(name, parameter.detach(), persistent=False)
