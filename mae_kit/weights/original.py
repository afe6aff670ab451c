"""The original MAE's files (facebookresearch/mae), which are also timm's plain ViTs: four kinds, told by their keys."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.weights.config import ModelConfig, parse_config, published_crop
from mae_kit.weights.files import Raw
from mae_kit.weights.names import Names, Tensors, prefixed
from mae_kit.weights.plain_vit import (
    BLOCK,
    DECODER_HEAD_DIM,
    HEAD_DIM,
    HEADS,
    Hints,
    depth_of,
    find_grid,
    guessed_heads,
    model_of,
)
from mae_kit.weights.preprocessor import ASSUMED, imagenet_statistics
from mae_kit.weights.pretrained import Decoder, Pretrained, numbered

RECORD = "mae_kit"  # of the record in an exported file's settings
ENCODER = {
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "patch_embed.proj.*": "patch_embed.proj.*",
    **prefixed(BLOCK, "blocks.#.", "blocks.#."),
    "norm.*": "norm.*",
}
DECODER = {
    "mask_token": "decoder/mask_token",
    "decoder_pos_embed": "decoder/pos_embed",
    "decoder_embed.*": "decoder/embed.*",
    **prefixed(BLOCK, "decoder_blocks.#.", "decoder/blocks.#."),
    "decoder_norm.*": "decoder/norm.*",
    "decoder_pred.*": "decoder/pred.*",
}
NAMES = Names(ENCODER | DECODER)
PROBE = r"head\.0\.(running_mean|running_var|num_batches_tracked)|head\.1\.(weight|bias)"
HEAD = Names({"fc_norm.*": "fc_norm.*", "head.*": "head.*"}, left_out=PROBE)


def recognizes(raw: Raw) -> bool:
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= raw.tensors.keys()


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    tensors, _, others = NAMES.ours(raw.tensors)
    behind, probe, unknown = HEAD.ours({name: raw.tensors[name] for name in others})
    encoder, decoding = split(tensors)
    config, notes = _config(raw, encoder, decoding, behind, hints)
    decoder, more = _decoder(raw, decoding, hints)
    kind = _kind(decoder, behind, config.classes, probe)
    return Pretrained(kind, config, encoder | behind, decoder, probe, notes + more), unknown


def _config(
    raw: Raw, encoder: Tensors, decoding: Tensors, behind: Tensors, hints: Hints
) -> tuple[ModelConfig, list[str]]:
    """The record that we put into such a file, or else what tensors, settings and the original code tell."""
    if RECORD in raw.settings:
        return parse_config(raw.settings[RECORD]), []
    heads, notes = hints.encoder_heads, []
    if not heads:
        heads, note = guessed_heads(encoder["cls_token"].shape[-1], HEADS, HEAD_DIM, "encoder")
        notes.append(note)
    grid, note = _grid(raw, encoder, decoding, hints)
    name, args = model_of(str(raw.path), encoder, heads, grid)
    args |= {"global_pool": "avg"} if "fc_norm.weight" in behind else {}
    mean, std = imagenet_statistics(args["in_chans"])
    notes += [note] * bool(note) + [f"images normalized by ImageNet's mean and std; {ASSUMED}"]
    size = pair(args["img_size"])
    classes, crop = numbered(behind.get("head.weight")), published_crop(min(size))
    return ModelConfig(name, args, mean, std, "MAE", image_size=size, crop_pct=crop, classes=classes), notes


def _grid(raw: Raw, encoder: Tensors, decoding: Tensors, hints: Hints) -> tuple[tuple[int, int], str]:
    height, width = encoder["patch_embed.proj.weight"].shape[2:]
    trained = raw.settings.get("input_size")
    sizes = [pair(trained) if isinstance(trained, int | list | tuple) else None, hints.image_size]
    said = [size and (size[0] // height, size[1] // width) for size in sizes]
    tables = [part["pos_embed"] for part in (encoder, decoding) if "pos_embed" in part]
    return find_grid(str(raw.path), encoder["pos_embed"].shape[1] - 1, tables, said)


def settings(weights: Pretrained) -> dict[str, Any]:
    """What goes under "args" in the original's file, so that `read` assumes nothing; the original code ignores it."""
    d = weights.decoder
    decoding = {"mask_ratio": d.mask_ratio, "norm_pix_loss": d.normalized, "decoder_heads": d.heads} if d else {}
    return {RECORD: asdict(weights.config)} | decoding


def write(weights: Pretrained) -> dict[str, Tensor]:
    """The tensors under the original's names, which go under "model" in its file."""
    tensors = dict(weights.tensors)
    behind = {name: tensors.pop(name) for name in list(tensors) if name.startswith(("fc_norm.", "head."))}
    return NAMES.theirs(joined(tensors, weights.decoder)) | HEAD.theirs(behind)


def split(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder's tensors and the decoder's, from one table."""
    encoder = {name: tensor for name, tensor in tensors.items() if not name.startswith("decoder/")}
    return encoder, {k.removeprefix("decoder/"): v for k, v in tensors.items() if k not in encoder}


def joined(encoder: dict[str, Tensor], decoder: Decoder | None) -> dict[str, Tensor]:
    """The inverse of `split`."""
    return encoder | ({f"decoder/{name}": tensor for name, tensor in decoder.tensors.items()} if decoder else {})


def _decoder(raw: Raw, tensors: dict[str, Tensor], hints: Hints) -> tuple[Decoder | None, list[str]]:
    if not tensors:
        return None, []
    dim, notes, heads = tensors["mask_token"].shape[-1], [], hints.decoder_heads or raw.settings.get("decoder_heads")
    if not heads:
        heads, note = guessed_heads(dim, {}, DECODER_HEAD_DIM, "decoder")
        notes.append(note)
    normalized, why = _normalized(raw, hints)
    notes.append(f"the decoder predicts {'normalized' if normalized else 'plain'} pixels, {why}")
    ratio = raw.settings.get("mask_ratio", 0.75)
    return Decoder(tensors, dim, depth_of(tensors), heads, float(ratio), normalized), notes


def _normalized(raw: Raw, hints: Hints) -> tuple[bool, str]:
    """No tensor shows it."""
    if hints.normalized is not None:
        return hints.normalized, "as you say"
    if "norm_pix_loss" in raw.settings:
        return bool(raw.settings["norm_pix_loss"]), "as its settings say"
    if "visualize" in Path(raw.path).name:
        return False, "by the file's name; --normalized overrides it"
    return True, "which no tensor shows; --no-normalized overrides it"


def _kind(decoder: Decoder | None, behind: dict[str, Tensor], classes: list[str], probe: list[str]) -> str:
    if decoder:
        return f"original MAE, encoder and decoder, {'normalized' if decoder.normalized else 'plain'} pixels"
    if classes:
        pooled = "mean of the patches" if "fc_norm.weight" in behind else "class token"
        return f"original MAE, fine-tuned classifier of {len(classes)} classes ({pooled})"
    return "original MAE, linear probe" if probe else "original MAE or a plain ViT of timm's, encoder only"
