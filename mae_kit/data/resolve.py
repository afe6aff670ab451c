"""What `--data` stands for: the shards to train on, and those held out.

A folder of images is packed once into the user's cache, under a name made of its listing; a folder that changed gets
another name, and is packed again.
"""

import functools
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from filelock import FileLock

from mae_kit.data.index.open import open_index
from mae_kit.data.index.patterns import TAR, Pattern, has_pattern, must_be_there, parse_pattern
from mae_kit.data.index.stats_file import FILE as STATS
from mae_kit.data.index.stats_file import read_stats
from mae_kit.data.packing.pack import pack_source
from mae_kit.data.packing.plan import PackSettings, draws
from mae_kit.data.packing.source import Source
from mae_kit.data.packing.sources import open_source
from mae_kit.data.packing.splits import choose_splits, split_word
from mae_kit.data.packing.stats import SKIPPED
from mae_kit.data.remote.cache import Cache
from mae_kit.data.remote.filesystem import is_url
from mae_kit.errors import UserError
from mae_kit.files.user_cache import user_cache

log = logging.getLogger(__name__)

Split = Literal["train", "val", "all"]
HELD_OUT_FRACTION = 0.1


class Parts(NamedTuple):
    """Patterns of shards, as `open_index` takes them.

    Attributes:
        whole: What pretraining sees: the train split, or everything where the data come without splits.
        train: What labels are learned from: `whole` without `val`.
        val: Held out; None where nothing is.
        all: Both.
        drawn: Whether `val` was drawn here, from images that came without splits.
    """

    whole: str
    train: str
    val: str | None
    all: str
    drawn: bool = False


def resolve(data: str, split: Split, pack: bool = True, cache: Cache | None = None) -> str:
    """Find the shards of one split.

    Args:
        data: A folder that `mae-kit shard` made or another folder of tars, one tar, a pattern, a URL of these; or a
            folder of images, which is packed once into the user's cache.
        split: train = what to pretrain on; val = the held-out part: that of the data, or of a folder of images
            without one a tenth of the images, drawn by their names; all = both.
        pack: Whether a folder of images may be packed.
        cache: Where files of remote shards go; by default in the user's cache.

    Returns:
        A pattern of shards, as `open_index` takes it.

    Raises:
        UserError: `data.path`: nothing usable is there; `data.pack`: images that must not be packed; `data.no_val`:
            no held-out part.
    """
    parts = _parts(data, pack, cache)
    if split == "all":
        return parts.all
    return parts.whole if split == "train" else _val(data, parts)


def resolve_pair(data: str, val: str | None = None, pack: bool = True, cache: Cache | None = None) -> tuple[str, str]:
    """Find the shards to learn labels from and those to score on; the two have no sample in common.

    Args:
        data: As in `resolve`.
        val: Other data to score on: their held-out part, or all of them where they come without splits.
        pack: Whether folders of images may be packed.
        cache: Where files of remote shards go; by default in the user's cache.

    Returns:
        Patterns for train and val.

    Raises:
        UserError: As `resolve`; `data.path.no_labels`: a folder of images without labels.
    """
    parts = _parts(data, pack, cache, labeled=True)
    if val is None:
        return parts.train, _val(data, parts)
    return parts.whole, _own_split(_parts(val, pack, cache, labeled=True))


def resolve_val(data: str | None, val: str | None, pack: bool = True) -> str:
    """Find the images that a trained model is scored on.

    Args:
        data: As in `resolve`: the held-out part, or all where shards come without splits.
        val: As in `resolve_pair`, in place of `data`.
        pack: Whether folders of images may be packed.

    Raises:
        UserError: As `resolve`; `data.missing_val`: neither is given.
    """
    if val is not None:
        return _own_split(_parts(val, pack, None, labeled=True))
    if data is None:
        raise UserError("data.missing_val", "no labeled images are given", "add --data DATA, or --val SHARDS")
    parts = _parts(data, pack, None, labeled=True)
    return _val(data, parts) if parts.val else parts.whole


def _own_split(parts: Parts) -> str:
    """The held-out part that data came with; all of them where they have none."""
    return parts.whole if parts.drawn or parts.val is None else parts.val


def _val(data: str, parts: Parts) -> str:
    if parts.val is None:
        fix = "give other shards as data.val, or pack the images again with mae-kit shard --val-fraction 0.1"
        raise UserError("data.no_val", f"{data} has no validation split", fix)
    if parts.drawn:
        _say_drawn(data, parts)
    return parts.val


@functools.cache
def _say_drawn(data: str, parts: Parts) -> None:
    held_out, count = (len(open_index(str(part))) for part in (parts.val, parts.all))
    log.info(f"{data}: {held_out:,} of {count:,} images are held out for scoring, drawn by their names")


