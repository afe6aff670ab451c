"""Files of a run that were bent or made up are named by those that go on from them."""
# Also tests files/plain_types.py.

import math
from pathlib import Path
from typing import Any

import pytest
from support.bent_files import RECORDS, bent, write
from support.errors import raises

from mae_kit.comparison.entries import check_same_comparison
from mae_kit.comparison.plan import Comparison, Recipe
from mae_kit.errors import UserError
from mae_kit.evaluation.known import with_earlier
from mae_kit.files.json_file import MAX_DEPTH
from mae_kit.files.plain_types import mismatch
from mae_kit.files.run_records import KINDS, read_record


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 5000, b'{"a":' * 5000, b"null", b"[]", b"1e999"])
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_named(name: str, text: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(text)
    with raises(f"{name.removesuffix('.json')}.damaged") as error:
        read_record(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_earlier_results_that_are_bent(tmp_path: Path):
    """`evaluate` and `compare` go on from them."""
    plan = Comparison("a", "b", "c", 1, 128, {}, Recipe(), 1, None, {"images": "0"})
    for content in list(bent(RECORDS["compare.json"]))[::7]:
        write(tmp_path, "compare.json", content)
        try:
            check_same_comparison(plan, tmp_path)
        except UserError as error:
            assert "\n" not in str(error)
    now = RECORDS["evaluation.json"]
    for content in list(bent(now))[::7]:
        write(tmp_path, "evaluation.json", content)
        try:
            with_earlier(now, tmp_path / "evaluation.json")
        except UserError as error:
            assert "evaluation.json" in str(error)


@pytest.mark.parametrize(
    ("value", "kind", "fault"),
    [
        (1, float, ""),
        (True, int, "it is True"),
        (math.nan, float, ""),
        (math.inf, float, "it is inf"),
        (2**63, int, f"it is {2**63}"),
        ({"a": [1, "x"]}, dict[str, list[int]], "a[] is 'x'"),
        ({"a": None}, dict[str, int | None], ""),
        ({}, KINDS["tuning.json"], "it has no cross_validated"),
    ],
)
def test_types_of_plain_values(value: Any, kind: Any, fault: str):
    assert mismatch(value, kind) == fault


def test_depth_within_the_bound(tmp_path: Path):
    (tmp_path / "result.json").write_text('{"samples": 1, "x": ' + "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2) + "}")
    assert read_record(tmp_path / "result.json")["samples"] == 1
