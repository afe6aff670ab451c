"""A classifier: any timm model by name, from timm's own start, from weights, or from an encoder pretrained here."""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import DropPath
from timm.models.beit import Beit
from timm.models.hiera import Hiera
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mae_kit.encoders import Encoder
from mae_kit.encoders.image_gpt_model import TimmImageGPT
from mae_kit.encoders.patches import grid_of
from mae_kit.encoders.timm_models import attention_heads, build, pair
from mae_kit.errors import UserError
from mae_kit.files.tensor_file import kind_of
from mae_kit.weights.adapt import has_positions, in_windows, on_grid
from mae_kit.weights.native import read
from mae_kit.weights.pretrained import AnyTimm, Pretrained, differences, refuse

log = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class ModelSpec:
    """The timm model to train.

    Attributes:
        name: timm's name of the model, for example vit_tiny_patch16_224, resnet50 or convnext_tiny.
        args: Arguments of timm that differ from the model's defaults, for example {patch_size: 8}, {global_pool:
            token}, or {global_pool: map} for attention pooling of a ViT's patch tokens.
        weights: Initial weights if no encoder is given: null = timm's initialization; "timm" = the weights that timm
            publishes under this name; or a safetensors file with timm's parameter names.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


class Classifier(NamedTuple):
    """A model and where its tensors come from.

    Attributes:
        model: [b c h w] normalized images -> [b k] logits.
        mean: Of each channel in [0, 1], that the weights were trained with; None where they start anew.
        std: Of each channel.
        loaded: How many tensors were loaded.
        dropped: Names in the file that the classifier has no place for.
        fresh: Names in the classifier that start anew.
    """

    model: nn.Module
    mean: list[float] | None
    std: list[float] | None
    loaded: int
    dropped: list[str]
    fresh: list[str]


def build_classifier(
    model: ModelSpec | None,
    classes: int,
    encoder: Encoder | AnyTimm | None,
    drop_path: float,
    image_size: tuple[int, int],
    channels: int = 3,
    class_names: list[str] | None = None,
) -> Classifier:
    """Build a classifier; a plain ViT or BEiT pools the mean of its patch tokens, without the class token.

    The exceptions are a recipe that says otherwise, {global_pool: token} or {global_pool: map}, and weights that come
    with a head: these keep the pooling they were trained with.

    From an encoder the head starts at a truncated normal of std 2e-5 with bias 0, a Swin's at .02, and the final norm
    is replaced by a new one after a pooling by the mean (MAE, models_vit.py); without, all is as timm initializes it,
    as in the original.

    Args:
        model: None for the encoder's own.
        classes: Number of classes.
        encoder: A pretrained one, which is left as it is; None to start without.
        drop_path: Stochastic depth rate of the last block, 0 to 1.
        image_size: Height and width in pixels.
        channels: Channels of the images.
        class_names: Names of the classes: a head for others in `model.weights` is not kept.

    Raises:
        UserError: timm knows no such model or argument, the file is of another kind, or its tensors do not fit.
    """
    if encoder is not None:
        return _from_encoder(encoder, model, classes, drop_path, image_size, channels)
    if model is None:
        raise UserError("model.name.missing", "model.name is missing", "name one of timm's models, or give an encoder")
    return _from_name(model, classes, drop_path, image_size, channels, class_names)


def unfreeze_color_head(model: nn.Module) -> None:
    """Train the pixel head of an iGPT jointly with the classifier.

    Raises:
        UserError: The model has no loss of its own.
    """
    if not isinstance(model, TimmImageGPT):
        raise UserError("generative", "the model is not an iGPT and has no generative loss", "give --generative 0")
    model.color_head.requires_grad_(True)


def check_batch_norm(model: nn.Module, images: int) -> None:
    """Refuse to train batch norm on one image at a time, of which it has no statistics.

    Raises:
        UserError: The model has such a layer that is trained.
    """
    norms = (part for part in model.modules() if isinstance(part, _BatchNorm))
    if images == 1 and any(parameter.requires_grad for part in norms for parameter in part.parameters()):
        what = "the model has batch norm, and a micro-batch is one image"
        raise UserError("data.batch_size.one", what, "give a larger batch, fewer micro-batches, or another model")


def _from_name(
    spec: ModelSpec,
    classes: int,
    drop_path: float,
    image_size: tuple[int, int],
    channels: int,
    class_names: list[str] | None,
) -> Classifier:
    saved = _saved(spec, channels)
    own_pooling = {"global_pool": None} if spec.weights else {}
    trained = saved.config.model_args if saved else {}
    args = _arguments(spec.name, trained, own_pooling | _pooling(trained) | spec.args, drop_path, image_size, channels)
    model = _create(spec.name, args, num_classes=classes, pretrained=spec.weights == "timm")
    names = list(model.state_dict())
    if spec.weights is None:
        return Classifier(model, None, None, 0, [], sorted(names))
    if spec.weights == "timm":
        return _published(model, classes, channels)
    tensors = saved.tensors if saved else _read(Path(spec.weights))
    if saved and saved.classes and saved.classes != (class_names or saved.classes):
        tensors = {name: tensor for name, tensor in tensors.items() if not _is_head(model, name)}
        log.info(
            f"{spec.weights} has a head for other classes ({', '.join(saved.classes[:3])}, ...): a new one is trained"
        )
    dropped, fresh = _load(model, tensors, spec.weights)
    mean, std = (saved.config.mean, saved.config.std) if saved else (None, None)
    return Classifier(model, mean, std, len(names) - len(fresh), dropped, fresh)


def _saved(spec: ModelSpec, channels: int) -> Pretrained | None:
    """The classifier or encoder of ours that the weights are, whose record says how they pool and normalize.

    Raises:
        UserError: It is damaged, another model, or for other channels.
    """
    if not spec.weights or not kind_of(Path(spec.weights)):
        return None
    saved = read(Path(spec.weights))
    if saved.config.model != spec.name:
        what = f"model.weights {spec.weights} is a {saved.config.model}, not a {spec.name}"
        raise UserError("model.weights.heads", what, "set --model.name to that of the file")
    if saved.config.channels != channels:
        what = f"model.weights {spec.weights} takes images of {saved.config.channels} channels, not {channels}"
        raise UserError("model.weights.channels", what, "use such images, or another file")
    return saved


def _pooling(args: dict[str, Any]) -> dict[str, Any]:
    return {"global_pool": args["global_pool"]} if "global_pool" in args else {}


def _published(model: Any, classes: int, channels: int) -> Classifier:
    """Timm has loaded its weights, all but a head for another number of classes."""
    config, names = model.pretrained_cfg, sorted(model.state_dict())
    fresh = [name for name in names if _is_head(model, name)] if config["num_classes"] != classes else []
    mean, std = (list(config[key]) if channels == len(config[key]) else None for key in ("mean", "std"))
    return Classifier(model, mean, std, len(names) - len(fresh), [], fresh)


def classifier_from(
    encoder: Encoder | AnyTimm,
    num_classes: int,
    drop_path: float = 0.0,
    image_size: tuple[int, int] | None = None,
    pooling: str | None = None,
) -> nn.Module:
    """Put a classification head on an encoder.

    Args:
        encoder: Pretrained here, loaded, or fresh; its weights are copied, and it is left as it is.
        num_classes: Number of classes.
        drop_path: Stochastic depth rate of the last block, 0 to 1.
        image_size: Height and width in pixels; by default the encoder's own. Position embeddings are resampled.
        pooling: timm's global_pool, as "token" or "map" for a ViT; by default the mean of the patch tokens.

    Returns:
        timm's model, [b c h w] normalized images -> [b k] logits.

    Raises:
        UserError: The patches do not divide the size, or the model does not pool that way.
    """
    spec = ModelSpec(encoder.name, {"global_pool": pooling} if pooling else {})
    size = image_size or encoder.image_size
    return build_classifier(spec, num_classes, encoder, drop_path, size, encoder.channels).model


def _from_encoder(
    encoder: Encoder | AnyTimm,
    spec: ModelSpec | None,
    classes: int,
    drop_path: float,
    image_size: tuple[int, int],
    channels: int,
) -> Classifier:
    _check_encoder(encoder, spec, channels)
    changed, tensors = spec.args if spec else {}, encoder.model.state_dict()
    args = _arguments(encoder.name, encoder.model_args, changed, drop_path, image_size, channels)
    model = _create(encoder.name, args, num_classes=classes)
    _check_heads(model, encoder)
    tensors = _on_grid_of(model, encoder.model, tensors)
    dropped, fresh = _load(model, tensors, "the encoder")
    _start_head(model)
    config: Any = getattr(encoder, "pretrained_cfg", None)
    mean, std = (config.mean, config.std) if config else (None, None)
    return Classifier(model, mean, std, len(tensors) - len(dropped), dropped, fresh)


def _check_encoder(encoder: Encoder | AnyTimm, spec: ModelSpec | None, channels: int) -> None:
    if spec and spec.weights:
        raise UserError(
            "model.weights.encoder", "model.weights and an encoder are both given", "leave out one of the two"
        )
    if spec and spec.name != encoder.name:
        what = f"model.name is {spec.name}, the encoder is a {encoder.name}"
        raise UserError("model.name.encoder", what, "give --model null to take the encoder's")
    if encoder.channels != channels:
        what = f"the encoder takes images of {encoder.channels} channels, not {channels}"
        raise UserError("encoder.channels", what, "give images with that number of channels")


def _arguments(
    name: str,
    trained: dict[str, Any],
    changed: dict[str, Any],
    drop_path: float,
    image_size: tuple[int, int],
    channels: int,
) -> dict[str, Any]:
    """Timm's arguments: what the encoder had, then what this use needs, then what the recipe says."""
    with torch.device("meta"):
        probe = _create(name, {})
    args = {key: value for key, value in trained.items() if key != "img_size"} | {"in_chans": channels}
    if drop_path or any(isinstance(part, DropPath) for part in probe.modules()):  # Swin's own rate is .1
        args["drop_path_rate"] = drop_path
    if probe.pretrained_cfg["fixed_input_size"]:
        args["img_size"] = image_size
    if type(probe) in (VisionTransformer, Beit) and args.get("global_pool", probe.global_pool) == "token":
        args["global_pool"] = "avg"
    args |= changed
    patch = getattr(getattr(probe, "patch_embed", None), "patch_size", None)
    if patch is not None and "img_size" in args:
        grid_of(image_size, pair(args.get("patch_size", patch)))
    return args


