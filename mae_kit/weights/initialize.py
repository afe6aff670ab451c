"""Pretraining from given weights: of the encoder, and of the decoder where the file has one."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mae_kit.data.index.statistics import check_bands
from mae_kit.data.scale import Scale
from mae_kit.encoders import BEiTEncoder, ViT
from mae_kit.encoders.timm_models import attention_heads, pair
from mae_kit.errors import UserError
from mae_kit.objectives import MAE, Objective
from mae_kit.weights.adapt import resized
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.pretrained import Pretrained, differences, empty_encoder, refuse, without_head
from mae_kit.weights.recognize import read_pretrained

log = logging.getLogger(__name__)

_FRESH = ("norm.", "fc_norm.")  # the last norm of a mean-pooled classifier is behind the pooling


def start_from(
    path: Path, objective: Objective, mean: list[float], std: list[float], scale: Scale | None = None
) -> None:
    """Load the weights of a file into an objective, positions resampled to its image size; logs what stays fresh.

    Args:
        path: A run, one of our files, or any published checkpoint that `mae-kit import` reads.
        objective: As the recipe makes it; its weights are replaced.
        mean: Of each channel, that images will be normalized with; logs if the weights were trained with others.
        std: Of each channel.
        scale: Of the images; None for 8 bits. Logs if the weights were trained on another one.

    Raises:
        UserError: The file's encoder or decoder is not the recipe's, or the images have other bands.
    """
    weights, moved = fitting(path, objective)
    check_bands(weights.config.band_names, scale, "the run's dataset")
    model = objective.encoder.model
    own = model.state_dict()
    model.load_state_dict(own | {k: v for k, v in weights.tensors.items() if k not in moved}, strict=True)
    fresh = [name for name in moved if name in own]
    with_decoder = _start_decoder(weights, objective)
    new = fresh if with_decoder else ["the decoder", *fresh]
    if (weights.config.mean, weights.config.std) != (mean, std):
        log.warning(
            f"{path} was trained on images normalized with mean {weights.config.mean} and std {weights.config.std}, "
            f"this run uses {mean} and {std}"
        )
    if weights.config.scale and weights.config.scale != scale:
        log.warning(f"{path} was trained on values of another scale than that of this run's shards, which is used")
    loaded = f"{len(own) - len(fresh)} tensors of the encoder{' and the decoder' * with_decoder}"
    log.info(f"starts from {path} ({weights.kind}): {loaded}; newly initialized: {', '.join(new) or 'none'}")


def fitting(path: Path, objective: Objective) -> tuple[Pretrained, list[str]]:
    """Read the weights of a file, positions resampled; returns also the names of the tensors that stay fresh.

    Args:
        path: As of `start_from`.
        objective: Left as it is; it may be without memory.

    Raises:
        UserError: As of `start_from`.
    """
    encoder, heads = objective.encoder, _heads(objective)
    weights = without_head(read_pretrained(path, Hints(*heads)))
    _must_take_the_same_images(path, weights, encoder.channels)
    if isinstance(encoder, ViT | BEiTEncoder):
        _must_have_the_same_patches(path, weights, encoder.patch_size)
        weights = resized(weights, encoder.image_size)
    found = differences(weights.tensors, encoder.model.state_dict())
    moved = [name for name in found if name.startswith(_FRESH)]
    refuse(str(path), {name: what for name, what in found.items() if name not in moved}, _FIX.format("encoder"))
    _check_heads(path, "encoder", attention_heads(empty_encoder(weights)), attention_heads(encoder.model))
    if weights.decoder is not None and isinstance(objective, MAE):
        _check_heads(path, "decoder", [weights.decoder.heads], [heads[1]])
        fix = f"{_FIX.format('decoder')}, or import it and start from its encoder.safetensors alone"
        refuse(f"the decoder of {path}", differences(weights.decoder.tensors, objective.decoder.state_dict()), fix)
    return weights, moved


_FIX = "give the recipe the {} that the file has"


def _start_decoder(weights: Pretrained, objective: Objective) -> bool:
    if weights.decoder is None or not isinstance(objective, MAE):
        return False
    objective.decoder.load_state_dict(weights.decoder.tensors, strict=True)
    if weights.decoder.normalized != objective.norm_pix_loss:
        kind = "normalized" if weights.decoder.normalized else "plain"
        log.warning(f"the decoder was trained to predict {kind} pixels, unlike in this recipe (norm_pix_loss)")
    return True


def _heads(objective: Objective) -> tuple[int | None, int | None]:
    """Of the encoder and the decoder, as the recipe has them: what an original file does not say."""
    if not isinstance(objective.encoder, ViT):
        return None, None
    block: Any = objective.encoder.model.blocks[0]
    return block.attn.num_heads, objective.config["init_args"].get("decoder_heads")


def _check_heads(path: Path, part: str, found: Sequence[int], asked: Sequence[int | None]) -> None:
    """No tensor's shape shows them: other heads would go on from weights that mean nothing."""
    if other := [(one, two) for one, two in zip(found, asked, strict=False) if one != two]:
        what = f"the {part} of {path} has {other[0][0]} attention heads, the recipe's has {other[0][1]}"
        raise UserError("init.heads", what, f"set its number of heads to {other[0][0]}")


def _must_have_the_same_patches(path: Path, weights: Pretrained, patch: tuple[int, int]) -> None:
    embed = getattr(empty_encoder(weights), "patch_embed", None)
    found = pair(getattr(embed, "patch_size", patch))
    if found != patch:
        raise UserError(
            "init.patch_size",
            f"{path} has patches of {found[0]} x {found[1]} pixels, the recipe's encoder {patch[0]} x {patch[1]}",
            f"convert it with `mae-kit import {path} FOLDER --patch-size {patch[0]},{patch[1]}`, and start from that",
        )


def _must_take_the_same_images(path: Path, weights: Pretrained, channels: int) -> None:
    trained = weights.config.model_args.get("in_chans", 3)
    if trained != channels:
        raise UserError(
            "init.channels",
            f"{path} takes images of {trained} channels, the recipe's encoder {channels}",
            f"convert it with `mae-kit import {path} FOLDER --channels {channels}`, and start from that",
        )
