"""Mixup, CutMix and smoothed targets, one ratio for 32 images: timm's `Mixup` in batch mode on one GPU of MAE's.

kornia's `RandomMixUpV2` and `RandomCutMixV2` return label pairs of two different shapes and know no smoothing.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

GROUP = 32  # images of one GPU in MAE's fine-tuning, which share a ratio


def soft_targets(labels: Int64[Tensor, " b"], classes: int, smoothing: float) -> Float[Tensor, "b k"]:
    """One row a label, 1 - smoothing + smoothing / classes at the label and smoothing / classes elsewhere."""
    return one_hot(labels, classes).float().mul_(1 - smoothing).add_(smoothing / classes)


def soft_sets(labels: Bool[Tensor, "b k"], smoothing: float) -> Float[Tensor, "b k"]:
    """Each class a question of its own: 1 - smoothing / 2 where it is there and smoothing / 2 where not, so that a
    probability of .5 stays what divides yes from no.
    """
    return labels.float().mul_(1 - smoothing).add_(smoothing / 2)


class Mixing:
    """Mix each image, and its target, with the image at the mirrored place of its group of 32.

    Args:
        mixup: Alpha of Mixup's Beta(alpha, alpha) (arXiv 1710.09412); 0 turns it off.
        cutmix: Alpha of CutMix (arXiv 1905.04899); 0 turns it off.
    """

    def __init__(self, mixup: float = 0.8, cutmix: float = 1.0):
        self.mixup, self.cutmix = mixup, cutmix
        self.switch = 0.5 if mixup and cutmix else float(cutmix > 0)  # to CutMix (main_finetune.py)

    def __call__(
        self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b k"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        """Mixed images and targets; the draws come from torch's global generator on the CPU."""
        if not (self.mixup or self.cutmix):
            return images, targets
        mixed = [self._mix(*group) for group in zip(images.split(GROUP), targets.split(GROUP), strict=True)]
        return torch.cat([image for image, _ in mixed]), torch.cat([target for _, target in mixed])

    def _mix(
        self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b k"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        cut = _uniform() < self.switch
        ratio = _beta(self.cutmix if cut else self.mixup)
        images, ratio = _paste_box(images, ratio) if cut else (_blend(images, ratio), ratio)
        return images, _blend(targets, ratio)


def _blend(x: Float[Tensor, "b ..."], ratio: float) -> Float[Tensor, "b ..."]:
    return x.mul(ratio).add_(x.flip(0), alpha=1 - ratio)


def _paste_box(images: Float[Tensor, "b c h w"], ratio: float) -> tuple[Float[Tensor, "b c h w"], float]:
    """Paste one box of about 1 - ratio of the area; returns the ratio that is left where the border clips the box."""
    height, width = images.shape[-2:]
    (top, bottom), (left, right) = (_cut(side, math.sqrt(1 - ratio)) for side in (height, width))
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _cut(side: int, fraction: float) -> tuple[int, int]:
    """An interval of about fraction * side pixels around a uniform center, clipped to the image."""
    half = int(side * fraction) // 2
    center = int(_uniform() * side)
    return max(0, center - half), min(side, center + half)


def _uniform() -> float:
    return torch.rand(()).item()


def _beta(alpha: float) -> float:
    return torch.distributions.Beta(alpha, alpha).sample().item()
