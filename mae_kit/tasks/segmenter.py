"""A segmenter: any timm backbone with maps of features, and a head that gives every pixel logits."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mae_kit.errors import UserError
from mae_kit.files.tensor_file import SEGMENTER, save_kind
from mae_kit.tasks.headed import HeadedConfig, load_headed
from mae_kit.weights.config import parse_labeled

Head = Literal["linear", "pyramid", "upernet"]
FINEST = 4  # pixels of a cell of a pyramid at least
POOLS = 1, 2, 3, 6  # cells a side of the coarsest map, pooled


class Segmenter(nn.Module):
    """A backbone and a head.

    Args:
        backbone: A timm model without its head that has `forward_intermediates`.
        classes: Number of classes.
        head: linear = a layer on the last map; pyramid = `PyramidHead` on the maps of all stages, of a backbone of one
            stage (ViT, BEiT) on `SimplePyramid` of its last map; upernet = `UperHead` on the same, of one stage on
            maps of blocks that lie evenly over its depth.
        width: Channels of the pyramid.

    Raises:
        UserError: The backbone has no maps of features.
    """

    def __init__(self, backbone: nn.Module, classes: int, head: Head = "pyramid", width: int = 128):
        super().__init__()
        self.backbone: Any = backbone
        if not hasattr(backbone, "forward_intermediates"):
            what = f"timm's {type(backbone).__name__} has no feature maps"
            raise UserError("model.name.maps", what, "choose a ViT, BEiT, Swin, ConvNeXt, Hiera or ResNet")
        last = {level["reduction"]: number for number, level in enumerate(self.backbone.feature_info)}
        self.plain = len(last) == 1
        self.levels = list(last.values())[-1:] if head == "linear" else list(last.values())
        widths = [self.backbone.feature_info[level]["num_chs"] for level in self.levels]
        _freeze_unused(self.backbone, self.plain)
        self.pyramid: nn.Module = nn.Identity()
        if head != "linear" and self.plain:
            self.pyramid = SimplePyramid(widths[0], next(iter(last)))
            widths = self.pyramid.widths
            if head == "upernet":
                self.levels = _evenly(self.levels[0] + 1, len(widths))
        heads = {"pyramid": PyramidHead, "upernet": UperHead}
        self.head = LinearHead(widths[0], classes) if head == "linear" else heads[head](widths, classes, width)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Logits of each pixel of normalized images."""
        return F.interpolate(self.head(self.maps(images)), size=images.shape[2:], mode="bilinear")

    def maps(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The maps that the head takes, finest first."""
        norm = {"norm": True} if self.plain else {}
        levels = sorted(set(self.levels))  # of few blocks one is taken several times
        found = self.backbone.forward_intermediates(
            images, indices=levels, output_fmt="NCHW", intermediates_only=True, **norm
        )
        maps = [found[levels.index(level)] for level in self.levels]
        return self.pyramid(maps) if self.plain else maps


class LinearHead(nn.Module):
    """Logits from the last map alone, after a batch normalization of its features (DINOv2, section 7.4)."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm, self.classify = nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Float[Tensor, "b d y x"]]) -> Float[Tensor, "b k y x"]:
        return self.classify(self.norm(maps[-1]))


class SimplePyramid(nn.Module):
    """Maps of several resolutions from the last map of a ViT (ViTDet, arXiv 2203.16527, section 3).

    They are at 4, 2, 1 and 1/2 of its resolution; without the first where a cell of it is finer than `FINEST` pixels.

    Attributes:
        widths: Channels of each.
    """

    def __init__(self, dim: int, patch: int):
        super().__init__()
        again = nn.ConvTranspose2d(dim // 2, dim // 4, 2, 2)
        quadruple = nn.Sequential(nn.ConvTranspose2d(dim, dim // 2, 2, 2), LayerNorm2d(dim // 2), nn.GELU(), again)
        double = nn.ConvTranspose2d(dim, dim // 2, 2, 2)
        first = 0 if patch >= 4 * FINEST else 1
        self.scales = nn.ModuleList([quadruple, double, nn.Identity(), nn.MaxPool2d(2, ceil_mode=True)][first:])
        self.widths = [dim // 4, dim // 2, dim, dim][first:]

    def forward(self, maps: list[Float[Tensor, "b d y x"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """Of one map all, or of as many maps one each."""
        own = maps if len(maps) > 1 else maps * len(self.scales)
        return [scale(each) for scale, each in zip(self.scales, own, strict=True)]


class PyramidHead(nn.Module):
    """A feature pyramid from the coarsest map to the finest, on which pixels are classified (arXiv 1901.02446).

    Args:
        widths: Channels of the maps, finest first.
        classes: Number of classes.
        width: Channels of the pyramid.
    """

    def __init__(self, widths: list[int], classes: int, width: int = 128):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(each, width, 1), LayerNorm2d(width)) for each in widths)
        self.smooth = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), LayerNorm2d(width), nn.GELU())
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b k y x"]:
        merged = self.lateral[-1](maps[-1])
        for lateral, finer in zip(list(self.lateral)[-2::-1], maps[-2::-1], strict=True):
            merged = lateral(finer) + F.interpolate(merged, size=finer.shape[2:], mode="bilinear")
        return self.classify(self.smooth(merged))


class UperHead(nn.Module):
    """UPerNet (arXiv 1807.10221): the coarsest map with its pooled averages, a feature pyramid, and all of it fused.

    With layer normalization in place of batch normalization, so that a batch may be one crop.

    Args:
        widths: Channels of the maps, finest first.
        classes: Number of classes.
        width: Channels of the pyramid.
    """

    def __init__(self, widths: list[int], classes: int, width: int = 128):
        super().__init__()
        self.pooled = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(n), _conv(widths[-1], width, 1)) for n in POOLS)
        self.bottleneck = _conv(widths[-1] + len(POOLS) * width, width, 3)
        self.lateral = nn.ModuleList(_conv(each, width, 1) for each in widths[:-1])
        self.smooth = nn.ModuleList(_conv(width, width, 3) for _ in widths[:-1])
        self.fuse = _conv(len(widths) * width, width, 3)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b k y x"]:
        last = maps[-1]
        pools = [_resized(pool(last), last) for pool in self.pooled]
        merged = self.bottleneck(torch.cat([last, *pools], dim=1))
        found = [merged]
        for lateral, smooth, finer in zip(list(self.lateral)[::-1], list(self.smooth)[::-1], maps[-2::-1], strict=True):
            merged = lateral(finer) + _resized(merged, finer)
            found.append(smooth(merged))
        return self.classify(self.fuse(torch.cat([_resized(each, maps[0]) for each in found], dim=1)))


def _conv(channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False), LayerNorm2d(width), nn.ReLU()
    )


def _resized(map: Float[Tensor, "b d _ _"], like: Float[Tensor, "b _ y x"]) -> Float[Tensor, "b d y x"]:
    return F.interpolate(map, size=like.shape[2:], mode="bilinear")


def _evenly(depth: int, count: int) -> list[int]:
    """Numbers of so many blocks that lie evenly over a depth, the last one among them."""
    return [max(0, round(depth * (number + 1) / count) - 1) for number in range(count)]


def _freeze_unused(backbone: Any, plain: bool) -> None:
    """What is behind the maps learns nothing."""
    for name in ("head", "fc_norm", "attn_pool", *(() if plain else ("norm",))):
        part = getattr(backbone, name, None)
        if part is not None:
            part.requires_grad_(False)


@dataclass(frozen=True)
class SegmenterConfig(HeadedConfig):
    """What rebuilds a segmenter; the `image_size` of its model is that of the windows.

    Attributes:
        head: linear, pyramid or upernet.
        width: Channels of the pyramid.
        overlap: Fraction of a window that the next one covers, too.
    """

    head: Head
    width: int
    overlap: float

    def build(self, backbone: nn.Module) -> Segmenter:
        return Segmenter(backbone, len(self.model.classes), self.head, self.width)


def save_segmenter(folder: Path, segmenter: Segmenter, config: SegmenterConfig) -> Path:
    """Write segmenter.safetensors into a folder that exists."""
    return save_kind(folder, SEGMENTER, segmenter.state_dict(), asdict(config))


def load_segmenter(path: Path | str) -> tuple[Segmenter, SegmenterConfig]:
    """Rebuild the segmenter of a run, in eval mode.

    Args:
        path: A fine-tuning run, or its segmenter.safetensors.

    Raises:
        UserError: `segmenter.missing`, `segmenter.kind`, or `segmenter.damaged`.
    """
    return load_headed(path, SEGMENTER, _parse)


def _parse(content: dict[str, Any]) -> SegmenterConfig:
    model = parse_labeled(content["model"])
    return SegmenterConfig(model, str(content["head"]), int(content["width"]), float(content["overlap"]))  # type: ignore[arg-type]
