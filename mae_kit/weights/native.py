"""Files of our own: the encoder, the model and the classifier of a run, saved and loaded."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_kit.classes.configured import build
from mae_kit.encoders import ImageGPT, ViT
from mae_kit.errors import UserError
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.tensor_file import CLASSIFIER, ENCODER, KINDS, MODEL, damages, kind_of, read_kind, save_kind
from mae_kit.objectives import IGPT, MAE, Objective
from mae_kit.weights.config import ModelConfig, parse_config, parse_labeled
from mae_kit.weights.names import Tensors
from mae_kit.weights.pretrained import Decoder, Pretrained, build_timm, classifier_args, fingerprint


class SavedClassifier(nn.Module):
    """A classifier as it was saved.

    Args:
        model: timm's.
        config: The record of the model: how images are prepared, and the classes.
    """

    def __init__(self, model: nn.Module, config: ModelConfig):
        super().__init__()
        self.model, self.config = model, config

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of normalized images."""
        return self.model(images)


def save_encoder(folder: Path, tensors: Tensors, config: ModelConfig) -> Path:
    """Write encoder.safetensors, complete in itself, and encoder.json, its config for people and other programs."""
    content = asdict(config)
    file = save_kind(folder, ENCODER, tensors, content)
    replace_text(RunFolder(folder).encoder_config, json.dumps(content, indent=2) + "\n")
    return file


def save_model(folder: Path, objective: Objective, config: ModelConfig) -> Path:
    """Write model.safetensors: the whole objective, what rebuilds it, and the config of its encoder."""
    content = {"objective": objective.config, "encoder": asdict(config)}
    return save_kind(folder, MODEL, objective.state_dict(), content)


def save_classifier(folder: Path, model: nn.Module, config: ModelConfig) -> Path:
    """Write classifier.safetensors.

    Args:
        folder: It exists.
        model: timm's.
        config: Its record; channels, image size and pooling are added to `model_args` from the record and the model.

    Returns:
        The file.
    """
    content = asdict(replace(config, model_args=rebuilding_args(model, config)))
    return save_kind(folder, CLASSIFIER, model.state_dict(), content)


def rebuilding_args(model: Any, config: ModelConfig) -> dict[str, Any]:
    """Timm's arguments that rebuild a classifier: those of its record, channels, image size and pooling."""
    args = classifier_args(config.model, config.model_args) | {"in_chans": config.channels}
    if model.pretrained_cfg["fixed_input_size"] and config.image_size:
        args["img_size"] = list(config.image_size)
    return args | ({"global_pool": model.global_pool} if isinstance(model, VisionTransformer | Beit) else {})


def load_model(path: Path | str, trusted: bool = False, **changed: Any) -> Objective:
    """Rebuild the objective of a run, in eval mode.

    Args:
        path: A run folder, or its model.safetensors.
        trusted: Build an objective whose class is outside mae_kit: only for files of your own.
        changed: Arguments of the objective that replace those of training, None to keep: mask_ratio, mask.

    Returns:
        The objective; `objective.encoder.pretrained_cfg` says how images are normalized.

    Raises:
        UserError: `model.missing`, `model.kind`, `model.damaged`; or `model.names`, its code has changed since.

    Example:
        >>> import tempfile, torch, mae_kit as mk
        >>> folder, vit = tempfile.mkdtemp(), mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> mae = mk.MAE(vit, decoder_dim=32, decoder_depth=1, decoder_heads=2)
        >>> mae.set_statistics(mean=[0.5] * 3, std=[0.25] * 3)
        >>> mae.save_pretrained(folder)
        >>> mk.load_model(folder, mask_ratio=0.5)(torch.randn(2, 3, 32, 32)).hidden.sum(dim=1)  # of 4 x 4 patches
        tensor([8, 8])
    """
    (config, encoder), tensors = read_kind(path, MODEL, _parse_model)
    given = {name: value for name, value in changed.items() if value is not None}
    with damages(path, MODEL):
        if unknown := given.keys() - config["init_args"].keys():
            kind, names = _class_name(config), ", ".join(sorted(unknown))
            raise UserError("model.arguments", f"{path} holds a {kind}, which has no {names}", "leave it out")
        objective = build(config | {"init_args": config["init_args"] | given}, trusted)
    try:
        objective.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        what = f"{path} does not fit {_class_name(config)} as it is now ({' '.join(str(error).split())})"
        raise UserError(
            "model.names", what, "load it with the version of mae_kit that wrote it, or train again"
        ) from error
    with damages(path, MODEL):
        objective.set_statistics(encoder.mean, encoder.std)
    model: Any = objective.encoder
    model.pretrained_cfg, model.fingerprint = encoder, fingerprint(encoder, model.model.state_dict())
    return objective.eval()


