"""Weights from any file: which of the known layouts it has."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from mae_kit.encoders import create_encoder
from mae_kit.errors import UserError
from mae_kit.files.tensor_file import ENCODER, damages, kind_of, missing, read_kind
from mae_kit.weights import (
    bare_vit,
    beit,
    convnextv2,
    detectors,
    dinov2,
    dinov3,
    hiera,
    huggingface,
    imagegpt,
    original,
    prithvi,
    siglip,
    swin,
)
from mae_kit.weights import native as ours
from mae_kit.weights import timm as timm_folder
from mae_kit.weights.config import parse_config
from mae_kit.weights.files import Raw, is_average, read_raw
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.pretrained import Pretrained, check_complete, empty_encoder, image_size, load_weights, without_head
from mae_kit.weights.timm import architecture, is_published, read_published

_FOLDERS = (timm_folder, huggingface, dinov2, dinov3, siglip, beit, swin, convnextv2, imagegpt, detectors)
LAYOUTS: tuple[ModuleType, ...] = (*_FOLDERS, hiera, bare_vit, prithvi, original)
WRAPPERS = ("module.", "_orig_mod.")  # of DDP and torch.compile: part of no layout
PREFIXES = (*WRAPPERS, "teacher.", "student.", "model.", "backbone.", "encoder.", "vit.", "net.")
_CHANNEL_GROUPS = "patch_embed.1.proj.weight"
_IMAGE_GPT = "h.0.attn.c_attn.weight"
# Of EVA-02 and DINOv3 in timm, and of DINOv3's own files.
_ROTARY = ("blocks.0.attn.q_proj.weight", "blocks.0.gamma_1", "rope_embed.periods", "storage_tokens")
_FIX = "give an original MAE file, a folder of transformers or timm, timm:NAME, or a run"


def load_encoder(path: Path | str, any_family: bool = False) -> Any:
    """Load an encoder, in eval mode.

    Args:
        path: A run, its encoder.safetensors, whatever else `mae-kit import` reads, or timm:NAME.
        any_family: Also load a timm model of a family that no objective trains, which can only be fine-tuned.

    Returns:
        A module: normalized images [b c h w] -> tokens [b t d] after the final norm, prefix tokens first. Its
        `pretrained_cfg` (a `ModelConfig`) has mean and std of the normalization; its `fingerprint` changes with the
        weights.

    Raises:
        UserError: `encoder.*` or `weights.*`: there is no such file, it is damaged, or it holds no encoder.

    Example:
        >>> import tempfile, torch, mae_kit as mk
        >>> folder, vit = tempfile.mkdtemp(), mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> vit.set_statistics(mean=[0.5] * 3, std=[0.25] * 3)
        >>> vit.save_pretrained(folder)
        >>> encoder = mk.load_encoder(folder)
        >>> encoder(torch.randn(2, 3, 32, 32)).shape, encoder.pretrained_cfg.mean
        (torch.Size([2, 17, 192]), [0.5, 0.5, 0.5])
    """
    path = Path(path)
    file = path / ENCODER.file if path.is_dir() else path
    if file.name == ENCODER.file and (file.is_file() or not path.is_dir()):
        read = read_kind(file, ENCODER, parse_config)
        with damages(file, ENCODER):
            return load_weights(*read, str(file), any_family)
    if is_published(path) and not any_family:
        with torch.device("meta"):
            create_encoder(architecture(path), {})  # refuses before the download
    weights = without_head(_read_encoder(path))
    return load_weights(weights.config, weights.tensors, str(path), any_family)


def _read_encoder(path: Path) -> Pretrained:
    try:
        return read_pretrained(path)
    except UserError as error:
        if not error.key.startswith("weights.missing"):
            raise
        raise missing(path, ENCODER) from error


def is_encoder(path: Path) -> bool:
    """Tell whether a path is an encoder.safetensors, or the folder of one."""
    return kind_of(path / ENCODER.file if path.is_dir() else path) == ENCODER.name


def read_pretrained(path: Path, hints: Hints = Hints()) -> Pretrained:
    """Weights from any file that we know, each of its tensors used once or named.

    Args:
        path: A run, one of our files, a published checkpoint, a folder as on the Hub, or timm:NAME.
        hints: What the file does not say itself.

    Raises:
        UserError: There is none, it is of no layout that we know, or tensors are missing or unknown.
    """
    if file := ours.file_of(path):
        return ours.read(file)
    raw = read_published(path) if is_published(path) else read_raw(path, hints.average)
    failed: UserError | None = None
    for layout, inside, prefix, outside in _layouts(raw):
        if failed and outside and not failed.key.startswith("weights.layout."):
            break  # what was read has a fault, not a prefix
        try:
            weights = _read(layout, inside, hints)
        except UserError as error:
            failed = failed or error
            continue
        notes = [f"the names without their prefix {prefix}"] if prefix else []
        return _sized(weights._replace(left_out=weights.left_out + outside, notes=weights.notes + notes))
    raise failed or _unknown(raw)


def _read(layout: ModuleType, raw: Raw, hints: Hints) -> Pretrained:
    """All of a file, as its layout spells it."""
    try:
        weights, unknown = layout.read(raw, hints)
    except KeyError as error:
        raise UserError("weights.layout.lacks", f"{raw.path} lacks {error}", _FIX) from error
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            "weights.damaged.layout", f"{raw.path} is damaged, or not of the layout that it seems to be ({error})", _FIX
        ) from error
    if len(unknown) == len(raw.tensors):
        raise UserError("weights.layout.names", f"{raw.path} holds no name of {weights.kind}", _FIX)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UserError(
            "weights.names.unknown",
            f"{raw.path} ({weights.kind}) also holds unknown {', '.join(unknown[:3])}{more}",
            _FIX,
        )
    check_complete(str(raw.path), weights)
    return weights


def _sized(weights: Pretrained) -> Pretrained:
    """With the image size in the record, and a note where timm's default for the name is all that is known."""
    config = weights.config
    if config.image_size:
        return weights
    size = image_size(config, empty_encoder(weights))
    note = f"images of {size[0]} x {size[1]} pixels, timm's for {config.model}; --img-size overrides it"
    return weights._replace(config=replace(config, image_size=size), notes=[*weights.notes, note])


