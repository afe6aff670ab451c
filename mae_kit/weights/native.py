"""Our own files: a run folder, its model, its encoder, or its classifier."""

import json
from pathlib import Path

import timm
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from mae_kit.encoders import ImageGPT, ViT
from mae_kit.objectives import IGPT, MAE
from mae_kit.weights import encoder_file, model_file
from mae_kit.weights.encoder_file import EncoderConfig, load_encoder
from mae_kit.weights.model_file import load_model, objective_of
from mae_kit.weights.pretrained import Decoder, Pretrained, classifier_args

CLASSIFIER, CLASSIFIER_FILE = "mae_kit_classifier", "classifier.safetensors"


def file_of(path: Path) -> Path | None:
    """The most complete of our files at a path; None if there is none."""
    names = (model_file.FILE, CLASSIFIER_FILE, encoder_file.FILE)
    candidates = [path / name for name in names] if path.is_dir() else [path]
    return next((file for file in candidates if kind_of(file)), None)


def kind_of(file: Path) -> str:
    """The format that the header of one of our files names; empty for any other file."""
    if file.suffix != ".safetensors" or not file.is_file():
        return ""
    try:
        with safe_open(file, "pt") as opened:
            ours = (model_file.FORMAT, encoder_file.FORMAT, CLASSIFIER)
            return next((key for key in opened.metadata() or {} if key in ours), "")
    except SafetensorError:
        return ""


def read(file: Path) -> Pretrained:
    """In the words of every other file.

    Raises:
        UserError: The file is damaged.
    """
    kind = kind_of(file)
    if kind == encoder_file.FORMAT:
        config, tensors = load_encoder(file)
        return Pretrained("our encoder", config, tensors)
    return _classifier(file) if kind == CLASSIFIER else _whole(file)


def _classifier(file: Path) -> Pretrained:
    with safe_open(file, "pt") as opened:
        config = json.loads(opened.metadata()[CLASSIFIER])
    args = classifier_args(config["name"], config["args"]) | {"in_chans": len(config["mean"])}
    size = config["image_size"]
    if timm.get_pretrained_cfg_value(config["name"], "fixed_input_size"):
        args["img_size"] = size
    kind = f"our classifier of {len(config['classes'])} classes"
    encoder = EncoderConfig(config["name"], args, config["mean"], config["std"], "classification", 0, size)
    return Pretrained(kind, encoder, load_file(file), classes=config["classes"])


def _whole(file: Path) -> Pretrained:
    kind, beside = objective_of(file), file.with_name(encoder_file.FILE)
    if kind != MAE.__name__ and beside.is_file():  # not all can be built here: a BEiT's tokenizer may be elsewhere
        return Pretrained(f"our {kind} model, its encoder", *load_encoder(beside))
    objective, mean, std = load_model(file)
    encoder = objective.encoder
    step = load_encoder(file.parent)[0].step if (file.parent / encoder_file.FILE).is_file() else 0
    config = EncoderConfig(encoder.name, encoder.model_args, mean, std, objective=kind, step=step)
    if not isinstance(objective, MAE):
        return Pretrained(f"our {kind} model, its encoder", config, encoder.model.state_dict())
    arguments = objective.config["init_args"]
    decoder = Decoder(
        objective.decoder.state_dict(),
        arguments["decoder_dim"],
        arguments["decoder_depth"],
        arguments["decoder_heads"],
        arguments["mask_ratio"],
        arguments["norm_pix_loss"],
    )
    return Pretrained("our model, encoder and decoder", config, encoder.model.state_dict(), decoder)


def to_objective(weights: Pretrained) -> MAE:
    """The whole model of an encoder and its decoder, with their weights."""
    assert weights.decoder is not None
    d = weights.decoder
    mae = MAE(
        ViT(weights.encoder.model, **weights.encoder.model_args),
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
    """The whole model of an iGPT, which is all in its encoder."""
    igpt = IGPT(ImageGPT(weights.encoder.model, **weights.encoder.model_args))
    igpt.encoder.model.load_state_dict(weights.tensors, strict=True)
    return igpt.eval()
