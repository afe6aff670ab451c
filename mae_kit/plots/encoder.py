"""A frozen encoder to look into, and images prepared for it."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Num
from torch import Tensor

from mae_kit.data.loading.images import load_images
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.scale import Scale
from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import Encoder
from mae_kit.parallel.device import frozen_device
from mae_kit.weights.recognize import load_encoder

BATCH = 64


class FrozenEncoder:
    """A loaded encoder with its normalization, on the GPU if there is one.

    Args:
        path: As of `load_encoder`, whose errors it raises.

    Attributes:
        objective: What it was pretrained with.
    """

    def __init__(self, path: Path):
        encoder = load_encoder(path)
        config = encoder.pretrained_cfg
        self.objective: str = config.objective
        self.scale: Scale | None = config.scale
        self.device = frozen_device()
        self.encoder: Encoder = encoder.to(self.device)
        self.normalize = Normalize(config.mean, config.std).to(self.device)

    def load(self, images: Place, count: int) -> tuple[Num[Tensor, "b c h w"], list[str]]:
        """Load center crops at the encoder's size; returns also their names."""
        return load_images(images, self.encoder.image_size, self.encoder.channels, count, self.scale)

    def parts(self, images: Num[Tensor, "b c h w"], size: int = BATCH) -> Iterator[Float[Tensor, "p c h w"]]:
        """Normalize images on the encoder's device, in batches."""
        return (self.normalize(part.to(self.device)) for part in images.split(size))

    def patch_tokens(self, images: Num[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Encode whole images; returns the output of each cell, which is a patch in a ViT."""
        with torch.no_grad():
            tokens = [self.encoder(part)[:, self.encoder.prefix :] for part in self.parts(images)]
        return torch.cat(tokens).float()
