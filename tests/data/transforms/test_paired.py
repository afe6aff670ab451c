"""Images and masks move together, to the pixel; the draws of a sample are its own."""

import pytest
import torch
from support.shapes import shapes

from mae_kit.data.decode import IGNORED
from mae_kit.data.transforms.paired import PairedAugment

MEAN, STD = [0.0] * 3, [1.0] * 3


def drawn(count: int = 6, size: tuple[int, int] = (48, 40)) -> tuple[torch.Tensor, ...]:
    """Images, masks, seeds and sizes."""
    pairs = [shapes(number, size) for number in range(count)]
    images, masks = (torch.stack([torch.from_numpy(pair[part]) for pair in pairs]) for part in (0, 1))
    return images.permute(0, 3, 1, 2), masks, torch.arange(count) * 7919, torch.tensor([size[::-1]] * count)


def classes_of(images: torch.Tensor) -> torch.Tensor:
    """The class of each pixel, told by its color."""
    red, _, blue = images.unbind(1)
    return (red > 0.5).long() + 2 * (blue > 0.5).long()


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_a_part_of_the_scaled_image(scale: float, flip: bool):
    images, masks, seeds, sizes = drawn()
    shown, found = PairedAugment(MEAN, STD, (32, 24), (scale, scale), flip)(images, masks, seeds, sizes)
    large = masks.repeat_interleave(int(scale), 1).repeat_interleave(int(scale), 2)
    mirrored = 0
    for mask, whole, image in zip(found, large, shown, strict=True):
        windows = whole.unfold(0, 32, 1).unfold(1, 24, 1)
        straight = (windows == mask).all((2, 3)).any()
        mirrored += int(not straight and (windows == mask.flip(1)).all((2, 3)).any())
        assert straight or mirrored
        if scale == 1:
            assert (classes_of(image[None])[0] == mask).all()
    assert bool(mirrored) == flip


def test_edges_of_image_and_mask_stay_together():
    images, masks, seeds, sizes = drawn(16)
    shown, found = PairedAugment(MEAN, STD, (40, 48), (0.5, 2.0))(images, masks, seeds, sizes)
    known = found != IGNORED
    assert (classes_of(shown) == found)[known].float().mean() > 0.97


def test_what_lies_outside_is_ignored_and_the_mean():
    """An image of 16 x 20 in a padded batch lies whole in its crop, and nothing of the padding shows."""
    images, masks, seeds, _ = drawn()
    masks[:, 16:], masks[:, :, 20:] = IGNORED, IGNORED
    sizes = torch.tensor([[16, 20]] * len(seeds))
    shown, found = PairedAugment([0.3] * 3, STD, (32, 24))(images, masks, seeds, sizes)
    outside = found == IGNORED
    assert (~outside).sum((1, 2)).tolist() == [16 * 20] * len(seeds)
    torch.testing.assert_close(shown * outside[:, None], torch.zeros_like(shown), rtol=0, atol=1e-4)
    assert (shown.abs().amax(1) > 0.01)[~outside].all()


def test_the_draws_of_a_sample_are_its_own():
    images, masks, seeds, sizes = drawn()
    augment = PairedAugment(MEAN, STD, (32, 24), (0.5, 2.0), color_jitter=0.4)
    whole, alone = augment(images, masks, seeds, sizes), augment(images[2:3], masks[2:3], seeds[2:3], sizes[2:3])
    assert torch.equal(whole[1][2:3], alone[1])
    torch.testing.assert_close(whole[0][2:3], alone[0])
    again = augment(images, masks, seeds + 1, sizes)
    assert not torch.equal(whole[1], again[1])
