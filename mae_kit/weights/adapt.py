"""Weights for images of another size, or of other channels, than they were trained on."""

from dataclasses import replace
from typing import Any, Literal

import torch
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mae_kit.encoders.patches import grid_of
from mae_kit.encoders.position_embeddings import resample_offsets, resample_positions, sincos_positions
from mae_kit.errors import UserError
from mae_kit.weights.names import Tensors
from mae_kit.weights.pretrained import Pretrained, empty_encoder

ChannelMode = Literal["mean", "repeat"]
OFFSETS = "relative_position_bias_table"


def resized(weights: Pretrained, size: tuple[int, int]) -> Pretrained:
    """For images of another size: the encoder's positions resampled, the decoder's the sin-cos of its grid.

    Args:
        weights: Of a plain vision transformer, a BEiT, or a model for any size, whose record alone changes.
        size: Height and width in pixels.

    Raises:
        UserError: It has no position table, or the patch does not divide the size.
    """
    model = empty_encoder(weights)
    if not model.pretrained_cfg["fixed_input_size"]:
        return _with(weights, {}, size)
    if not has_positions(model):
        raise UserError(
            "img_size.fixed",
            f"{weights.config.model} has no position embeddings to interpolate",
            "leave out --img-size",
        )
    embed = model.patch_embed
    old, new = tuple(embed.grid_size), grid_of(size, tuple(embed.patch_size))
    tensors = on_grid(model, weights.tensors, new)
    decoder = weights.decoder
    if decoder and old != new:
        table = sincos_positions(decoder.dim, new, model.num_prefix_tokens)
        decoder = decoder._replace(tensors={**decoder.tensors, "pos_embed": table})
    args = {"img_size": size[0] if size[0] == size[1] else list(size)}
    return _with(weights, args, size, tensors=tensors, decoder=decoder)


def has_positions(model: Any) -> bool:
    """Whether a timm model has tables that `on_grid` resamples."""
    return isinstance(model, Beit) or (isinstance(model, VisionTransformer) and isinstance(model.pos_embed, Tensor))


def on_grid(model: Any, tensors: Tensors, grid: tuple[int, int]) -> Tensors:
    """Tensors for another grid of patches, as the papers fine-tune: a ViT's table bicubic, BEiT's offsets as splines.

    Args:
        model: What they were trained as, with its grid.
        tensors: Under timm's names.
        grid: Rows and columns of patches.
    """
    old = tuple(model.patch_embed.grid_size)
    prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
    resampled = {
        name: resample_positions(tensor, old, grid, prefix)
        if name == "pos_embed"
        else resample_offsets(tensor, old, grid)
        for name, tensor in tensors.items()
        if name == "pos_embed" or name.endswith(OFFSETS)
    }
    return {**tensors, **resampled}


def in_windows(model: Any, tensors: Tensors, target: Any) -> Tensors:
    """Tensors for a Swin with windows of other sizes, as SimMIM fine-tunes at 224 px what it trained at 192.

    Args:
        model: What they were trained as, with its windows.
        tensors: Under timm's names.
        target: The same with other windows.
    """
    tables = {name: name.removesuffix(f".{OFFSETS}") for name in tensors if name.endswith(OFFSETS)}
    old, new = ({n: tuple(swin.get_submodule(at).window_size) for n, at in tables.items()} for swin in (model, target))
    return {**tensors, **{name: resample_offsets(tensors[name], old[name], new[name]) for name in tables}}


def rechannelled(weights: Pretrained, channels: int, mode: ChannelMode) -> Pretrained:
    """Change the number of input channels; equal new channels give the features that a gray image gave before.

    Args:
        weights: Of any model whose first layer is a convolution.
        channels: Of the new images.
        mode: "mean" gives every channel the mean of the old kernels; "repeat" gives the old ones in turn, as timm does.

    Raises:
        UserError: It has no such layer.
    """
    if (first := empty_encoder(weights).pretrained_cfg["first_conv"]) is None:
        raise UserError(
            "channels", f"{weights.config.model} has no first convolution to change", "leave out --channels"
        )
    first = f"{first}.weight"
    kernel = weights.tensors[first]
    old = kernel.shape[1]
    tensors = {**weights.tensors, first: _spread(kernel, 1, channels, mode) * (old / channels)}
    decoder = weights.decoder
    if decoder:
        predictions = {
            f"pred.{part}": _channels_last(decoder.tensors[f"pred.{part}"], old, channels, mode)
            for part in ("weight", "bias")
        }
        decoder = decoder._replace(tensors={**decoder.tensors, **predictions})
    config = weights.config
    mean, std = (_spread(torch.tensor(values), 0, channels, mode).tolist() for values in (config.mean, config.std))
    changed = _with(weights, {"in_chans": channels}, config.image_size, tensors=tensors, decoder=decoder)
    rounded = {"mean": [round(v, 6) for v in mean], "std": [round(v, 6) for v in std]}
    return changed._replace(config=replace(changed.config, **rounded))


def _spread(tensor: Tensor, axis: int, channels: int, mode: ChannelMode) -> Tensor:
    if mode == "mean":
        shape = [-1] * tensor.ndim
        shape[axis] = channels
        return tensor.mean(dim=axis, keepdim=True).expand(shape).contiguous()
    return tensor.index_select(axis, torch.arange(channels) % tensor.shape[axis])


def _channels_last(tensor: Tensor, old: int, channels: int, mode: ChannelMode) -> Tensor:
    """What predicts a pixel: rows in the order (p, p, channel)."""
    pixels = tensor.reshape(-1, old, *tensor.shape[1:])
    return _spread(pixels, 1, channels, mode).flatten(0, 1)


def _with(weights: Pretrained, args: dict[str, Any], size: tuple[int, int] | None, **changed: Any) -> Pretrained:
    config = replace(weights.config, model_args=weights.config.model_args | args, image_size=size)
    return weights._replace(config=config, **changed)
