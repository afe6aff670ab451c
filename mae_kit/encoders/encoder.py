"""The contract of an encoder: a timm model without its head, its sizes, and its ways of hiding patches."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_kit.classes.hub import HubModule
from mae_kit.encoders.timm_models import create
from mae_kit.errors import UserError

Size = int | list[int]
AnyEncoder = TypeVar("AnyEncoder", bound="Encoder")


class Encoder(HubModule):
    """A timm model without its head.

    A subclass lists timm's arguments in its constructor, passes them on here, and reads the sizes in `read_sizes`. It
    has one or two ways of hiding patches: `drop`, hidden patches are never computed (MAE, Hiera); `fill`, a mask token
    takes their place (SimMIM, BEiT, MaskFeat); `zero`, hidden cells are zero, as in a sparse convolution (FCMAE).

    Args:
        name: timm's name of the model.
        model_args: timm's arguments; one that is None keeps the model's default.
        training_args: timm's arguments that matter only in training, for example the drop path rate; not in
            `model_args`.

    Attributes:
        name: timm's name of the model.
        model_args: timm's arguments that rebuild it: `timm.create_model(name, num_classes=0, **model_args)`.
        model: timm's model; its state dict is the encoder's file.
        image_size: Height and width in pixels.
        channels: Channels of the images.
        patch_size: Height and width in pixels of what can be hidden: a patch, or a cell of a ConvNeXt or Hiera.
        grid: Rows and columns of these.
        embed_dim: Width of an embedded patch.
        stride: Height and width in pixels of an output cell; `patch_size` in a ViT.
        cells: Rows and columns of output cells.
        dim: Width of an output cell.
        prefix: Tokens in front of the cells: class token and registers.
        has_class_token: Whether the first of the prefix tokens is a class token.
        depth: Layers that `layers` can be asked for: blocks of a transformer, stages of the others.
        has_attention_maps: Whether `mae_kit.encoders.attention.attention_maps` supports it.
        has_position_table: Whether it has an absolute position embedding for each patch.
        mask_token_decays: Whether weight decay applies to an objective's mask token.
        statistics: Mean and std of each channel, in 0..1, that images are normalized with; None if unknown.

    Raises:
        UserError: timm has no such model, does not build it with these arguments, or it is of another family.

    Example:
        >>> import tempfile, torch, mae_kit as mk
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> vit.set_statistics(mean=[0.5] * 3, std=[0.25] * 3)
        >>> folder = tempfile.mkdtemp()
        >>> vit.save_pretrained(folder)
        >>> mk.Encoder.from_pretrained(folder)(torch.randn(2, 3, 32, 32)).shape  # a class token and 4 x 4 patches
        torch.Size([2, 17, 192])
    """

    timm_class: ClassVar[type[nn.Module]]
    family: ClassVar[str]
    examples: ClassVar[str]
    has_attention_maps: ClassVar[bool] = False
    has_position_table: ClassVar[bool] = False
    mask_token_decays: ClassVar[bool] = True

    model: Any
    image_size: tuple[int, int]
    channels: int
    patch_size: tuple[int, int]
    grid: tuple[int, int]
    embed_dim: int
    stride: tuple[int, int]
    cells: tuple[int, int]
    dim: int
    depth: int
    statistics: tuple[list[float], list[float]] | None = None
    prefix: int = 0
    has_class_token: bool = False

    def __init__(self, name: str, model_args: dict[str, Any], training_args: dict[str, Any] | None = None):
        super().__init__()
        self.name = name
        self.model_args = {key: value for key, value in model_args.items() if value is not None}
        model = create(name, self.model_args | (training_args or {}), self.examples)
        if not self.accepts(model):
            what = f"encoder name {name!r} is not a {self.family}"
            raise UserError("encoder.name.family", what, f"choose one of timm's {self.examples} models")
        self._wrap(model, fresh=True)

    @classmethod
    def from_timm(cls: type[AnyEncoder], model: nn.Module, **init_args: Any) -> AnyEncoder:
        """Wrap a timm model and keep its weights. Its classifier, if it has one, is removed.

        Args:
            model: As `timm.create_model` makes it.
            init_args: Arguments of the constructor that the model does not show: a ConvNeXt's img_size, a drop_path.

        Raises:
            UserError: It is of another family, or has arguments that the encoder's constructor does not take.
        """
        timm_model: Any = model
        if not cls.accepts(model):
            what = f"a {type(model).__name__} is not a {cls.family}"
            raise UserError("encoder.model.family", what, f"give one of timm's {cls.examples} models")
        timm_model.reset_classifier(0)
        arguments = cls.arguments_of(timm_model) | init_args
        with torch.device("meta"):
            encoder = cls(timm_model.pretrained_cfg["architecture"], **arguments)
        if _shapes(encoder.model) != _shapes(model):
            what = f"this {encoder.name} differs from timm's in more than {', '.join(arguments)}"
            raise UserError("encoder.model.weights", what, "create it with these arguments only, and num_classes=0")
        encoder._wrap(model, fresh=False)
        return encoder

    def _wrap(self, model: nn.Module, fresh: bool) -> None:
        self.model = model
        self.model.fresh = fresh
        self.prepare(fresh)
        self.read_sizes()
        model.register_load_state_dict_pre_hook(_not_fresh_any_more)

    @property
    def fresh(self) -> bool:
        """Whether its weights are its own random ones: none were loaded, and no objective was built on it."""
        return self.model.fresh

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Whether a timm model is of this family."""
        return type(model) is cls.timm_class

    @classmethod
    def arguments_of(cls, model: Any) -> dict[str, Any]:
        """The constructor's arguments, but for the name, that make a timm model of these sizes."""
        raise NotImplementedError

    def prepare(self, fresh: bool) -> None:
        """Adapt the timm model to pretraining; initialize it only if it is fresh."""

    def read_sizes(self) -> None:
        """Set the attributes that tell the sizes, from the timm model."""
        raise NotImplementedError

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set mean and std of each channel, in 0..1, that images are normalized with; saved with the weights."""
        self.statistics = list(mean), list(std)

    def write(self, folder: Path) -> None:
        if self.statistics is None:
            what = "the mean and std that images are normalized with are unknown"
            raise UserError("encoder.statistics", what, "call set_statistics(mean, std) first")
        native = importlib.import_module("mae_kit.weights.native")  # which imports the encoders
        about = {"objective": "none", "step": 0, "image_size": self.image_size}
        config = native.ModelConfig(self.name, self.model_args, *self.statistics, **about)
        native.save_encoder(folder, self.model.state_dict(), getattr(self, "pretrained_cfg", config))

    @classmethod
    def read(cls, folder: Path, **options: Any) -> "Encoder":
        return importlib.import_module("mae_kit.weights.recognize").load_encoder(folder, **options)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Encode whole images: prefix tokens and cells after the final norm."""
        return self.model.forward_features(images)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b _ _"]]:
        """Tokens after some of the layers.

        Args:
            images: Normalized.
            numbers: Layers, 1 to `depth`, ascending; the last one is the output of `forward`.
        """
        raise NotImplementedError


def _not_fresh_any_more(model: Any, tensors: dict[str, Tensor], prefix: str, *_: Any) -> None:
    if any(name.startswith(prefix) for name in tensors):
        model.fresh = False


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
