"""A tokenizer as a file: ours, or DALL-E's two."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from mae_kit.classes.configured import build
from mae_kit.encoders.tokenizers import dalle
from mae_kit.encoders.tokenizers.dvae import DVAE
from mae_kit.files.tensor_file import TOKENIZER, damages, read_kind, save_kind


def save_tokenizer(folder: Path, tokenizer: DVAE) -> Path:
    """Write tokenizer.safetensors: the weights, and in the header what rebuilds the module."""
    return save_kind(folder, TOKENIZER, tokenizer.state_dict(), {"tokenizer": tokenizer.config})


def load_tokenizer(path: Path | str) -> DVAE:
    """Load a tokenizer, frozen and in eval mode.

    Args:
        path: The run folder of `mae-kit tokenizer`, or its tokenizer.safetensors; or a folder with DALL-E's encoder.pkl
            and decoder.pkl.

    Returns:
        The module; its weights are non-persistent buffers, so that no state dict repeats them.

    Raises:
        UserError: `tokenizer.missing`, or the file holds something else or is damaged.

    Example:
        >>> import tempfile, torch, mae_kit as mk
        >>> from pathlib import Path
        >>> from mae_kit.encoders.tokenizers import save_tokenizer
        >>> file = save_tokenizer(Path(tempfile.mkdtemp()), mk.DVAE(codes=16, width=8, blocks=1, code_dim=8))
        >>> mk.load_tokenizer(file).encode(torch.rand(2, 3, 32, 32)).shape  # 4 x 4 patches of 8 pixels
        torch.Size([2, 16])
    """
    path = Path(path)
    if (path / dalle.ENCODER).is_file():
        return frozen(dalle.read(path))
    tokenizer, tensors = read_kind(path, TOKENIZER, _without_weights)
    with damages(path, TOKENIZER):
        tokenizer.load_state_dict(tensors, strict=True, assign=True)
    return frozen(tokenizer)


def _without_weights(content: dict[str, Any]) -> DVAE:
    with torch.device("meta"):
        return build(content["tokenizer"])


def fingerprint(tokenizer: DVAE) -> UInt8[Tensor, "8"]:
    """Hash the weights: a tokenizer with others gives other codes."""
    digest = hashlib.sha256()
    for _, weights in sorted(tokenizer.named_buffers()):
        digest.update(weights.numpy(force=True).tobytes())
    return torch.tensor(list(digest.digest()[:8]), dtype=torch.uint8)


def frozen(tokenizer: DVAE) -> DVAE:
    """Turn all parameters into non-persistent buffers."""
    for module in tokenizer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
    return tokenizer.eval()
