"""A segmenter: any timm backbone with maps of features, and a head that gives every pixel logits."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mae_kit.encoders.timm_models import build
from mae_kit.errors import UserError
from mae_kit.files.tensor_file import SEGMENTER, damages, read_kind, save_kind
from mae_kit.weights.config import ModelConfig, parse_config

Head = Literal["linear", "pyramid"]
FINEST = 4  # pixels of a cell of a pyramid at least


class Segmenter(nn.Module):
    """A backbone and a head.

    Args:
        backbone: A timm model without its head that has `forward_intermediates`.
        classes: Number of classes.
        head: linear = a layer on the last map; pyramid = `PyramidHead` on the maps of all stages, of a backbone of one
            stage (ViT, BEiT) on `SimplePyramid` of its last map.
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
        self.levels = list(last.values()) if head == "pyramid" else list(last.values())[-1:]
        widths = [self.backbone.feature_info[level]["num_chs"] for level in self.levels]
        _freeze_unused(self.backbone, self.plain)
        simple = head == "pyramid" and self.plain
        self.pyramid = SimplePyramid(widths[0], next(iter(last))) if simple else nn.Identity()
        if isinstance(self.pyramid, SimplePyramid):
            widths = self.pyramid.widths
        if head == "pyramid":
            self.head: nn.Module = PyramidHead(widths, classes, width)
        else:
            self.head = LinearHead(widths[0], classes)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Logits of each pixel of normalized images."""
        return F.interpolate(self.head(self.maps(images)), size=images.shape[2:], mode="bilinear")

    def maps(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The maps that the head takes, finest first."""
        norm = {"norm": True} if self.plain else {}
        found = self.backbone.forward_intermediates(
            images, indices=self.levels, output_fmt="NCHW", intermediates_only=True, **norm
        )
        return self.pyramid(found) if self.plain else found


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
        return [scale(maps[-1]) for scale in self.scales]


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


def _freeze_unused(backbone: Any, plain: bool) -> None:
    """What is behind the maps learns nothing."""
    for name in ("head", "fc_norm", "attn_pool", *(() if plain else ("norm",))):
        part = getattr(backbone, name, None)
        if part is not None:
            part.requires_grad_(False)


@dataclass(frozen=True)
class SegmenterConfig:
    """What rebuilds a segmenter.

    Attributes:
        model: The record of its backbone and classes; `image_size` is that of the windows.
        head: linear or pyramid.
        width: Channels of the pyramid.
        overlap: Fraction of a window that the next one covers, too.
    """

    model: ModelConfig
    head: Head
    width: int
    overlap: float

    @property
    def classes(self) -> list[str]:
        return self.model.classes

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
    config, tensors = read_kind(path, SEGMENTER, _parse)
    with damages(path, SEGMENTER):
        backbone = build(config.model.model, config.model.model_args, SEGMENTER.fix, num_classes=0)
        segmenter = config.build(backbone)
        segmenter.load_state_dict(tensors, strict=True)
    return segmenter.eval(), config


def _parse(content: dict[str, Any]) -> SegmenterConfig:
    model = parse_config(content["model"])
    if not model.image_size or not model.classes:
        raise ValueError("it has no image size or no classes")
    return SegmenterConfig(model, str(content["head"]), int(content["width"]), float(content["overlap"]))  # type: ignore[arg-type]
