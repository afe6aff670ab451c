"""Patches and their classes, and what frozen patch tokens know of drawn shapes."""

from pathlib import Path

import pytest
import torch
from support.errors import raises
from support.shapes import NAMES, write_shapes

import mae_kit as mk
from mae_kit.data.decode import IGNORED
from mae_kit.encoders import create_encoder
from mae_kit.evaluation.patch_probes import cell_classes, layer_maps


def test_a_patch_has_the_class_of_most_of_its_pixels():
    masks = torch.full((2, 4, 6), IGNORED, dtype=torch.uint8)
    masks[0, :2, :3] = torch.tensor([[1, 1, 0], [1, 0, 2]], dtype=torch.uint8)
    masks[0, 2:, 3:] = 2
    masks[1, 0, 0] = 0
    assert cell_classes(masks, (2, 2), 3).tolist() == [1, IGNORED, IGNORED, 2, 0, IGNORED, IGNORED, IGNORED]


SWIN = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [2] * 4, "window_size": 4}
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 2, "patch_size": 8}


@pytest.mark.parametrize(("name", "args"), [("vit_tiny_patch16_224", VIT), ("swin_tiny_patch4_window7_224", SWIN)])
def test_maps_lie_as_the_image_does(name: str, args: dict):
    """Changing the pixels on the right changes the features there most."""
    encoder = create_encoder(name, args | {"img_size": [64, 96]}, (64, 96)).eval()
    images = torch.randn(1, 3, 64, 96)
    changed = images.clone()
    changed[..., 64:] = torch.randn(1, 3, 64, 32)
    for one, other in zip(*(layer_maps(encoder, each, [1, 2]) for each in (images, changed)), strict=True):
        assert one.shape[3] * 2 == one.shape[2] * 3
        difference = (one - other).abs().mean(dim=(0, 1, 2))
        assert difference[-1] > 2 * difference[0]


@pytest.mark.slow
def test_frozen_patches_know_shapes(tmp_path: Path):
    mk.shard(str(write_shapes(tmp_path / "in", noise=0)), tmp_path / "shards", workers=1)
    torch.manual_seed(0)
    vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=48, depth=2, num_heads=2)
    vit.set_statistics([0.5] * 3, [0.25] * 3)
    vit.save_pretrained(tmp_path / "vit")
    told = mk.evaluate(tmp_path / "vit", data=str(tmp_path / "shards"), layers=[1, 2], out=tmp_path / "out")
    found = {(row["method"], row["layer"]): row for row in told["scores"]}
    assert set(found) == {(method, layer) for method in ("patch_knn", "patch_probe") for layer in (1, 2)}
    assert all(row["miou"] > 0.6 and [one["name"] for one in row["of_classes"]] == NAMES for row in found.values())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "kNN of patches" in page and "patch tokens" in page.lower()
    with raises("methods.mixed"):
        mk.evaluate(tmp_path / "vit", data=str(tmp_path / "shards"), methods="knn,patch_knn")
