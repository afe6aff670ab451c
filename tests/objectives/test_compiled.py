"""Objectives as one graph: nothing in their steps asks the device how many patches are seen."""

import subprocess

import pytest
from support.processes import Programs

# In a process of its own: here every function is wrapped by the shape checks, which torch.compile does not see through.
COMPILED = """
import torch
from mae_kit.encoders import ImageGPT, ConvNeXtV2, ViT
from mae_kit.objectives import FCMAE, IGPT, MAE, MaskFeat, MaskedPatch, SimMIM
torch.manual_seed(0)
vit = ViT("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=48, depth=1, num_heads=3)
convolutions = ConvNeXtV2("convnextv2_atto", 64, output_stride=16, depths=[1, 1, 2, 1], dims=[8, 16, 24, 32])
gpt = ImageGPT(img_size=8, embed_dim=32, depth=1, num_heads=2)
objectives = [
    *(MAE(vit, mask=mask, decoder_dim=32, decoder_depth=1, decoder_heads=2) for mask in ("random", "block", "grid")),
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
def test_a_step_is_one_graph(programs: Programs):
    """All in one process, since what takes seconds is that torch loads its compiler."""
    subprocess.run([programs.python, "-c", COMPILED], check=True)