def _create(name: str, args: dict[str, Any], **further: Any) -> Any:
    """A timm model; what timm does not accept is the user's mistake.

    Raises:
        UserError: No such name, argument or published weights, or the image does not consist of Hiera's mask units.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), 3) or ["vit_tiny_patch16_224"]
        raise UserError(
            "model.name.unknown", f"model.name {name!r} is not in timm", f"choose, for example, {', '.join(near)}"
        )
    fix = "set model.weights to a file or null" if further.get("pretrained") else "change model.args or the size"
    model = build(name, args, fix, **further)
    if isinstance(model, Hiera) and "img_size" in args:
        (side, _), (height, width) = model.mask_unit_size, model.patch_stride
        grid_of(pair(args["img_size"]), (side * height, side * width))
    return model


def _check_heads(model: nn.Module, encoder: Encoder | AnyTimm) -> None:
    """The number of attention heads is in no tensor's shape: the weights would fit and mean nothing."""
    now, trained = attention_heads(model), attention_heads(encoder.model)
    if any(one != other for one, other in zip(now, trained, strict=False)):
        what = f"model.args give {max(now)} attention heads, the encoder was trained with {max(trained)}"
        raise UserError("model.args", what, "give --model null to take the encoder's")


def _on_grid_of(model: Any, source: Any, tensors: Tensors) -> Tensors:
    """The tensors, with the positions of a ViT or BEiT resampled to the classifier's grid, Swin's to its windows."""
    if isinstance(source, SwinTransformer):
        return in_windows(source, tensors, model)
    return on_grid(source, tensors, tuple(model.patch_embed.grid_size)) if has_positions(source) else tensors


