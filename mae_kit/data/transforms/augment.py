"""What happens to a batch on its device, once: uint8 in, float out. The only doorway to kornia.

A stage that is switched off costs nothing. Figures are for 128 images of 3 x 64 x 64 on two CPU cores.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from kornia import enhance
from kornia.geometry.transform import hflip
from torch import Tensor, nn

from mae_kit.data.index.statistics import IMAGENET
from mae_kit.data.transforms.mixing import Mixing, soft_sets, soft_targets
from mae_kit.data.transforms.warp import GEOMETRY, geometry_maps, warp
from mae_kit.errors import UserError
from mae_kit.randomness import FLIP, JITTER, uniform

IMAGENET_MEAN, IMAGENET_STD = IMAGENET


class Normalize(nn.Module):
    """(x / 255 - mean) / std, channel by channel.

    Args:
        mean: One a channel, of values in [0, 1].
        std: One a channel.

    Raises:
        UserError: A channel has no spread.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        if min(std) <= 0:
            what = f"the std of channel {std.index(min(std))} is {min(std):g}"
            raise UserError("data.std", what, "set data.std to 1 for a constant channel")
        spread = torch.tensor(std).view(1, -1, 1, 1)
        self.register_buffer("scale", 1 / (255 * spread), persistent=False)
        self.register_buffer("shift", torch.tensor(mean).view(1, -1, 1, 1) / spread, persistent=False)

    def forward(self, images: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Values in 0 to 255 -> fp32 [b c h w]; in place it takes 1 ms where `kornia.enhance.normalize` takes 2."""
        return images.to(torch.float32, copy=True).mul_(self.scale).sub_(self.shift)

    def inverse(self, normalized: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Back to 0..1."""
        return (normalized + self.shift) / (255 * self.scale)


class PretrainAugment(nn.Module):
    """Flip half of the images, which ones being a function of their seeds, then normalize (MAE: crop and flip only).

    Colors are drawn from torch's global generators, so whoever seeds them owns the result.

    Args:
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel.
        flip: Mirror half of the images.
        color_jitter: Strength of brightness, contrast and saturation jitter; 0 turns it off. RGB only.

    Raises:
        UserError: Jitter for images that are not RGB.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], flip: bool = True, color_jitter: float = 0.0):
        super().__init__()
        _need_rgb(len(mean), color_jitter=bool(color_jitter))
        self.flip = flip
        self.jitter = ColorJitter(color_jitter) if color_jitter else None
        self.normalize = Normalize(mean, std)

    def forward(
        self, images: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The same seed flips the same on every device, in every process, when resumed; fp32 under autocast too."""
        if self.flip:
            images = _flip_rows(images, uniform(seeds, FLIP, 1)[:, 0] < 0.5)
        if self.jitter is None:
            return self.normalize(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.normalize(self.jitter(images.to(torch.float32, copy=True).div_(255)).mul_(255))


class FinetuneAugment(nn.Module):
    """Flip, RandAugment, color jitter, normalize, erase, mix: the order of timm's training transforms.

    All draws come from torch's global generators, so whoever seeds them owns the result.

    Args:
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel.
        classes: Number of classes.
        flip: Mirror half of the images.
        randaugment: Magnitude of `RandAugment`, in (0, 10]; 9 in MAE's fine-tuning. RGB only.
        color_jitter: Strength of brightness, contrast and saturation jitter; 0 turns it off. RGB only.
        erasing: Fraction of the images that lose a box to noise (random erasing, mode "pixel").
        mixup: Alpha of Mixup; 0 turns it off.
        cutmix: Alpha of CutMix; 0 turns it off.
        smoothing: Label smoothing, applied before the targets are mixed.

    Raises:
        UserError: A color stage for images that are not RGB.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        classes: int,
        *,
        flip: bool = True,
        randaugment: float | None = 9.0,
        color_jitter: float = 0.0,
        erasing: float = 0.25,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        smoothing: float = 0.1,
    ):
        super().__init__()
        _need_rgb(len(mean), randaugment=bool(randaugment), color_jitter=bool(color_jitter))
        self.flip, self.classes, self.smoothing = flip, classes, smoothing
        color: list[nn.Module] = [RandAugment(randaugment, mean)] if randaugment else []
        color += [ColorJitter(color_jitter)] if color_jitter else []
        self.color = nn.ModuleList(color)
        self.normalize = Normalize(mean, std)
        self.erase = Erase(erasing) if erasing else nn.Identity()
        self.mix = Mixing(mixup, cutmix)

    def forward(
        self,
        images: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"] | Bool[Tensor, "b k"],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        """Images and soft targets, both fp32; each row of the targets of single labels sums to 1.

        In fp32 under autocast too: bf16 puts what RandAugment turns up to a pixel beside its place.
        """
        with torch.autocast(images.device.type, enabled=False):
            return self.mix(self.alone(images), self._soften(labels))

    def alone(self, images: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """All but the mixing, where there are no classes."""
        if self.flip:
            images = _flip_rows(images, (torch.rand(len(images)) < 0.5).to(images.device))
        with torch.autocast(images.device.type, enabled=False):
            return self.erase(self.normalize(self._recolor(images)))

    def _soften(self, labels: Int64[Tensor, " b"] | Bool[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        if labels.dtype == torch.bool:
            return soft_sets(labels, self.smoothing)
        return soft_targets(labels, self.classes, self.smoothing)

    def _recolor(self, images: Tensor) -> UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]:
        """Stages that know colors work on [0, 1]."""
        if not self.color:
            return images
        x = images.to(torch.float32, copy=True).div_(255)
        for stage in self.color:
            x = stage(x)
        return x.mul_(255)


class ColorJitter(nn.Module):
    """Brightness, contrast and saturation of RGB images, in an order of its own for each image (torchvision's).

    BEiT jitters the image before it crops; here the crop is jittered, so its mean is what contrast is measured from.

    Args:
        strength: Each factor is drawn from [1 - strength, 1 + strength].
    """

    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength

    @classmethod
    def of(cls, strength: float, channels: int) -> "ColorJitter | None":
        """None where the strength is 0.

        Raises:
            UserError: The images are not RGB.
        """
        _need_rgb(channels, color_jitter=bool(strength))
        return cls(strength) if strength else None

    def forward(
        self, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Colors in [0, 1], changed in place.

        Args:
            images: RGB.
            seeds: What the draws are functions of; by default they come from torch's generator.
        """
        count = len(_JITTER)
        if seeds is None:
            draws = torch.rand(len(images), count), torch.rand(len(images), count)
        else:
            draws = uniform(seeds.cpu(), JITTER, 2 * count).split(count, dim=1)
        factors = 1 + self.strength * (2 * draws[0] - 1).clamp_(min=-1 / self.strength)
        order = draws[1].argsort(dim=1)
        for turn in range(len(_JITTER)):
            for number, operation in enumerate(_JITTER):
                rows = (order[:, turn] == number).nonzero().flatten()
                if len(rows):
                    at = rows.to(images.device, non_blocking=True)
                    images[at] = operation(images[at], factors[rows, number].to(images.device))
        return images


_JITTER: list[Callable[[Tensor, Tensor], Tensor]] = [
    enhance.adjust_brightness_accumulative,
    enhance.adjust_contrast_with_mean_subtraction,
    enhance.adjust_saturation_with_gray_subtraction,
]


class Erase(nn.Module):
    """Random erasing with normal noise, pixel by pixel, of normalized images (timm's mode "pixel"; arXiv 1708.04896).

    Boxes cover 2 to 33% of the image; the logarithm of their height over width is uniform, as in timm.

    Args:
        probability: Fraction of the images that lose a box.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """In place."""
        rows = _chosen(torch.rand(len(images)) < self.probability, images.device)
        if len(rows):
            some = images[rows]
            inside = _boxes(len(rows), images.shape[-2], images.shape[-1]).to(images.device, non_blocking=True)
            images[rows] = torch.where(inside[:, None], torch.randn_like(some), some)
        return images


def _boxes(count: int, height: int, width: int) -> Bool[Tensor, "r h w"]:
    """A random box for each row; the first of ten draws that is smaller than the image."""
    area = (0.02 + (1 / 3 - 0.02) * torch.rand(10, count)) * height * width
    aspect = (math.log(1 / 0.3) * (2 * torch.rand(10, count) - 1)).exp()
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.float().argmax(dim=0), torch.arange(count)
    inside = fits[first][:, None, None]
    for side, extent, shape in ((height, tall[first], (1, -1, 1)), (width, wide[first], (1, 1, -1))):
        start = (torch.rand(count) * (side - extent + 1)).floor()
        place = torch.arange(side).view(shape)
        inside = inside & (place >= start[:, None, None]) & (place < (start + extent)[:, None, None])
    return inside


class RandAugment(nn.Module):
    """rand-m9-mstd0.5-inc1 as timm means it: for every image two of fifteen operations, each with probability a half.

    kornia's own `RandAugment` draws the operations once for the whole batch, never skips one, moves by a tenth of the
    image where timm moves by .45, and knows neither the spread of the magnitude nor the "increasing" ranges. So the
    draws are made here and kornia does the colors. Geometry is bicubic, as
    the originals ask timm for; unlike there, values are not rounded to 8 bits between operations.

    Args:
        magnitude: Mean strength in (0, 10]; its standard deviation is .5.
        mean: Mean of each channel: what geometry uncovers is filled with it.
    """

    fill: Tensor

    def __init__(self, magnitude: float, mean: Sequence[float]):
        super().__init__()
        self.magnitude = magnitude
        self.register_buffer("fill", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """RGB in [0, 1], changed in place; 30 to 60 ms."""
        for _ in range(2):
            chosen = torch.randint(len(COLOR) + len(GEOMETRY), (len(images),))
            chosen[torch.rand(len(images)) < 0.5] = -1
            levels = (torch.randn(len(images)) * 0.5 + self.magnitude).clamp_(0, 10) / 10
            self.apply_operations(images, chosen, levels, torch.rand(len(images)) < 0.5)
        return images

    def apply_operations(
        self,
        images: Float[Tensor, "b c h w"],
        chosen: Int64[Tensor, " b"],
        levels: Float[Tensor, " b"],
        negative: Tensor,
    ) -> None:
        """One operation a row, in place.

        Args:
            images: RGB in [0, 1].
            chosen: Place in COLOR + GEOMETRY, -1 for none; on the CPU like the other two.
            levels: Strength in [0, 1].
            negative: Bool; the rows where a strength that has a sign is negative.
        """
        signed = torch.where(negative, -levels, levels)
        for place, operation in enumerate(COLOR.values()):
            rows = (chosen == place).nonzero().flatten()
            if len(rows):
                at = rows.to(images.device, non_blocking=True)
                images[at] = operation(images[at], levels[rows].to(at.device), signed[rows].to(at.device))
        rows = (chosen >= len(COLOR)).nonzero().flatten()
        if len(rows):
            at = rows.to(images.device, non_blocking=True)
            maps = geometry_maps(chosen[rows] - len(COLOR), signed[rows], images.shape[-2] / images.shape[-1])
            images[at] = warp(images[at], maps.to(at.device, non_blocking=True), self.fill)


Recolor = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(images [r 3 h w] in [0, 1], strength in [0, 1] a row, the same with a sign) -> images."""


def _autocontrast(x: Tensor, level: Tensor, signed: Tensor) -> Tensor:
    """Unlike `kornia.enhance.normalize_min_max`, a channel of one value stays what it is."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-6), x)


def _posterize(x: Tensor, level: Tensor, signed: Tensor) -> Tensor:
    """Keep 4 bits down to none; unlike `kornia.enhance.posterize`, k / 255 counts as k and never as k - 1."""
    step = 2 ** (4 + (level * 4).floor())[:, None, None, None]
    return (x * 255).round().div(step).floor() * step / 255


def _solarize(x: Tensor, level: Tensor, signed: Tensor) -> Tensor:
    return enhance.solarize(x, (256 - (level * 256).floor() - 0.5) / 255)


def _solarize_add(x: Tensor, level: Tensor, signed: Tensor) -> Tensor:
    added = ((level * 110).floor() / 255)[:, None, None, None]
    return torch.where(x < 127.5 / 255, (x + added).clamp(max=1), x)


def _factor(signed: Tensor) -> Tensor:
    """1 leaves the image as it is; .1 to 1.9 at full strength."""
    return (1 + 0.9 * signed).clamp_min(0.1)


COLOR: dict[str, Recolor] = {
    "AutoContrast": _autocontrast,
    "Equalize": lambda x, level, signed: enhance.equalize(x),
    "Invert": lambda x, level, signed: enhance.invert(x),
    "PosterizeIncreasing": _posterize,
    "SolarizeIncreasing": _solarize,
    "SolarizeAdd": _solarize_add,
    "ColorIncreasing": lambda x, _, signed: enhance.adjust_saturation_with_gray_subtraction(x, _factor(signed)),
    "ContrastIncreasing": lambda x, _, signed: enhance.adjust_contrast_with_mean_subtraction(x, _factor(signed)),
    "BrightnessIncreasing": lambda x, _, signed: enhance.adjust_brightness_accumulative(x, _factor(signed)),
    "SharpnessIncreasing": lambda x, _, signed: enhance.sharpness(x, _factor(signed)),
}
"""RandAugment's color operations, by timm's names."""


def _flip_rows(images: Tensor, flip: Tensor) -> Tensor:
    """Choose each row from the images or their mirrors: six times the speed of `torch.where`, and no wait for a GPU."""
    b = len(images)
    return torch.cat([images, hflip(images)]).index_select(0, torch.arange(b, device=images.device) + b * flip)


def _chosen(rows: Tensor, device: torch.device) -> Tensor:
    """Indices of the rows that are True, found on the CPU: asking a GPU would wait for it."""
    return rows.nonzero().flatten().to(device, non_blocking=True)


def _need_rgb(channels: int, **stages: bool) -> None:
    for key, on in stages.items():
        if on and channels != 3:
            raise UserError(
                key, f"{key} needs images of 3 channels, these have {channels}", f"turn {key} off in the recipe"
            )
