"""An encoder to look into, and images as it takes them."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mae_kit.data.loading.images import load_images
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import Encoder
from mae_kit.weights.recognize import load_encoder

BATCH = 64


class Eye:
    """An encoder as it was saved, on the machine's accelerator if it has one.

    Args:
        path: A run folder, or its encoder.safetensors with encoder.json beside it.

    Raises:
        UserError: There is none, or it is of a kind that no objective trains.

    Attributes:
        objective: What it was pretrained with.
    """

    def __init__(self, path: Path):
        encoder = load_encoder(path)
        config = encoder.pretrained_cfg
        self.objective: str = config.objective
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.encoder: Encoder = encoder.to(self.device)
        self.normalize = Normalize(config.mean, config.std).to(self.device)

    def load(self, images: Place, count: int) -> tuple[UInt8[Tensor, "b c h w"], list[str]]:
        """Central crops of images at the encoder's size, and their names."""
        return load_images(images, self.encoder.image_size, self.encoder.channels, limit=count)

    def parts(self, images: UInt8[Tensor, "b c h w"], size: int = BATCH) -> Iterator[Float[Tensor, "p c h w"]]:
        """Normalized images on the encoder's device, so many at a time."""
        return (self.normalize(part.to(self.device)) for part in images.split(size))

    def patch_tokens(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """What comes out of each cell, which is a patch in a ViT; nothing hidden."""
        with torch.no_grad():
            tokens = [self.encoder(part)[:, self.encoder.prefix :] for part in self.parts(images)]
        return torch.cat(tokens).float()