def load_classifier(path: Path | str) -> SavedClassifier:
    """Rebuild the classifier of a run, in eval mode.

    Args:
        path: A fine-tuning run, or its classifier.safetensors.

    Returns:
        A module, [b c h w] normalized images -> [b k] logits, with its `config`.

    Raises:
        UserError: `classifier.missing`, `classifier.kind`, or `classifier.damaged`.

    Example:
        >>> import tempfile, timm, torch, mae_kit as mk
        >>> from pathlib import Path
        >>> from mae_kit.weights.config import ModelConfig
        >>> from mae_kit.weights.native import save_classifier
        >>> name, sizes = "vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}
        >>> record = ModelConfig(name, sizes, [0.5] * 3, [0.25] * 3, image_size=(32, 32), classes=["cat", "dog"])
        >>> model = timm.create_model(name, num_classes=2, **sizes)
        >>> classifier = mk.load_classifier(save_classifier(Path(tempfile.mkdtemp()), model, record))
        >>> classifier(torch.randn(4, 3, 32, 32)).shape, classifier.config.classes
        (torch.Size([4, 2]), ['cat', 'dog'])
    """
    config, tensors = read_kind(path, CLASSIFIER, parse_labeled)
    with damages(path, CLASSIFIER):
        return SavedClassifier(build_timm(_classifier(config, tensors)), config).eval()


def file_of(path: Path) -> Path | None:
    """Find the most complete of our files at a path: model, classifier, encoder; None if there is none."""
    candidates = [path / kind.file for kind in KINDS[:3]] if path.is_dir() else [path]
    return next((file for file in candidates if kind_of(file)), None)


def read(file: Path) -> Pretrained:
    """Read one of our files as any other.

    Raises:
        UserError: It is damaged, or a tokenizer.
    """
    kind = kind_of(file)
    if kind == MODEL.name:
        with damages(file, MODEL):
            return _whole(file)
    if kind == CLASSIFIER.name:
        with damages(file, CLASSIFIER):
            return _classifier(*read_kind(file, CLASSIFIER, parse_labeled))
    config, tensors = read_kind(file, ENCODER, parse_config)
    return Pretrained("our encoder", config, tensors)


def _parse_model(content: dict[str, Any]) -> tuple[dict[str, Any], ModelConfig]:
    objective = content["objective"]
    if not isinstance(objective["class_path"], str) or not isinstance(objective["init_args"], dict):
        raise ValueError("its objective is no class with arguments")
    return objective, parse_config(content["encoder"])


def _classifier(config: ModelConfig, tensors: dict[str, Tensor]) -> Pretrained:
    return Pretrained(f"our classifier of {len(config.classes)} classes", config, tensors)


def _whole(file: Path) -> Pretrained:
    """Without rebuilding the objective: a BEiT's tokenizer may have moved."""
    (config, encoder), tensors = read_kind(file, MODEL, _parse_model)
    inner = _below(tensors, "encoder.model.")
    if (kind := _class_name(config)) != MAE.__name__:
        return Pretrained(f"our {kind} model, its encoder", encoder, inner)
    args = config["init_args"]
    dim, depth, heads = (args[f"decoder_{name}"] for name in ("dim", "depth", "heads"))
    decoder = Decoder(_below(tensors, "decoder."), dim, depth, heads, args["mask_ratio"], args["norm_pix_loss"])
    return Pretrained("our model, encoder and decoder", encoder, inner, decoder)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _class_name(config: dict[str, Any]) -> str:
    return config["class_path"].rpartition(".")[2]


def to_objective(weights: Pretrained) -> MAE:
    """Build the MAE of an encoder and its decoder, with their weights."""
    assert weights.decoder is not None
    d = weights.decoder
    mae = MAE(
        ViT(weights.config.model, **weights.config.model_args),
        d.mask_ratio,
        norm_pix_loss=d.normalized,
        decoder_dim=d.dim,
        decoder_depth=d.depth,
        decoder_heads=d.heads,
    )
    mae.encoder.model.load_state_dict(weights.tensors, strict=True)
    mae.decoder.load_state_dict(d.tensors, strict=True)
    return mae.eval()


def to_igpt(weights: Pretrained) -> IGPT:
    """Build the objective of an iGPT, all of whose weights are in its encoder."""
    igpt = IGPT(ImageGPT(weights.config.model, **weights.config.model_args))
    igpt.encoder.model.load_state_dict(weights.tensors, strict=True)
    return igpt.eval()
