"""MAE as one graph: nothing in its step asks the device how many patches it sees."""

import subprocess
import sys

import pytest

# In a process of its own: here every function is wrapped by the shape checks, which torch.compile does not see through.
COMPILED = """
import sys
import torch
from mae_kit.backbones import ViT
from mae_kit.objectives import MAE
torch.manual_seed(0)
encoder = ViT("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=48, depth=1, num_heads=3)
mae = MAE(encoder, mask=sys.argv[1], decoder_dim=32, decoder_depth=1, decoder_heads=2)
images, keys = torch.randn(2, 3, 64, 64), torch.arange(2)
outcome = torch.compile(mae, fullgraph=True, backend="eager")(images, keys)
torch.testing.assert_close(outcome.loss, mae.compare(images, outcome.hidden).loss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["random", "block", "grid"])
def test_a_step_is_one_graph(mask: str):
    subprocess.run([sys.executable, "-c", COMPILED, mask], check=True)
