"""Weights of any origin under our names, and the timm models that they belong to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_kit.encoders import Encoder, create_encoder
from mae_kit.encoders.decoders import TransformerDecoder
from mae_kit.encoders.timm_models import build, pair
from mae_kit.errors import UserError
from mae_kit.files.tensor_file import must_be_finite
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.names import Tensors

SHOWN = 3
_FIX = "give a complete file of one of the published layouts"
_HIERA_POOLS = 3  # stages that pool in classification, one more than in MAE's pretraining, which is our encoder's own


class Decoder(NamedTuple):
    """MAE's decoder.

    Attributes:
        tensors: Under the names of `TransformerDecoder`.
        dim: Width.
        depth: Blocks.
        heads: Attention heads.
        mask_ratio: Fraction of the patches hidden in training, 0 to 1.
        normalized: Whether it predicts patches normalized by their own mean and standard deviation (norm_pix_loss).
    """

    tensors: Tensors
    dim: int
    depth: int
    heads: int
    mask_ratio: float = 0.75
    normalized: bool = True


class Pretrained(NamedTuple):
    """An encoder or classifier read from a file.

    Attributes:
        kind: What the file is, for people.
        config: The record of the model.
        tensors: Under timm's parameter names, including the head where there are classes.
        decoder: If the file has one.
        left_out: Names in the file that have no counterpart here.
        notes: One sentence for each assumption about what the file does not say.
    """

    kind: str
    config: ModelConfig
    tensors: Tensors
    decoder: Decoder | None = None
    left_out: list[str] = []  # noqa: RUF012  # a tuple's default is never changed
    notes: list[str] = []  # noqa: RUF012

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the logits; empty for an encoder."""
        return self.config.classes


def classifier_args(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Those of timm's, and what our encoder would otherwise have as in pretraining."""
    return {"q_pool": _HIERA_POOLS} | args if name.startswith("hiera_") else args


def numbered(head: Tensor | None) -> list[str]:
    """Names of the classes of a head, of which a file has none: their numbers; of no head no names."""
    return [] if head is None else [str(number) for number in range(len(head))]


def described(classes: list[str]) -> str:
    """What a file with a head for these classes holds, in words."""
    return f"classifier of {len(classes)} classes" if classes else "encoder only"


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
    config = replace(weights.config, classes=[], multi_label=False)
    return weights._replace(tensors={name: weights.tensors[name] for name in names}, config=config)


def image_size(config: ModelConfig, model: Any) -> tuple[int, int]:
    """Height and width in pixels of the images of a timm model, as far as they are known."""
    own = getattr(getattr(model, "patch_embed", None), "img_size", None) or model.pretrained_cfg["input_size"][1:]
    return pair(config.image_size or config.model_args.get("img_size") or list(own))


def check_complete(file: str, weights: Pretrained) -> None:
    """Every tensor has its place and shape and finite values, and no place is empty.

    Raises:
        UserError: Names those that differ, or timm does not build a model of this kind.
    """
    with torch.device("meta"):
        model = fresh_timm(weights)
    refuse(file, differences(weights.tensors, model.state_dict()), _FIX)
    if weights.decoder:
        refuse(file, differences(weights.decoder.tensors, _empty_decoder(model, weights.decoder).state_dict()), _FIX)
        must_be_finite(file, weights.decoder.tensors, "weights")
    must_be_finite(file, weights.tensors, "weights")


def _build(weights: Pretrained, classes: int) -> Any:
    return build(weights.config.model, weights.config.model_args, _FIX, num_classes=classes)


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


class AnyTimm(nn.Module):
    """An encoder of a family that no objective trains, a ConvNeXt V1 for one: it can be fine-tuned.

    Args:
        name: timm's.
        model_args: timm's arguments that differ from its defaults for that name.
        image_size: Height and width in pixels; by default the model's own.
    """

    def __init__(self, name: str, model_args: dict[str, Any], image_size: Sequence[int] | None = None):
        super().__init__()
        self.name, self.model_args, self.channels = name, model_args, int(model_args.get("in_chans", 3))
        self.model = build(name, model_args, _FIX, num_classes=0)
        height, width = image_size or self.model.pretrained_cfg["input_size"][1:]
        self.image_size: tuple[int, int] = height, width

    def forward(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Features before the pooling, in timm's shape for the family."""
        return self.model.forward_features(images)


def load_weights(config: ModelConfig, tensors: Tensors, file: str, any_family: bool = False) -> Any:
    """Build an encoder, load the weights, and switch it to eval mode.

    Args:
        config: Of the weights; kept as the encoder's `pretrained_cfg`.
        tensors: Under timm's names, all of them.
        file: Their name in messages.
        any_family: Accept a timm model of a family that is not ours, as an `AnyTimm`.

    Returns:
        The encoder, a module [b c h w] -> [b t d], with `pretrained_cfg` and `fingerprint`, 16 hexadecimal digits
        that change with the weights, the architecture and the normalization.

    Raises:
        UserError: No encoder is made of such a timm model, or tensors are missing, unknown or of another shape.
    """
    made = config.model, config.model_args, config.image_size
    encoder: Any = _any(*made, tensors) if any_family else create_encoder(*made)
    refuse(file, differences(tensors, encoder.model.state_dict()), "give the encoder of a pretraining")
    encoder.model.load_state_dict(dict(tensors), strict=True)
    encoder.pretrained_cfg, encoder.fingerprint = config, fingerprint(config, tensors)
    if isinstance(encoder, Encoder):
        encoder.set_statistics(config.mean, config.std)
    return encoder.eval()


def _any(name: str, model_args: dict[str, Any], image_size: Sequence[int] | None, tensors: Tensors) -> Any:
    """Ours, unless there is none or its last norm is elsewhere, as in a model that pools the mean."""
    try:
        encoder = create_encoder(name, model_args, image_size)
    except UserError:
        return AnyTimm(name, model_args, image_size)
    same = encoder.model.state_dict().keys() == tensors.keys()
    return encoder if same else AnyTimm(name, model_args, image_size)


def fingerprint(config: ModelConfig, tensors: Tensors) -> str:
    """Hash all that decides the features of an encoder: 16 hexadecimal digits, the same in any file format."""
    about = asdict(config)
    digest = hashlib.sha256(json.dumps([about[key] for key in ("model", "model_args", "mean", "std")]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def differences(tensors: Tensors, own: Tensors) -> dict[str, str]:
    """Compare the tensors of a file with those of a model: a sentence for each name that does not fit."""
    shapes, wanted = ({k: list(v.shape) for k, v in side.items()} for side in (tensors, own))
    found = {name: f"{name} is unknown to the model" for name in shapes if name not in wanted}
    found |= {name: f"{name} is not in the file" for name in wanted if name not in shapes}
    both = [name for name in shapes if name in wanted and shapes[name] != wanted[name]]
    return found | {name: f"{name} is {shapes[name]} in the file, {wanted[name]} in the model" for name in both}


def refuse(file: str, differences: Mapping[str, str], fix: str = "give the model that it was trained as") -> None:
    """Raise if there is any difference.

    Raises:
        UserError: `weights.names`; shows the first three.
    """
    if differences:
        shown = "; ".join(list(differences.values())[:SHOWN])
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise UserError("weights.names.model", f"{file} does not fit the model: {shown}{more}", fix)
