"""Objectives as one graph: nothing in their steps asks the device how many patches are seen."""

import subprocess
from pathlib import Path

import pytest
from support.processes import Programs

# In a process of its own: here every function is wrapped by the shape checks, which torch.compile does not see through.
COMPILED = """
import sys
from pathlib import Path
import torch
from mae_kit.encoders import ConvNeXtV2, Hiera, ImageGPT, ViT
from mae_kit.encoders.tokenizers import DVAE, save_tokenizer
from mae_kit.objectives import (
    FCMAE, IGPT, MAE, BEiT, ContrastiveMAE, CrossMAE, HieraMAE, MaskedPatch, MaskFeat, SimMIM
)
torch.manual_seed(0)
vit = ViT("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=48, depth=1, num_heads=3)
convolutions = ConvNeXtV2("convnextv2_atto", 64, output_stride=16, depths=[1, 1, 2, 1], dims=[8, 16, 24, 32])
gpt = ImageGPT(img_size=8, embed_dim=32, depth=1, num_heads=2)
hiera = Hiera("hiera_tiny_224", 96, embed_dim=8, num_heads=1, stages=[1, 2, 2, 1])
tokenizer = save_tokenizer(Path(sys.argv[1]), DVAE(codes=16, width=8, blocks=1, code_dim=8))
small = {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
objectives = [
    *(MAE(vit, mask=mask, **small) for mask in ("random", "block", "grid")),
    CrossMAE(vit, **small),
    ContrastiveMAE(vit, **small),
    HieraMAE(hiera, **small),
    BEiT(vit, str(tokenizer)),
    FCMAE(convolutions, decoder_dim=32),
    SimMIM(vit, unit=16),
    MaskedPatch(vit),
    MaskFeat(vit),
    IGPT(gpt),
]
for objective in objectives:
    print(type(objective).__name__, objective.hide)
    images, keys = torch.randn(2, 3, *objective.encoder.image_size), torch.arange(2)
    objective.set_statistics([0.5] * 3, [0.5] * 3)
    objective.fit(torch.randn(20, 3, *objective.encoder.image_size))
    compiled = torch.compile(objective, fullgraph=True, backend="eager")(images, keys)
    plain = objective(images, keys)
    assert torch.equal(compiled.hidden, plain.hidden)
    torch.testing.assert_close(compiled.loss, plain.loss)
    torch.compiler.reset()
"""


@pytest.mark.long
def test_a_step_is_one_graph(programs: Programs, tmp_path: Path):
    """All in one process, since what takes seconds is that torch loads its compiler."""
    subprocess.run([programs.python, "-c", COMPILED, tmp_path], check=True)
