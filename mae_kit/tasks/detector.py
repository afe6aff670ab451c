"""A detector and its file: what it is made of, and how boxes come out of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor, nn
from torchvision.ops import box_convert

from mae_kit.data.transforms.augment import Normalize
from mae_kit.data.transforms.paired import padded
from mae_kit.files.tensor_file import DETECTOR, save_kind
from mae_kit.tasks.detr import Detr
from mae_kit.tasks.headed import HeadedConfig, load_headed
from mae_kit.tasks.set_criterion import Found
from mae_kit.tasks.yolos import Yolos
from mae_kit.weights.config import parse_labeled
from mae_kit.weights.detectors import Published, is_detector, read_detector, with_counters, write
from mae_kit.weights.files import read_raw

Name = Literal["detr", "yolos"]
Detector = Detr | Yolos
DETECTORS: dict[str, type[Detr] | type[Yolos]] = {"detr": Detr, "yolos": Yolos}


@dataclass(frozen=True)
class DetectorConfig(HeadedConfig):
    """What rebuilds a detector; the `image_size` of its model is what images are fitted into.

    Attributes:
        detector: detr or yolos.
        parts: Arguments of `Detr` or `Yolos`, apart from backbone and classes.
    """

    detector: str
    parts: Mapping[str, Any] = field(default_factory=dict)

    def build(self, backbone: nn.Module) -> Detector:
        return DETECTORS[self.detector](backbone, len(self.model.classes), **self.parts)


class Detections(NamedTuple):
    """The boxes of one image, the most certain first.

    Attributes:
        boxes: Left, top, right and bottom edge, in pixels.
        classes: The class of each.
        scores: Its probability.
    """

    boxes: Float[Tensor, "q 4"]
    classes: Int64[Tensor, " q"]
    scores: Float[Tensor, " q"]

    def above(self, score: float) -> "Detections":
        """Those that are at least so certain."""
        return Detections(*(column[self.scores >= score] for column in self))


def probabilities(model: Detector, logits: Float[Tensor, "b q _"]) -> Float[Tensor, "b q k"]:
    """Of each class, from 0 to 1."""
    return logits.sigmoid() if model.focal else logits.softmax(dim=-1)[..., :-1]


def detections(model: Detector, found: Found, size: tuple[int, int]) -> list[Detections]:
    """Of each image its boxes in pixels of the size that images were fitted into.

    Softmax gives each query its likeliest class (DETR); sigmoid gives as many boxes as there are queries to the pairs
    of a query and a class that are most likely (Deformable DETR).
    """
    scores = probabilities(model, found.logits.float())
    queries, classes = scores.shape[1:]
    if model.focal:
        best, pairs = scores.flatten(1).topk(queries, dim=1)
        label, query = pairs % classes, pairs // classes
    else:
        best, label = scores.max(dim=-1)
        best, query = best.sort(dim=1, descending=True)
        label = label.gather(1, query)
    edges = in_pixels(found.boxes, size).gather(1, query[..., None].expand(-1, -1, 4))
    return [Detections(*columns) for columns in zip(edges, label, best, strict=True)]


def in_pixels(boxes: Float[Tensor, "*b 4"], size: tuple[int, int]) -> Float[Tensor, "*b 4"]:
    """Edges of boxes in 0..1, cut at those of the image."""
    edges = box_convert(boxes.float(), "cxcywh", "xyxy").clamp(0, 1)
    return edges * edges.new_tensor([size[1], size[0]] * 2)


@torch.no_grad()
def detect(
    model: Detector, config: DetectorConfig, images: Num[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"]
) -> list[Detections]:
    """Find objects in images that were fitted into the detector's size; boxes in pixels of that.

    Args:
        model: In eval mode.
        config: Its record.
        images: Padded on the right and below.
        sizes: Height and width of each without the padding.
    """
    found = model(prepared(model, config, images, sizes))[-1]
    return [Detections(*(column.cpu() for column in one)) for one in detections(model, found, config.model.size)]


def prepared(
    model: Detector, config: DetectorConfig, images: Num[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"]
) -> Float[Tensor, "b c h w"]:
    """Images normalized, on the detector's device, and 0 where they are padded; arguments as of `detect`."""
    device = next(model.parameters()).device
    normalize = Normalize(config.model.mean, config.model.std).to(device)
    return padded(normalize, images.to(device), sizes)


def save_detector(folder: Path, detector: Detector, config: DetectorConfig) -> Path:
    """Write detector.safetensors into a folder that exists."""
    return save_kind(folder, DETECTOR, detector.state_dict(), asdict(config))


def load_detector(path: Path | str) -> tuple[Detector, DetectorConfig]:
    """Rebuild the detector of a run, or a YOLOS or DETR that transformers has written, in eval mode.

    Args:
        path: A fine-tuning run, or its detector.safetensors; or a folder with config.json and model.safetensors.

    Raises:
        UserError: `detector.missing`, `detector.kind`, `detector.layout` or `detector.damaged`.
    """
    if is_detector(Path(path)):
        found = read_detector(read_raw(Path(path)))
        config = DetectorConfig(found.model, found.detector, found.parts)
        detector = config.rebuild(DETECTOR.fix)
        detector.load_state_dict(with_counters(found.tensors, detector.state_dict()), strict=True)
        return detector.eval(), config
    return load_headed(path, DETECTOR, _parse)


def published(detector: Detector, config: DetectorConfig) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """What `write_raw` writes into a folder that transformers reads.

    Raises:
        UserError: transformers' class has no place for it.
    """
    return write(Published(config.detector, config.model, dict(config.parts), detector.state_dict()))


def _parse(content: dict[str, Any]) -> DetectorConfig:
    if content["detector"] not in DETECTORS:
        raise ValueError(f"no detector {content['detector']}")
    return DetectorConfig(parse_labeled(content["model"]), content["detector"], dict(content["parts"]))
