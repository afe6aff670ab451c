"""DALL-E's two files: made here in the published layout, read without its code, and held to its arithmetic."""

import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.errors import raises
from torch import nn

from mae_kit.encoders.tokenizers import load_tokenizer

CODES, WIDTH, CODE_DIM, GROUPS, BLOCKS = 30, 8, 4, 4, 2


class Conv2d(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.w = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5)
        self.b = nn.Parameter(0.1 * torch.randn(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.w, self.b, padding=self.w.shape[-1] // 2)


class EncoderBlock(nn.Module):
    kernels = (3, 3, 3, 1)

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.id_path = Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        widths, layers = [inputs, *[outputs // 4] * 3, outputs], {}
        for i, kernel in enumerate(self.kernels):
            layers |= {f"relu_{i + 1}": nn.ReLU(), f"conv_{i + 1}": Conv2d(widths[i], widths[i + 1], kernel)}
        self.res_path = nn.Sequential(OrderedDict(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.id_path(x) + self.res_path(x) / (GROUPS * BLOCKS) ** 2


class DecoderBlock(EncoderBlock):
    kernels = (1, 3, 3, 3)


class Encoder(nn.Module):
    widths, first, last, block, between = [8, 16, 32, 64], (3, WIDTH, 7), (64, CODES, 1), EncoderBlock, "pool"

    def __init__(self) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {"input": Conv2d(*self.first)}
        inputs = self.first[1]
        for i, width in enumerate(self.widths):
            group: dict[str, nn.Module] = {}
            for j in range(BLOCKS):
                group[f"block_{j + 1}"] = self.block(inputs, width)
                inputs = width
            if i < GROUPS - 1:
                group[self.between] = nn.MaxPool2d(2) if self.between == "pool" else nn.Upsample(scale_factor=2)
            parts[f"group_{i + 1}"] = nn.Sequential(OrderedDict(group))
        parts["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(*self.last)))
        self.blocks = nn.Sequential(OrderedDict(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class Decoder(Encoder):
    widths, first, last = [64, 32, 16, 8], (CODES, CODE_DIM, 1), (WIDTH, 6, 1)
    block, between = DecoderBlock, "upsample"


HOMES = {"encoder": (Encoder, EncoderBlock), "decoder": (Decoder, DecoderBlock), "utils": (Conv2d,)}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any, Any]:
    """The folder, and both modules; while they are written their classes live where DALL-E's do."""
    torch.manual_seed(0)
    modules = Encoder(), Decoder()
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "dall_e", ModuleType("dall_e"))
        for name, kinds in HOMES.items():
            home = ModuleType(f"dall_e.{name}")
            there.setitem(sys.modules, home.__name__, home)
            for kind in kinds:
                there.setattr(kind, "__module__", home.__name__)
                setattr(home, kind.__name__, kind)
        for name, module in zip(("encoder", "decoder"), modules, strict=True):
            torch.save(module, tmp_path / f"{name}.pkl")
    return tmp_path, *modules


def test_its_arithmetic_is_theirs(published: tuple[Path, Any, Any]):
    folder, encoder, decoder = published
    tokenizer = load_tokenizer(folder)
    colors = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        logits = encoder(0.8 * colors + 0.1)
        codes = logits.argmax(dim=1)
        theirs = decoder(F.one_hot(codes, CODES).movedim(3, 1).float())[:, :3].sigmoid()
    torch.testing.assert_close(tokenizer.logits(colors), logits, rtol=1e-5, atol=1e-6)
    assert torch.equal(tokenizer.encode(colors), codes.flatten(1)) and len(codes.unique()) > 1
    expected = ((theirs - 0.1) / 0.8).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(codes.flatten(1), (2, 3)), expected, rtol=1e-5, atol=1e-6)
    assert tokenizer.stride == (8, 8) and not list(tokenizer.parameters())


def test_other_files_are_refused(published: tuple[Path, Any, Any]):
    folder = published[0]
    (folder / "decoder.pkl").rename(folder / "kept")
    with raises("tokenizer.dalle"):
        load_tokenizer(folder)
    torch.save(nn.Linear(2, 2), folder / "decoder.pkl")
    with raises("tokenizer.dalle"):
        load_tokenizer(folder)
    torch.save({"a": torch.zeros(1)}, folder / "decoder.pkl")
    with raises("tokenizer.dalle"):
        load_tokenizer(folder)
    torch.save(nn.ReLU(), folder / "decoder.pkl", _use_new_zipfile_serialization=False)
    with raises("tokenizer.dalle"):
        load_tokenizer(folder)
    (folder / "decoder.pkl").write_bytes((folder / "encoder.pkl").read_bytes())
    with raises("tokenizer.dalle"):
        load_tokenizer(folder)
