"""Convert weights of other programs into a folder that every command takes."""

import logging
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mae_kit.data.index.class_names import kept_apart
from mae_kit.errors import UserError
from mae_kit.files.durable import filling, is_unfinished
from mae_kit.tasks.detector import load_detector, save_detector
from mae_kit.training.ranges import POSITIVE, check_ranges
from mae_kit.weights.adapt import rechannelled, rechannelled_from, repatched, resized
from mae_kit.weights.detectors import is_detector
from mae_kit.weights.native import save_classifier, save_encoder, save_model, to_igpt, to_objective
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.pretrained import Pretrained, build_timm, without_head
from mae_kit.weights.recognize import read_pretrained

log = logging.getLogger(__name__)


def import_(
    weights: Path,
    out: Path,
    img_size: int | list[int] | None = None,
    patch_size: int | list[int] | None = None,
    channels: int | None = None,
    channels_from: str | None = None,
    normalized: bool | None = None,
    encoder_heads: int | None = None,
    decoder_heads: int | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    average: bool | None = None,
) -> dict[str, Any]:
    """Convert weights from another program into a folder that finetune, reconstruct and pretrain read.

    The format is recognized: original MAE files (encoder, whole model, fine-tuned); state dicts of timm's plain ViTs,
    of DINOv2, Pixio and Prithvi-EO; folders of transformers (ViTMAE, ViT, DINOv2, DINOv3, SigLIP, Pixio, ImageGPT,
    BEiT, Swin, ConvNeXt V2) and of timm; encoders and classifiers of the BEiT, SimMIM, ConvNeXt V2 and Hiera code;
    detectors of transformers, YOLOS and DETR, as they are, which predict and evaluate then take. No code in a file is
    executed.

    Args:
        weights: A file, a folder with config.json and model.safetensors, or timm:NAME for what timm publishes.
        out: Folder to write.
        img_size: Side in pixels, or height and width; position embeddings are interpolated. By default as trained.
        patch_size: Side of a patch in pixels, or height and width; kernels are resized by FlexiViT's pseudo-inverse.
            The image grows or shrinks in proportion, unless --img-size is given. By default as trained.
        channels: Channels of your images; each gets the mean of the old weights. By default as trained.
        channels_from: In place of --channels: for each of your channels, the old channel whose weights it takes, by
            name (R, G and B of a photo, or the bands that the weights were trained on), or counted from 1, or 0 for the
            mean of all; "0,B,G,R" takes four channels whose last three are blue, green and red. With the names of your
            channels, "B4:R,B3:G,B2:B", images whose bands have other names, or another order, are refused.
        normalized: Declare that the decoder predicts normalized patches (norm_pix_loss), or, with --no-normalized,
            plain pixels: no file records which.
        encoder_heads: Attention heads of the encoder, if neither the file nor its width determines them.
        decoder_heads: Attention heads of the decoder, if neither the file nor its width determines them.
        mean: Mean of each channel that images were normalized with, in 0..1, for example .5,.5,.5; by default that of
            the file, or of its model family.
        std: Standard deviation of each channel.
        average: From a file with both the weights and their moving average (EMA, or a teacher), take the average, or,
            with --no-average, the weights.

    Returns:
        Folder, kind, counts of tensors read, names left out, what was assumed.

    Raises:
        UserError: The file has no known layout, would run code, or has tensors missing or unknown; or a number is out
            of its range.
    """
    given = {name: value for name, value in locals().items() if value not in (None, weights, out)}
    if is_detector(weights):
        return _import_detector(weights, out, given)
    size, patch = ([side, side] if isinstance(side, int) else side for side in (img_size, patch_size))
    _must_be_sides("img_size", size)
    _must_be_sides("patch_size", patch)
    _must_count(channels=channels, encoder_heads=encoder_heads, decoder_heads=decoder_heads)
    sides = None if size is None else (size[0], size[1])
    read = read_pretrained(weights, Hints(encoder_heads, decoder_heads, normalized, sides, average))
    read = _normalized(read, mean, std)
    if patch is not None:
        read = repatched(read, (patch[0], patch[1]))
    if sides is not None:
        read = resized(read, sides)
    if channels_from is not None:
        read = rechannelled_from(read, channels_from)
    elif channels is not None:
        read = rechannelled(read, channels)
    _write(out, read)
    report = _report(read)
    log.info(
        f"{weights}: {read.kind}; {report['encoder']} tensors of the encoder, {report['decoder']} of the decoder, "
        f"left out: {', '.join(read.left_out) or 'none'}"
    )
    for note in read.notes:
        log.info(f"assumed: {note}")
    log.info(f"written: {out}")
    return {"folder": str(out), **report}


def _import_detector(weights: Path, out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Convert a detector of transformers."""
    for name in sorted(given):
        what = f"{weights} is a detector, which is imported as it is"
        raise UserError(f"{name}.detector", what, f"leave out --{name.replace('_', '-')}")
    detector, config = load_detector(weights)
    with _filled(out) as making:
        save_detector(making, detector, config)
    inside = len(detector.backbone.state_dict())
    counts = {"encoder": inside, "decoder": len(detector.state_dict()) - inside}
    log.info(f"{weights}: {config.detector}, {counts['encoder']} tensors of the encoder, {counts['decoder']} others")
    log.info(f"written: {out}")
    return {"folder": str(out), "kind": config.detector, **counts, "left_out": [], "assumed": []}


def _normalized(weights: Pretrained, mean: list[float] | None, std: list[float] | None) -> Pretrained:
    """With the statistics that the user gives."""
    encoder = weights.config
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != len(encoder.mean):
            raise UserError(name, f"{name} has {len(values)} values", f"give one per channel, {len(encoder.mean)}")
    return weights._replace(config=replace(encoder, mean=mean or encoder.mean, std=std or encoder.std))


def _must_be_sides(name: str, size: list[int] | None) -> None:
    if size is not None and len(size) != 2:
        raise UserError(f"{name}.form", f"{name} is {size}", "give the side in pixels, or height,width")
    check_ranges({name: size}, **{name: POSITIVE})


def _must_count(**counts: int | None) -> None:
    check_ranges(counts, **dict.fromkeys(counts, POSITIVE))


def _write(out: Path, weights: Pretrained) -> None:
    with _filled(out) as making:
        _fill(making, weights)


def _filled(out: Path) -> AbstractContextManager[Path]:
    """A folder to write into that holds no weights yet."""
    if any(out.glob("*.safetensors")) and not is_unfinished(out):
        raise UserError("out.weights", f"{out} holds weights already", "choose another folder")
    return filling(out)


def _fill(out: Path, weights: Pretrained) -> None:
    save_encoder(out, without_head(weights).tensors, weights.config)
    if weights.decoder or weights.config.objective == "IGPT":
        whole = to_objective(weights) if weights.decoder else to_igpt(weights)
        save_model(out, whole, weights.config)
    if weights.classes:
        save_classifier(out, build_timm(weights), replace(weights.config, classes=kept_apart(weights.classes)))


def _report(weights: Pretrained) -> dict[str, Any]:
    decoder = len(weights.decoder.tensors) if weights.decoder else 0
    counts = {"encoder": len(weights.tensors), "decoder": decoder}
    return {"kind": weights.kind, **counts, "left_out": weights.left_out, "assumed": weights.notes}
