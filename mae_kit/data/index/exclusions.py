"""The list of samples that training leaves out: lines that a person can read, bound to the shards it was made for."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Int64

from mae_kit.data.index.open import Index
from mae_kit.errors import UserError
from mae_kit.files.durable import replace_text, replacing
from mae_kit.files.json_file import parse_json
from mae_kit.files.plain_types import mismatch

FORMAT = "mae_kit-exclusions"


class _Head(TypedDict):
    format: str
    version: int
    contents: dict[str, str]


class _Line(TypedDict):
    shard: str
    key: str


class Kept(NamedTuple):
    """The samples that a run is made of.

    Attributes:
        rows: Of the index, ascending.
        fingerprint: Of the index and of what is left out.
    """

    rows: Int64[np.ndarray, " m"]
    fingerprint: str


def write_exclusions(path: Path, index: Index, lines: Iterable[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the list: a head, then a line for each sample that goes.

    Args:
        path: The file, .jsonl.
        index: The shards it is for; the head holds a hash of what is in each.
        lines: Of each sample its `shard` and `key`, and any reasons.
        settings: What the list was made with, for the reader.
    """
    head = {"format": FORMAT, "version": 1, **settings, "contents": index.contents}
    replace_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in (head, *lines)))


def write_keep_list(path: Path, index: Index, rows: Int64[np.ndarray, " m"]) -> None:
    """Write what stays, for other programs: a line for each sample, its `shard` and `key`."""
    with replacing(path) as making, making.open("w", encoding="utf-8") as file:
        for row in rows.tolist():
            line = {"shard": index.shards[int(index.shard[row])], "key": index.keys[row]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def kept(index: Index, exclude: str | None) -> Kept:
    """The rows of an index but for those on a list; all of them without a list.

    Raises:
        UserError: There is no such list, or it was made for other shards.
    """
    if exclude is None:
        return Kept(np.arange(len(index)), index.fingerprint)
    contents, gone = _read(Path(exclude))
    changed = [name for name, content in index.contents.items() if contents.get(name) != content]
    if changed:
        what = f"{exclude} was made for other shards: {changed[0]} is new or has changed"
        raise UserError("data.exclude.other_shards", what, "make the list again with `mae-kit dedup`")
    names = [index.shards[number] for number in index.shard.tolist()]
    stays = np.array([place not in gone for place in zip(names, index.keys, strict=True)], dtype=bool)
    rows = np.flatnonzero(stays)
    if not len(rows):
        raise UserError(
            "data.exclude.everything", f"{exclude} leaves no sample", "check the reasons it lists, or give other shards"
        )
    return Kept(rows, hashlib.sha256(index.fingerprint.encode() + rows.tobytes()).hexdigest())


def _read(path: Path) -> tuple[dict[str, str], set[tuple[str, str]]]:
    """Contents of the shards it was made for, and (shard, key) of the samples that go."""
    fix = "give the duplicates.jsonl that `mae-kit dedup` wrote"
    if not path.is_file():
        raise UserError("data.exclude.missing", f"no list of samples to leave out at {path}", fix)
    try:
        head, *lines = map(parse_json, path.read_bytes().splitlines())
    except ValueError as error:
        raise UserError("data.exclude.json", f"{path} is not a list of samples to leave out ({error})", fix) from error
    if fault := mismatch(head, _Head) or mismatch(lines, list[_Line]):
        raise UserError("data.exclude.damaged", f"{path} is not a list of samples to leave out: {fault}", fix)
    if (head["format"], head["version"]) != (FORMAT, 1):
        raise UserError(
            "data.exclude.version", f"{path} is of format {head['format']!r}, version {head['version']!r}", fix
        )
    return head["contents"], {(line["shard"], line["key"]) for line in lines}