def _peeled(raw: Raw) -> Iterator[tuple[Raw, str, list[str]]]:
    """The file, then its tensors without the prefixes that programs put around a model, one after the other."""
    dropped, outside = "", []
    while True:
        first = {"".join(name.partition(".")[:2]) for name in raw.tensors}
        around = [each for each in PREFIXES if any(name.startswith(each) for name in raw.tensors)]
        if len(first) == 1 and not around:  # any other word that is before all names
            around = [each for each in first if each.endswith(".")]
        wraps_all = bool(around) and around[0] in WRAPPERS and all(name.startswith(around[0]) for name in raw.tensors)
        if not wraps_all:
            yield raw, dropped, outside
        if not around:
            return
        parts = {name.partition(".")[0] + "." for name in raw.tensors if "." in name}
        averages = {part for part in parts if is_average(part[:-1])}
        if averages and len({*around} | averages) > 1:
            what = f"{raw.path} holds several models, {', '.join(sorted({*around} | averages))}"
            raise UserError("weights.layout.several", what, "save one of them to a file of its own")
        outside = outside + [name for name in raw.tensors if not name.startswith(around[0])]
        inside = {name.removeprefix(around[0]): t for name, t in raw.tensors.items() if name.startswith(around[0])}
        raw, dropped = raw._replace(tensors=inside), dropped + around[0]


def _layouts(raw: Raw) -> Iterator[tuple[ModuleType, Raw, str, list[str]]]:
    """Layouts, the file as each spells it, the prefix that was dropped, and the names that lack it.

    A folder's config.json names its layout whatever the tensors are called, so that a prefix shows in the reading.
    """
    for peeled, prefix, outside in _peeled(raw):
        for layout in LAYOUTS:
            if layout.recognizes(peeled):
                yield layout, peeled, prefix, outside
                break


def _unknown(raw: Raw) -> UserError:
    """Why a file is of no layout."""
    if any(name.endswith(_IMAGE_GPT) for name in raw.tensors):
        fix = "give the folder that holds both, and preprocessor_config.json"
        return UserError(
            "weights.layout.imagegpt_config", f"{raw.path} is an ImageGPT checkpoint without its config.json", fix
        )
    if any("embeddings.patch_embeddings" in name for name in raw.tensors) and not raw.config:
        return UserError(
            "weights.layout.config",
            f"{raw.path} is a transformers file without its config.json",
            "give the folder that holds both",
        )
    if any(name.endswith(_CHANNEL_GROUPS) for name in raw.tensors):
        what = f"{raw.path} is a SatMAE that makes a token of each group of channels of a patch"
        return UserError("weights.layout.channel_groups", what, "give its model for RGB, which is a plain ViT")
    if any(name.endswith(_ROTARY) for name in raw.tensors):
        what = f"{raw.path} is a ViT with rotary position embeddings, and does not say how it was built"
        return UserError("weights.layout.rotary", what, "give a folder of timm or transformers with its config.json")
    first = ", ".join(list(raw.tensors)[:3])
    return UserError("weights.layout.unknown", f"{raw.path} has no known layout (it holds {first}, ...)", _FIX)
