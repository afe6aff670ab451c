"""The list of samples to leave out: bound to its shards, readable, and never silently ignored."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.errors import raises
from support.photo_shards import write_shards

from mae_kit.data.index.exclusions import kept, write_exclusions
from mae_kit.data.index.open import Index, open_index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return open_index(write_shards(tmp_path / "shards"))


def excluded(path: Path, index: Index, rows: list[int]) -> str:
    lines = [{"shard": index.shards[index.shard[row]], "key": index.keys[row], "reason": "é"} for row in rows]
    write_exclusions(path, index, lines, {"distance": 8})
    return str(path)


def test_without_a_list_all_stay(index: Index):
    assert kept(index, None).rows.tolist() == list(range(128)) and kept(index, None).fingerprint == index.fingerprint


def test_what_is_listed_goes(index: Index, tmp_path: Path):
    left = kept(index, excluded(tmp_path / "list.jsonl", index, [3, 40, 127]))
    assert left.rows.tolist() == [row for row in range(128) if row not in (3, 40, 127)]
    other = kept(index, excluded(tmp_path / "list.jsonl", index, [3, 41, 127]))
    assert len({left.fingerprint, other.fingerprint, index.fingerprint}) == 3
    assert "é" in (tmp_path / "list.jsonl").read_text(encoding="utf-8")


def test_a_list_serves_a_part_of_its_shards_whatever_their_rows(index: Index, tmp_path: Path):
    path = excluded(tmp_path / "list.jsonl", index, [3, 40])
    part = open_index(index.folder / "train-1.tar")
    assert kept(part, path).rows.tolist() == np.delete(np.arange(32), 8).tolist()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no json",
        '{"format": "other", "version": 1}',
        '{"format": "mae_kit-exclusions", "version": 1, "contents": {}}',
        '{"format": "mae_kit-exclusions", "version": 1, "contents": {}}\n{"shard": "a"}',
    ],
)
def test_what_is_no_list_of_these_shards_is_refused(index: Index, tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "list.jsonl").write_text(text)
    with raises("data.exclude"):
        kept(index, str(tmp_path / "list.jsonl"))


def test_a_list_of_everything_is_refused(index: Index, tmp_path: Path):
    with raises("data.exclude"):
        kept(index, excluded(tmp_path / "list.jsonl", index, list(range(128))))


def test_a_shard_that_changed_is_named(index: Index, tmp_path: Path):
    path = excluded(tmp_path / "list.jsonl", index, [0])
    head, *rest = Path(path).read_text().splitlines()
    contents = json.loads(head)["contents"] | {"train-2.tar": "0" * 16}
    Path(path).write_text("\n".join([json.dumps(json.loads(head) | {"contents": contents}), *rest]))
    with raises("data.exclude"):
        kept(index, path)