def _load(model: Any, tensors: Tensors, file: str) -> tuple[list[str], list[str]]:
    """Load every tensor but those of the head; returns the names dropped from the file and those that start anew.

    Raises:
        UserError: A tensor outside the head is missing, unknown or of another shape; names it.
    """
    own = model.state_dict()
    found = differences(tensors, own)
    refuse(file, {name: what for name, what in found.items() if not _may_start_anew(model, name)})
    used = {name: tensor for name, tensor in tensors.items() if name not in found}
    if not any(tensor.is_meta for tensor in own.values()):  # a model without memory is asked whether they fit
        model.load_state_dict(own | used, strict=True)
    return sorted(tensors.keys() - used.keys()), sorted(own.keys() - used.keys())


def _is_head(model: Any, name: str) -> bool:
    heads = model.pretrained_cfg["classifier"]
    return name.startswith(tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads)))


def _may_start_anew(model: Any, name: str) -> bool:
    """The head, and in a ViT or BEiT the norm, which moves behind the pooling, and attention that pools."""
    pooling = ("norm.", "fc_norm.", "attn_pool.") if isinstance(model, VisionTransformer | Beit) else ()
    return _is_head(model, name) or name.startswith(pooling)


def _start_head(model: Any) -> None:
    """The originals' start of fine-tuning: nearly zero, so that the first steps do not shake the encoder.

    SimMIM's Swin keeps its own, of std .02 (models/swin_transformer.py).
    """
    head = model.get_classifier()
    if isinstance(head, nn.Linear) and not isinstance(model, SwinTransformer):
        nn.init.trunc_normal_(head.weight, std=2e-5)
        nn.init.zeros_(head.bias)


def _read(file: Path) -> Tensors:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        fix = 'give a safetensors file with timm\'s names, "timm", or null'
        raise UserError(
            "model.weights.damaged", f"model.weights {file} cannot be read as safetensors ({error})", fix
        ) from error
