"""The other side of the comparison: transformers' ViTMAE with our weights, and the usual input pipeline."""

import io
import re
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from mae_kit.data.index.open import Index
from mae_kit.data.transforms.augment import IMAGENET_MEAN, IMAGENET_STD
from mae_kit.objectives import MAE

_NAMES = (
    (r"^encoder\.model\.(cls_token)", r"vit.embeddings.\1"),
    (r"^encoder\.model\.pos_embed", "vit.embeddings.position_embeddings"),
    (r"^encoder\.model\.patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
    (r"^encoder\.model\.blocks\.", "vit.layers."),
    (r"^encoder\.model\.norm\.", "vit.layernorm."),
    (r"^decoder\.blocks\.", "decoder.decoder_layers."),
    (r"^decoder\.(pos_embed|embed|norm|pred)\b", r"decoder.decoder_\1"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
)


def same_model(mae: MAE) -> Any:
    """Transformers' model of the same size with the same weights: left to itself it starts with positions of zero.

    Args:
        mae: With a square image and a square patch.
    """
    encoder, decoder = mae.encoder.model, mae.decoder
    block: Any = encoder.blocks[0]
    decoder_block: Any = decoder.blocks[0]
    config = ViTMAEConfig(
        hidden_size=mae.encoder.dim,
        num_hidden_layers=len(encoder.blocks),
        num_attention_heads=block.attn.num_heads,
        intermediate_size=block.mlp.fc1.out_features,
        image_size=mae.encoder.image_size[0],
        patch_size=mae.encoder.patch_size[0],
        num_channels=mae.encoder.channels,
        decoder_hidden_size=decoder.embed.out_features,
        decoder_num_hidden_layers=len(decoder.blocks),
        decoder_num_attention_heads=decoder_block.attn.num_heads,
        decoder_intermediate_size=decoder_block.mlp.fc1.out_features,
        mask_ratio=mae.mask_ratio,
        norm_pix_loss=mae.norm_pix_loss,
        layer_norm_eps=1e-6,
    )
    theirs = ViTMAEForPreTraining(config)
    theirs.load_state_dict(_their_tensors(mae.state_dict()), strict=True)
    return theirs.train()


def _their_tensors(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if ".attn.qkv." in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace(".attn.qkv.", f".attention.{letter}_proj.")] = part.clone()
        else:
            found[name] = tensor.clone()
    return found


def usual_crop(size: int) -> transforms.RandomResizedCrop:
    """MAE's crop by torchvision."""
    return transforms.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC)


def open_with_pillow(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


class UsualImages(Dataset[Tensor]):
    """Pillow and torchvision, sample by sample, over the same bytes.

    Args:
        index: The shards.
        size: Pixels a side.
    """

    def __init__(self, index: Index, size: int):
        self.index = index
        flip, normalize = transforms.RandomHorizontalFlip(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.transform: Any = transforms.Compose([usual_crop(size), flip, transforms.ToTensor(), normalize])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Tensor:
        return self.transform(open_with_pillow(self.index.read(row)))


def usual_batches(index: Index, size: int, batch: int, workers: int) -> Iterator[Tensor]:
    """Shuffled float batches without end."""
    loader = DataLoader(
        UsualImages(index, size),
        batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,  # none start in the middle of a turn
    )
    while True:
        yield from loader