def _parts(data: str, pack: bool, cache: Cache | None, labeled: bool = False) -> Parts:
    """Find all splits; a folder of images without labels is refused before it is packed where these are needed."""
    if is_url(data):
        return _of_shards(data, open_index(data, cache).shards)
    if os.path.isdir(data):
        return _of_folder(data, pack, labeled)
    if os.path.isfile(data) and not TAR.search(data):
        raise UserError("data.path.tar", f"{data} is not a tar", "give an image folder, or shards")
    must_be_there(data)
    return _of_shards(data, open_index(data).shards)


def _of_folder(folder: str, pack: bool, labeled: bool = False) -> Parts:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    shards = [name for name in names if TAR.search(name)]
    if shards:
        return _of_shards(folder, shards)
    if not pack:
        fix = f"leave out --no-pack, or make some with `mae-kit shard {folder} SHARDS`"
        raise UserError("data.pack", f"{folder} holds no shards", fix)
    packed, split = _pack(folder, labeled)
    parts = _of_folder(str(packed), pack=False)
    return parts if split else parts._replace(whole=str(packed), drawn=parts.val is not None)


# Shards


def _of_shards(place: str, shards: Sequence[str]) -> Parts:
    """Tell splits by the words in the names of the shards: `train-000000.tar`, `imagenet_val_07.tar`."""
    words = [split_word(name) for name in shards]
    splits = choose_splits(words)
    held_out = [name for name, word in zip(shards, words, strict=True) if splits and splits.get(word)]
    train = [name for name, word in zip(shards, words, strict=True) if splits and splits.get(word) is False]
    if not train:  # none, or held-out ones alone
        return Parts(place, place, place if words and "train" not in words else None, place)
    if len(train) == len(shards):
        return Parts(place, place, None, place)
    base = parse_pattern(place, os.path.isdir(place) or (is_url(place) and not _names_shards(place))).base
    chosen = _pattern(base, train, shards)
    return Parts(chosen, chosen, _pattern(base, held_out, shards) if held_out else None, place)


def _names_shards(url: str) -> bool:
    name = url.rpartition("/")[2]
    return has_pattern(name) or TAR.search(name) is not None


def _pattern(base: str, chosen: Sequence[str], shards: Sequence[str]) -> str:
    """The shortest pattern of these shards and no others."""
    start, _, _ = re.split(r"(\d|\.tar$)", chosen[0], maxsplit=1)
    short = Pattern(base, (f"{start}*.tar",))
    name = short.names[0] if short.select(list(shards)) == list(chosen) else f"{{{','.join(chosen)}}}"
    return f"{base}/{name}"


# A folder of images


def _pack(folder: str, labeled: bool) -> tuple[Path, bool]:
    """Pack a folder of images into the user's cache unless it is there; returns where, and whether it came split."""
    source = open_source(folder, "auto")
    if labeled and not source.has_labels:
        fix = "give each class a folder of its own, or pack it by mae-kit shard --labels TABLE.csv and give the shards"
        raise UserError("data.path.no_labels", f"{folder} holds images without labels ({source.kind})", fix)
    split = source.held_out is not None
    place = user_cache() / f"shards-{_key(folder, source)}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = f"set XDG_CACHE_HOME to a folder that can be written, or use mae-kit shard {folder} SHARDS"
        raise UserError("data.cache", f"{place.parent} cannot be made: {error.strerror}", fix) from None
    with FileLock(place.with_suffix(".lock")):
        if not (place / STATS).exists():
            log.info("%s: %s, packed once into %s", folder, source.kind, place)
            pack_source(source if split else _hold_out(source), place, PackSettings())
    _say(folder, place, split)
    return place, split


@functools.cache  # once for a process: a command resolves each split
def _say(folder: str, place: Path, split_before: bool) -> None:
    packed = cast(dict[str, Any], read_stats(place, None))
    train, val = (packed["splits"][split]["images"] for split in ("train", "val"))
    kept = f", {train:,} images to train on and {val:,} to score on" if split_before else ""
    log.info(f"{folder} is read from {place}{kept}")
    if skipped := packed["skipped"]:
        files = "1 file is" if skipped == 1 else f"{skipped:,} files are"
        log.warning(f"{folder}: {files} left out, whole or in part, listed with reasons in {place / SKIPPED}")


def _hold_out(source: Source) -> Source:
    """Hold out a tenth, by name, so that images added later move none from one split to the other."""
    order = draws(source.names, 0)[:, 0]
    held_out = order / 2**64 < HELD_OUT_FRACTION
    held_out[order.argmin()] = len(held_out) > 1
    return replace(source, held_out=held_out if held_out.any() else None)


def _key(folder: str, source: Source) -> str:
    """A hash of names, sizes and times of change."""
    changed = [os.stat(os.path.join(folder, name)).st_mtime_ns for name in source.names]
    digest = hashlib.sha256("\n".join(source.names).encode("utf-8", "surrogateescape"))
    digest.update(np.array(changed, np.int64).tobytes() + np.asarray(source.sizes, np.int64).tobytes())
    return digest.hexdigest()[:16]
