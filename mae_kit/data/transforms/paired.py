"""Images and their masks, scaled, cropped, flipped and colored together, on the device."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, Num, UInt8
from kornia.geometry.transform import warp_affine
from torch import Tensor, nn

from mae_kit.data.decode import IGNORED
from mae_kit.data.transforms.augment import ColorJitter, Normalize
from mae_kit.randomness import CROP, FLIP, uniform


def padded(normalize: nn.Module, images: Num[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"]) -> Tensor:
    """Normalized images that are 0, the mean, where they are padded; `sizes` are heights and widths without that."""
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
    height, width = sizes.to(images.device).T
    inside = (rows < height[:, None])[:, :, None] & (columns < width[:, None])[:, None]
    return normalize(images) * inside[:, None]


class PairedAugment(nn.Module):
    """Scale, crop, flip and color images, and move their masks with them; every draw is a function of a sample's seed.

    Images are bilinear, without antialiasing, masks nearest. What a crop shows outside of its image is the mean color,
    and is ignored.

    Args:
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel.
        size: Height and width of the crop, in pixels.
        scale: Smallest and largest factor that an image is scaled by before it is cropped; its logarithm is uniform.
        flip: Mirror half of the images.
        color_jitter: Strength of brightness, contrast and saturation jitter; 0 turns it off. RGB only.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int],
        scale: tuple[float, float] = (1.0, 1.0),
        flip: bool = True,
        color_jitter: float = 0.0,
    ):
        super().__init__()
        self.size, self.scale, self.flip = size, scale, flip
        self.jitter = ColorJitter.of(color_jitter, len(mean))
        self.normalize = Normalize(mean, std)

    def forward(
        self,
        images: Num[Tensor, "b c h w"],
        masks: UInt8[Tensor, "b h w"],
        seeds: Int64[Tensor, " b"],
        sizes: Int64[Tensor, "b 2"],
    ) -> tuple[Float[Tensor, "b c y x"], UInt8[Tensor, "b y x"]]:
        """Crops of `size`, images normalized; fp32 under autocast too.

        Args:
            images: Padded to one size.
            masks: The class of each pixel, 255 = ignored.
            seeds: Of the samples.
            sizes: Height and width of each image without its padding.
        """
        with torch.autocast(images.device.type, enabled=False):
            shown, maps = self.crops(images, seeds, sizes)
            numbers = masks[:, None].float() - IGNORED  # outside, which becomes 0, is ignored
            moved = warp_affine(numbers, maps, self.size, mode="nearest", align_corners=True)
        return shown, (moved[:, 0].round() + IGNORED).to(torch.uint8)

    def crops(
        self, images: Tensor, seeds: Tensor, sizes: Tensor
    ) -> tuple[Float[Tensor, "b c y x"], Float[Tensor, "b 2 3"]]:
        """Colored, normalized crops, and the maps of places in images to those in crops."""
        if self.jitter is not None:
            images = self.jitter(images.to(torch.float32, copy=True).div_(255), seeds).mul_(255)
        maps = self._maps(seeds, sizes.to(seeds.device))
        return warp_affine(padded(self.normalize, images, sizes), maps, self.size, align_corners=True), maps

    def _maps(self, seeds: Tensor, sizes: Tensor) -> Float[Tensor, "b 2 3"]:
        """Of each sample the map of the places of its pixels' centers to those of its crop.

        An image that is larger than the crop is cut within it, by whole pixels; a smaller one lies anywhere in it.
        """
        draws = uniform(seeds, CROP, 3)
        low, high = self.scale
        zoom = low * (high / low) ** draws[:, 0]
        maps = torch.zeros(len(seeds), 2, 3, device=seeds.device)
        for axis, draw in ((0, draws[:, 2]), (1, draws[:, 1])):  # x, y
            room = (sizes[:, 1 - axis] * zoom).round() - self.size[1 - axis]
            maps[:, axis, axis] = zoom
            maps[:, axis, 2] = (zoom - 1) / 2 - room.sign() * (draw * (room.abs() + 1)).floor()
        if self.flip:
            mirrored = uniform(seeds, FLIP, 1)[:, 0] < 0.5
            maps[mirrored, 0] *= -1
            maps[mirrored, 0, 2] += self.size[1] - 1
        return maps
