"""MaskFeat: its target is that of scikit-image, ten steps, and the picture."""

import pytest
import torch
from skimage.feature import hog
from support.errors import raises
from support.training_steps import ten_losses

from mae_kit.encoders import ViT
from mae_kit.objectives import MaskFeat, maskfeat
from mae_kit.objectives.masking import BlockwiseMask, blockwise_mask


def tiny(cell: int = 4) -> MaskFeat:
    torch.manual_seed(0)
    encoder = ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    objective = MaskFeat(encoder, cell=cell)
    objective.set_statistics([0.0] * 3, [1.0] * 3)
    return objective


def images(count: int = 2) -> torch.Tensor:
    """Waves, of which there is something to learn."""
    random = torch.Generator().manual_seed(1)
    phase, slope = torch.rand(2, count, 3, 1, 1, generator=random) * 6
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 3, 32), indexing="ij")
    return torch.sin(slope * x + phase) + torch.cos(y + phase)


def test_the_target_of_a_patch_is_what_scikit_image_finds_there(monkeypatch: pytest.MonkeyPatch):
    """Its cells in rows, then channels, then orientations; with the gradients that scikit-image takes."""

    def differences(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        down, right = torch.zeros_like(x), torch.zeros_like(x)
        down[:, :, 1:-1], right[..., 1:-1] = x[:, :, 2:] - x[:, :, :-2], x[..., 2:] - x[..., :-2]
        return down, right

    monkeypatch.setattr(maskfeat, "gradients", differences)
    seen = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target = tiny().target(seen).reshape(2, 4, 4, 2, 2, 3, 9)  # image, patch, cell, channel, orientation
    for channel in range(3):
        found = hog(seen[1, channel].T.double().numpy(), 9, (4, 4), (1, 1), "L2", feature_vector=False)[:, :, 0, 0]
        cells = (
            torch.from_numpy(found).transpose(0, 1).float().unflatten(1, (4, 2)).unflatten(0, (4, 2)).transpose(1, 2)
        )
        torch.testing.assert_close(target[1, ..., channel, :], cells, rtol=1e-3, atol=1e-3)


def test_the_papers_sizes():
    """108 values a patch; blocks that hide at most 78 of 196, each 15 or more (SlowFast, imagenet.py)."""
    with torch.device("meta"):
        encoder = ViT("vit_base_patch16_224")
    objective = MaskFeat(encoder)
    assert objective.head.out_features == 108 == 2 * 2 * 3 * 9
    assert isinstance(objective.hide, BlockwiseMask)
    assert objective.hide.most == round(196 * 0.4) == 78 and objective.hide.smallest == 15


def test_it_hides_beits_blocks():
    encoder = ViT("vit_tiny_patch16_224", img_size=56, patch_size=4, embed_dim=12, depth=1, num_heads=1)
    seen, keys = torch.rand(6, 3, 56, 56), torch.arange(6)
    hidden = MaskFeat(encoder, cell=4)(seen, keys).hidden
    assert torch.equal(hidden, blockwise_mask(keys, (14, 14), 78, 15)), "the bounds of the original's 14 x 14 patches"
    few = MaskFeat(encoder, mask_ratio=0.02, cell=4)(seen, keys).hidden.sum(dim=1)
    assert few.min() > 0 and few.max() <= 4, "of which a fifth is less than one"


def test_the_most_that_is_hidden_is_rounded():
    encoder = ViT("vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=12, depth=1, num_heads=1)
    hide = MaskFeat(encoder, cell=4).hide
    assert isinstance(hide, BlockwiseMask) and hide.most == 26, "of 64 patches .4 are 25.6"


def test_a_row_of_patches_is_refused():
    encoder = ViT("vit_tiny_patch16_224", img_size=[8, 64], patch_size=8, embed_dim=12, depth=1, num_heads=1)
    with raises("objective.blocks"):
        MaskFeat(encoder)


def test_a_batch_of_which_nothing_is_hidden_teaches_nothing():
    objective = tiny()
    nothing = torch.zeros(2, objective.encoder.grid[0] * objective.encoder.grid[1], dtype=torch.bool)
    assert objective.compare(torch.rand(2, 3, 32, 32), nothing).loss == 0


def test_contrast_and_brightness_do_not_matter():
    objective, seen = tiny(), torch.rand(2, 3, 32, 32)
    scale = torch.tensor([0.3, 2.0, 5.0])[:, None, None]
    torch.testing.assert_close(objective.target(seen), objective.target(seen * scale - 1), rtol=1e-2, atol=1e-3)


def test_ten_training_steps():
    """Recorded when the bins became SlowFast's: a change of arithmetic is seen here."""
    golden = [0.129706, 0.102596, 0.085733, 0.079459, 0.079058, 0.080489, 0.080033, 0.075132, 0.076375, 0.077478]
    assert ten_losses(tiny(), images(8), (0.9, 0.999)) == pytest.approx(golden, rel=1e-3)


def test_the_picture_shows_edges_where_they_are():
    """Stripes down: in every cell a line from top to bottom; across: from side to side, half an orientation off."""
    objective = tiny(cell=8)
    x = torch.arange(32.0)
    stripes = torch.sin(x).expand(1, 3, 32, 32)
    drawn = objective.target_pixels(stripes)
    cell = drawn[0, 0, :8, :8]
    assert cell[:, 3:5].amin() > 0.45 and cell[:, [0, 1, 6, 7]].max() < 0.2
    turned = objective.target_pixels(stripes.mT)
    assert turned[0, 0, 3:5, :8].amax(dim=0).min() > 0.45 and turned[0, 0, [0, 1, 6, 7], :8].max() < 0.2


@pytest.mark.parametrize("cell", [3, 16, 0])
def test_a_cell_that_does_not_fit_is_refused(cell: int):
    with raises("objective.cell"):
        tiny(cell)
