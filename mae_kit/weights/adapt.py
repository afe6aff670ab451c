"""Weights for images of another size, or of other channels, than they were trained on."""

from dataclasses import replace
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mae_kit.data.scale import Scale
from mae_kit.encoders.patches import grid_of, resize_kernel
from mae_kit.encoders.position_embeddings import resample_offsets, resample_positions, sincos_positions
from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.names import Tensors
from mae_kit.weights.pretrained import Decoder, Pretrained, empty_encoder

OFFSETS = "relative_position_bias_table"
KERNEL = "patch_embed.proj.weight"


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
    if not (has_positions(model) or isinstance(model, Eva)):  # whose rotations are those of any grid
        raise UserError("img_size.fixed", f"{weights.config.model} has no position embeddings", "leave out --img-size")
    embed: Any = model.patch_embed
    old, new = tuple(embed.grid_size), grid_of(size, embed.patch_size)
    tensors = on_grid(model, weights.tensors, new)
    decoder = weights.decoder
    if decoder and old != new:
        table = sincos_positions(decoder.dim, new, model.num_prefix_tokens)
        decoder = decoder._replace(tensors={**decoder.tensors, "pos_embed": table})
    args = {"img_size": size[0] if size[0] == size[1] else list(size)}
    return _with(weights, args, size, tensors=tensors, decoder=decoder)


def repatched(weights: Pretrained, patch: tuple[int, int]) -> Pretrained:
    """For patches of another size, in the same grid on images that are larger or smaller by as much.

    Args:
        weights: Of a plain vision transformer, a BEiT, or one with rotary positions.
        patch: Height and width in pixels.

    Raises:
        UserError: Its patches do not come from a single layer.
    """
    model = empty_encoder(weights)
    if not isinstance(model, VisionTransformer | Beit | Eva):
        what = f"the patches of {weights.config.model} do not come from a single layer"
        raise UserError("patch_size", what, "leave out --patch-size")
    old, grid = tuple(model.patch_embed.patch_size), tuple(model.patch_embed.grid_size)
    if old == patch:
        return weights
    size = grid[0] * patch[0], grid[1] * patch[1]
    notes = [*weights.notes, f"patches of {old[0]} x {old[1]} pixels were resized to {patch[0]} x {patch[1]}"]
    if weights.decoder:
        notes.append("the decoder, which predicts patches of the old size, is left out")
    tensors = {**weights.tensors, KERNEL: resize_kernel(weights.tensors[KERNEL], patch)}
    args = {"patch_size": list(patch), "img_size": list(size)}
    return _with(weights, args, size, tensors=tensors, decoder=None, notes=notes)


def has_positions(model: Any) -> bool:
    """Whether a timm model has tables that `on_grid` resamples."""
    return isinstance(model, Beit) or (
        isinstance(model, VisionTransformer | Eva) and isinstance(model.pos_embed, Tensor)
    )


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


def rechannelled(weights: Pretrained, channels: int) -> Pretrained:
    """Change the number of input channels: each has the mean of the old kernels.

    Images whose channels are equal give the features that they gave before: the normalization of the old channels is
    folded into kernel and bias. A convolution that pads its input, or has no bias, comes near to it.

    Args:
        weights: Of any model whose first layer is a convolution.
        channels: Of the new images.

    Raises:
        UserError: It has no such layer.
    """
    model, config, first = empty_encoder(weights), weights.config, _first_convolution(weights)
    mean, std = (_spread(torch.tensor(values), 0, channels).tolist() for values in (config.mean, config.std))
    new = replace(config, mean=[round(v, 6) for v in mean], std=[round(v, 6) for v in std])
    kernel, shift = _folded(weights.tensors[f"{first}.weight"], config, new)
    notes, tensors = weights.notes, dict(weights.tensors)
    tensors[f"{first}.weight"] = _spread(kernel, 1, channels) * (config.channels / channels)
    if f"{first}.bias" in tensors:
        tensors[f"{first}.bias"] = tensors[f"{first}.bias"] + shift
    if shift.any() and (f"{first}.bias" not in tensors or any(model.get_submodule(first).padding)):
        notes = [*notes, "the channels had different means: features of gray images differ a little from before"]
    decoder = weights.decoder and _predicting(weights.decoder, config, new)
    changed = _with(weights, {"in_chans": channels}, config.image_size, tensors=tensors, decoder=decoder, notes=notes)
    return changed._replace(config=replace(changed.config, mean=new.mean, std=new.std, scale=None, bands=[]))


