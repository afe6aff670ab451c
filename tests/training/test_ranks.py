"""Ranks that were started differently are refused, by the setting that differs."""

from typing import Any

import pytest
from support.errors import raises

from mae_kit.training.ranks import SameOnAllRanks, check_same

SETTINGS: dict[str, Any] = {"seed": 0, "optimization": {"learning_rate": 0.1}, "samples": {"data": "abc"}, "run": "a"}


def told(**changed: Any) -> dict[str, Any]:
    return SameOnAllRanks(SETTINGS | changed, print).settings


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"optimization": {"learning_rate": 0.2}}, "optimization.learning_rate"),
        ({"samples": {"data": "other"}}, "samples.data"),
        ({"version": {"mae_kit": "9"}}, None),
    ],
)
def test_ranks_that_differ_are_refused_by_key(changed: dict[str, Any], key: str | None):
    if key:
        with raises(key):
            check_same([told(), told(), told(**changed)])


def test_places_and_speed_may_differ():
    check_same([told(), told(run="b", machine={"num_workers": 7})])


def test_other_versions_are_refused():
    with raises("version.torch"):
        check_same([told(), told() | {"version.torch": "0"}])
