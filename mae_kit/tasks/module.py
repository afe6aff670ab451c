"""A classifier in training."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from mae_kit.data.loading.batch import Batch
from mae_kit.data.transforms.augment import IMAGENET_MEAN, FinetuneAugment
from mae_kit.encoders import create_encoder
from mae_kit.objectives.igpt import classify_and_predict
from mae_kit.tasks.classifier import classifier_from
from mae_kit.tasks.config import Augmentation
from mae_kit.tasks.supervised import SupervisedModule
from mae_kit.training.config import Optimization
from mae_kit.training.module import statistics
from mae_kit.weights.config import ModelConfig, parse_config


class FinetuneModule(SupervisedModule):
    """Fine-tune a classifier from labeled images, uint8 in [0, 255] or float in [0, 1].

        module = FinetuneModule(load_encoder("runs/tiny"), num_classes=10, lr=1e-3, layer_decay=0.75)
        Trainer(max_epochs=10).fit(module, ShardDataModule("shards", batch_size=256, image_size=64))

    Validation logs `val_loss`, and `val_top1` where images have one label each.

    Args:
        encoder: A pretrained encoder, whose weights are copied under a new head; or a classifier with `num_classes`
            outputs, trained as it is: parts that need no gradients stay in eval mode.
        num_classes: Number of classes.
        lr: Absolute learning rate.
        base_lr: Learning rate for a batch of 256 images, in place of `lr`.
        mean: Mean of each channel in [0, 1]; by default the encoder's, else the data module's, or ImageNet's.
        std: Standard deviation of each channel in [0, 1].
        multi_label: Train one binary cross-entropy per class; labels are then bool [b k].
        augmentation: Augmentation of a batch on the device (`Augmentation`), or its fields.
        drop_path: Stochastic depth rate of the last block, 0 to 1.
        ema: Decay of an exponential moving average (EMA) of the weights, which is scored and saved in their place; None
            for no EMA. It warms up to this value, see `ema_decay`.
        generative: Weight of iGPT's pretraining loss next to the classification loss; 0 for classification alone.
        seed: Seed of everything random.
        **optimization: Further fields of `Optimization`, such as layer_decay.

    Raises:
        UserError: Unusable settings; float images outside [0, 1].
    """

    def __init__(
        self,
        encoder: nn.Module | dict[str, Any],
        num_classes: int,
        lr: float | None = None,
        base_lr: float | None = None,
        *,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        multi_label: bool = False,
        augmentation: Augmentation | dict[str, Any] = Augmentation(),
        drop_path: float = 0.0,
        ema: float | None = None,
        generative: float = 0.0,
        seed: int = 0,
        **optimization: Any,
    ):
        model, config = _classifier(encoder, num_classes, drop_path)
        super().__init__(model, Optimization.of(lr, base_lr, **({"betas": (0.9, 0.999)} | optimization)), ema, seed)
        mean, std = (mean, std) if mean or not config else (config["mean"], config["std"])
        self._given: dict[str, Any] = {"mean": mean, "std": std}
        self.augmentation = Augmentation(**augmentation) if isinstance(augmentation, dict) else augmentation
        self.num_classes, self.generative = num_classes, generative
        self.classify_and_predict: Callable[..., Any] = classify_and_predict
        self.loss_of_logits = F.binary_cross_entropy_with_logits if multi_label else F.cross_entropy
        self.top1 = None if multi_label else MulticlassAccuracy(num_classes, average="micro")
        own = {"num_classes": num_classes, "multi_label": multi_label, "drop_path": drop_path, "ema": ema, "seed": seed}
        self.save_hyperparameters(
            ({"encoder": config} if config else {})
            | {**own, **self._given, "lr": lr, "base_lr": base_lr, "augmentation": asdict(self.augmentation)}
            | optimization
        )
        if mean is not None:
            self._normalize_with(mean, std)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._normalize_with(self._given["mean"], self._given["std"], getattr(self.trainer, "datamodule", None))

    def _normalize_with(self, mean: list[float] | None, std: list[float] | None, data: Any = None) -> None:
        channels = len(mean or getattr(data, "mean", IMAGENET_MEAN))
        mean, std = statistics(mean, std, channels, data)
        self.augment = FinetuneAugment(mean, std, self.num_classes, **asdict(self.augmentation))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        images, targets = self.augment(batch.images, batch.labels)
        if not self.generative:
            return {"loss": self.loss_of_logits(self.model(images).float(), targets)}
        logits, generative = self.classify_and_predict(self.model, images, batch.seeds)
        classes = self.loss_of_logits(logits.float(), targets)
        return {"loss": classes + self.generative * generative, "class_loss": classes, "generative_loss": generative}

    def compile_model(self) -> None:
        if self.generative:
            self.classify_and_predict = torch.compile(self.classify_and_predict)
        else:
            super().compile_model()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        batch = self.as_batch(batch)
        logits = self.scored()(self.augment.normalize(batch.images)).float()
        labels = batch.labels.float() if self.top1 is None else batch.labels
        self.log("val_loss", self.loss_of_logits(logits, labels), batch_size=len(labels), sync_dist=True)
        if self.top1 is not None:
            self.top1(logits, labels)
            self.log("val_top1", self.top1, batch_size=len(labels))


def _classifier(
    encoder: nn.Module | dict[str, Any], num_classes: int, drop_path: float
) -> tuple[nn.Module, dict[str, Any] | None]:
    """The classifier, and the config of its encoder; None where a classifier was given."""
    if isinstance(encoder, dict):
        config = parse_config(encoder)
        source: Any = create_encoder(config.model, config.model_args, config.image_size)
    elif hasattr(encoder, "model_args"):
        config, source = _config_of(encoder), encoder
    else:
        return encoder, None
    return classifier_from(source, num_classes, drop_path), asdict(config)


def _config_of(encoder: Any) -> ModelConfig:
    if config := getattr(encoder, "pretrained_cfg", None):
        return config
    mean, std = statistics(None, None, encoder.channels)
    return ModelConfig(encoder.name, encoder.model_args, mean, std, "", 0, encoder.image_size)