def rechannelled_from(weights: Pretrained, asked: str) -> Pretrained:
    """Change the input channels, each with the kernels, mean and std of one old channel, or of the mean of all.

    Images that hold the old channels, and the mean where the mean of all is taken, give the features that they gave
    before: channels that take the same share its weight.

    Args:
        weights: Of any model whose first layer is a convolution.
        asked: Of each new channel, the old one by its name, or counted from 1, 0 = the mean of all; in front of it the
            new channel's own name and a colon, or no names at all: "B4:R,B3:G,B2:B" or "0,3,2,1".

    Raises:
        UserError: It has no such layer or no such channel, or names are lost or double.
    """
    config, first = weights.config, _first_convolution(weights)
    names, sources = _sources(asked, config)
    shares = torch.tensor([1 / sources.count(source) for source in sources]).view(1, -1, 1, 1)
    kernel = weights.tensors[f"{first}.weight"]
    picked = torch.cat([kernel.mean(1, keepdim=True) if not one else kernel[:, one - 1 : one] for one in sources], 1)
    tensors = {**weights.tensors, f"{first}.weight": (picked * shares).to(kernel.dtype)}
    mean, std = (
        [sum(old) / len(old) if not one else old[one - 1] for one in sources] for old in (config.mean, config.std)
    )
    notes = [*weights.notes, _told(names, sources, _old_names(config))]
    if weights.decoder:
        notes.append("the decoder is left out: it predicts the old channels")
    args = {"in_chans": len(sources)}
    changed = _with(weights, args, config.image_size, tensors=tensors, decoder=None, notes=notes)
    scale = _picked(config.scale, names, sources)
    return changed._replace(config=replace(changed.config, mean=mean, std=std, scale=scale, bands=names))


def _sources(asked: str, config: ModelConfig) -> tuple[list[str], list[int]]:
    """Names of the new channels, if they have any, and of each the number of the old one, 0 = the mean of all."""
    old = _old_names(config)
    places = {str(number): number for number in range(config.channels + 1)} | {name: i for i, name in enumerate(old, 1)}
    parts = [part.strip() for part in asked.split(",")]
    pairs = [("", part) if part in places else part.rpartition(":")[::2] for part in parts]
    if lost := [source for _, source in pairs if source not in places]:
        there = f"{', '.join(old)}, or numbers" if old else "numbers"
        what = f"--channels-from {asked} takes channels that {config.model} does not have: {', '.join(lost)}"
        raise UserError("channels_from", what, f"give {there} from 0 (the mean) to {config.channels}")
    names = [name for name, _ in pairs if name]
    if names and len({*names}) != len(pairs):
        what = f"--channels-from {asked} names only some of the new channels, or gives two the same name"
        raise UserError("channels_from.names", what, 'give each a name, or none, for example "B4:R,B3:G,B2:B"')
    return names, [places[source] for _, source in pairs]


def _old_names(config: ModelConfig) -> list[str]:
    """Names of the channels that weights were trained on; those of a photo where nothing else is said."""
    return config.band_names or (list("RGB") if config.channels == 3 and not config.scale else [])


def _told(names: list[str], sources: list[int], old: list[str]) -> str:
    """Which channel takes which weights."""
    taken = ["the mean of all", *(old or [f"channel {number}" for number in range(1, max(sources) + 1)])]
    new = names or [f"channel {number}" for number in range(1, len(sources) + 1)]
    pairs = [f"{one} with the weights of {taken[source]}" for one, source in zip(new, sources, strict=True)]
    return f"images have, in this order, {', '.join(pairs)}"


def _picked(scale: Scale | None, names: list[str], sources: list[int]) -> Scale | None:
    """The scale of the channels that are taken; none where one is the mean of all, which has none."""
    if scale is None or 0 in sources:
        return None
    low, high, fill = ([values[one - 1] for one in sources] for values in (scale.low, scale.high, scale.fill))
    return replace(scale, low=low, high=high, fill=fill, chosen=[], names=names)


def _first_convolution(weights: Pretrained) -> str:
    name: str | None = empty_encoder(weights).pretrained_cfg["first_conv"]
    if name is None:
        what = f"{weights.config.model} has no first convolution to change"
        raise UserError("channels", what, "leave out --channels and --channels-from")
    return name


def _folded(kernel: Tensor, old: ModelConfig, new: ModelConfig) -> tuple[Tensor, Tensor]:
    """A kernel [o c h w] for values normalized as the new first channel is, and what its bias gains."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (old.mean, old.std))
    shift = kernel * ((new.mean[0] - mean) / std)
    return (kernel * (new.std[0] / std)).to(kernel.dtype), shift.sum(dim=(1, 2, 3)).to(kernel.dtype)


def _predicting(decoder: Decoder, old: ModelConfig, new: ModelConfig) -> Decoder:
    """A decoder that predicts the new channels: plain pixels in units of their standard deviation."""
    tensors = dict(decoder.tensors)
    for part in ("weight", "bias"):
        pixels = tensors[f"pred.{part}"]  # rows in the order (p, p, channel)
        pixels = pixels.reshape(-1, old.channels, *pixels.shape[1:])
        if not decoder.normalized:
            factors = (torch.tensor(old.std) / new.std[0]).to(pixels.dtype)
            pixels = pixels * factors.view(-1, *[1] * (pixels.ndim - 2))
        tensors[f"pred.{part}"] = _spread(pixels, 1, new.channels).flatten(0, 1)
    return decoder._replace(tensors=tensors)


def _spread(tensor: Tensor, axis: int, channels: int) -> Tensor:
    shape = [-1] * tensor.ndim
    shape[axis] = channels
    return tensor.mean(dim=axis, keepdim=True).expand(shape).contiguous()


def _with(weights: Pretrained, args: dict[str, Any], size: tuple[int, int] | None, **changed: Any) -> Pretrained:
    config = replace(weights.config, model_args=weights.config.model_args | args, image_size=size)
    return weights._replace(config=config, **changed)
