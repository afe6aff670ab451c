"""A classifier as one file: weights under timm's names, and in the header what rebuilds and feeds it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mae_kit.errors import UserError
from mae_kit.tasks.classifier import ModelSpec, build_classifier
from mae_kit.tensor_file import read_header, save_tensors

FILE = "classifier.safetensors"
FORMAT = "mae_kit_classifier"


@dataclass(frozen=True)
class ClassifierConfig:
    """What a classifier needs beside its weights.

    Attributes:
        name: timm's name.
        args: timm's arguments that differ from the name's own.
        classes: Names, in the order of the logits.
        mean: Of each channel, in 0..1.
        std: Of each channel.
        image_size: Height and width in pixels.
        crop_share: Share of the shorter side that the central crop keeps.
        multi_label: Whether an image may have any number of the classes, each with a probability of its own.
    """

    name: str
    args: dict
    classes: list[str]
    mean: list[float]
    std: list[float]
    image_size: tuple[int, int]
    crop_share: float
    multi_label: bool = False


def save_classifier(folder: Path, model: nn.Module, config: ClassifierConfig) -> None:
    """Write the file, and how it pools: that of a ViT or BEiT differs with where its weights came from."""
    content = asdict(config)
    if isinstance(model, VisionTransformer | Beit):
        content["args"] = {**config.args, "global_pool": model.global_pool}
    save_tensors(folder / FILE, model.state_dict(), {FORMAT: json.dumps(content)})


def load_classifier(path: Path) -> tuple[nn.Module, ClassifierConfig]:
    """Rebuild a classifier, ready to predict.

    Args:
        path: A fine-tuning run, or its classifier.safetensors.

    Raises:
        UserError: There is none, or it is a file of another kind.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            "classifier_file.load_classifier",
            f"no {FILE} in {path}",
            "give the folder of a fine-tuning run that has ended",
        )
    metadata = read_header(file, f"give a run folder or its {FILE}")
    if FORMAT not in metadata:
        raise UserError(
            "classifier_file.load_classifier",
            f"{file} is no classifier of mae_kit",
            "give the folder of a fine-tuning run",
        )
    content = json.loads(metadata[FORMAT])
    size = (content["image_size"][0], content["image_size"][1])
    config = ClassifierConfig(**content | {"image_size": size})
    spec = ModelSpec(config.name, config.args)
    model = build_classifier(spec, len(config.classes), None, 0.0, size, len(config.mean)).model
    model.load_state_dict(load_file(file), strict=True)
    return model.eval(), config
