"""No training step of an objective waits for its device: it reads no number of a tensor, and picks none by a condition.

Counted on the processor, where such a read costs nothing; on a GPU each empties its queue.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import save_tokenizer, tiny_mae
from torch.utils._python_dispatch import TorchDispatchMode

from mae_kit.encoders import ConvNeXtV2, Hiera, ImageGPT, ViT
from mae_kit.objectives import (
    FCMAE,
    IGPT,
    BEiT,
    ContrastiveMAE,
    CrossMAE,
    HieraMAE,
    MaskedPatch,
    MaskFeat,
    Objective,
    SimMIM,
)

SMALL: dict[str, Any] = {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten._unique2", "aten.equal")


class HostReads(TorchDispatchMode):
    """Notes what would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket)
        if name in READS or (name.startswith("aten.index") and _by_condition(args)):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def _by_condition(args: Any) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in indices)


def vit() -> ViT:
    return ViT("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=48, depth=1, num_heads=3)


def make(kind: type[Objective], tokenizer: Path) -> Objective:
    if kind is HieraMAE:
        return HieraMAE(Hiera("hiera_tiny_224", 96, embed_dim=8, num_heads=1, stages=[1, 2, 2, 1]), **SMALL)
    if kind is FCMAE:
        sizes: dict[str, Any] = {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}
        return FCMAE(ConvNeXtV2("convnextv2_atto", 64, output_stride=16, **sizes), decoder_dim=32)
    if kind is IGPT:
        return IGPT(ImageGPT(img_size=8, embed_dim=32, depth=1, num_heads=2))
    further: dict[Any, Any] = {BEiT: {"tokenizer": str(tokenizer)}, MaskedPatch: {}, MaskFeat: {}, SimMIM: {"unit": 16}}
    return kind(vit(), **further.get(kind, SMALL))


@pytest.mark.parametrize(
    "kind",
    [CrossMAE, ContrastiveMAE, HieraMAE, BEiT, SimMIM, MaskedPatch, MaskFeat, FCMAE, IGPT],
    ids=lambda k: k.__name__,
)
def test_no_step_reads_from_its_device(kind: type[Objective], tmp_path: Path):
    objective = make(kind, save_tokenizer(tmp_path)).train()
    objective.set_statistics([0.5] * 3, [0.5] * 3)
    images = torch.randn(20, 3, *objective.encoder.image_size)
    objective.fit(images)
    with HostReads() as reads:
        objective(images[:4], torch.arange(4)).loss.backward()
    assert reads.found == []


@pytest.mark.parametrize("mask", ["random", "block", "grid"])
def test_no_mask_does(mask: Any):
    mae = tiny_mae()
    hide = type(mae)(mae.encoder, mask=mask, **SMALL).hide
    with HostReads() as reads:
        hide(torch.arange(4))
    assert reads.found == []


def test_reads_are_found():
    numbers = torch.arange(4)
    with HostReads() as reads:
        float(numbers.sum())
        numbers[numbers > 1]
        numbers[torch.tensor([0, 1])]
    assert reads.found == ["aten._local_scalar_dense", "aten.index"]
