"""Weights from any file, in our words."""

from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mae_kit.encoders.decoders import TransformerDecoder
from mae_kit.encoders.timm_models import build
from mae_kit.weights.encoder_file import EncoderConfig
from mae_kit.weights.names import Tensors
from mae_kit.weights.parameter_names import differences, refuse

_FIX = "give a whole file of one of the published layouts"
_HIERA_POOLS = 3  # stages that pool in classification, one more than in MAE's pretraining, which is our encoder's own


class Decoder(NamedTuple):
    """MAE's decoder.

    Attributes:
        tensors: Under the names of `TransformerDecoder`.
        dim: Width.
        depth: Blocks.
        heads: Attention heads.
        mask_ratio: Share of the patches that was hidden in training.
        normalized: Whether it predicts each patch normalized by its own mean and deviation.
    """

    tensors: Tensors
    dim: int
    depth: int
    heads: int
    mask_ratio: float = 0.75
    normalized: bool = True


class Pretrained(NamedTuple):
    """An encoder, and what came with it.

    Attributes:
        kind: What the file is, in words.
        encoder: timm's name and arguments, and how images are normalized.
        tensors: Under timm's names; those of the head too where there are classes.
        decoder: Where the file has one.
        classes: Names of a classifier's, in the order of the logits.
        left_out: Names in the file that have no place here.
        notes: What the file does not say and was assumed, a sentence each.
    """

    kind: str
    encoder: EncoderConfig
    tensors: Tensors
    decoder: Decoder | None = None
    classes: list[str] = []  # noqa: RUF012  # a tuple's default is never changed
    left_out: list[str] = []  # noqa: RUF012
    notes: list[str] = []  # noqa: RUF012


def classifier_args(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Those of timm's, and what our encoder would otherwise have as in pretraining."""
    return {"q_pool": _HIERA_POOLS} | args if name.startswith("hiera_") else args


def numbered(head: Tensor | None) -> list[str]:
    """Names of the classes of a head, of which a file has none: their numbers; of no head no names."""
    return [] if head is None else [str(number) for number in range(len(head))]


def fresh_timm(weights: Pretrained) -> Any:
    """The timm model as it begins, with weights of its own."""
    return _build(weights, len(weights.classes))


def build_timm(weights: Pretrained) -> Any:
    """The timm model with its weights, ready to use."""
    model = fresh_timm(weights)
    model.load_state_dict(weights.tensors, strict=True)
    return model.eval()


def empty_encoder(weights: Pretrained) -> Any:
    """The timm model without a head and without weights, to look at its parts."""
    with torch.device("meta"):
        return _build(weights, 0)


def is_plain_vit(weights: Pretrained) -> bool:
    """Whether the encoder is timm's vision transformer, no relative of it."""
    return type(empty_encoder(weights)) is VisionTransformer


def without_head(weights: Pretrained) -> Pretrained:
    """The encoder of a classifier."""
    names = empty_encoder(weights).state_dict().keys()
    return weights._replace(tensors={name: weights.tensors[name] for name in names}, classes=[])


def must_be_whole(file: str, weights: Pretrained) -> None:
    """Every tensor has its place and shape, and no place is empty.

    Raises:
        UserError: Names those that differ, or timm does not build a model of this kind.
    """
    with torch.device("meta"):
        model = fresh_timm(weights)
    refuse(file, differences(weights.tensors, model.state_dict()), _FIX)
    if weights.decoder:
        refuse(file, differences(weights.decoder.tensors, _empty_decoder(model, weights.decoder).state_dict()), _FIX)


def _build(weights: Pretrained, classes: int) -> Any:
    return build(weights.encoder.model, weights.encoder.model_args, _FIX, num_classes=classes)


def _empty_decoder(encoder: Any, decoder: Decoder) -> TransformerDecoder:
    embed = encoder.patch_embed
    outputs = embed.patch_size[0] * embed.patch_size[1] * embed.proj.in_channels
    with torch.device("meta"):
        return TransformerDecoder(
            encoder.embed_dim,
            embed.grid_size,
            outputs,
            encoder.num_prefix_tokens,
            decoder.dim,
            decoder.depth,
            decoder.heads,
        )
