"""Gate R18: bytes changed at random, in everything that is read from outside; typed errors are the only answer."""

import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from support.fuzz_targets import READERS
from support.gates import Measured
from support.mutations import mutate

pytestmark = [pytest.mark.long, pytest.mark.gate("R18")]

TIMES = 10_000
FEW = 150  # without --campaign
GUIDED = Path(__file__).parent / "support" / "fuzz_guided.py"
PATH = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
Fuzz = Callable[[str, list[bytes], Callable[[bytes], None]], None]


@pytest.fixture
def fuzz(campaign: bool, measured: Measured) -> Fuzz:
    """Calls a reader with many mutations of some seeds; what it raises fails the test."""

    def run(what: str, seeds: list[bytes], read: Callable[[bytes], None]) -> None:
        times = TIMES if campaign else FEW

        @hypothesis.settings(max_examples=times, database=None)
        @hypothesis.given(st.sampled_from(seeds), st.randoms(use_true_random=False))
        def examples(seed: bytes, dice: random.Random) -> None:
            read(mutate(seed, dice))

        examples()
        measured(f"{times:,} {what}")

    return run


@pytest.mark.parametrize("reader", READERS)
def test_bytes_changed_by_chance(reader: str, fuzz: Fuzz, tmp_path: Path):
    fuzz(reader, *READERS[reader](tmp_path))


@pytest.mark.parametrize("reader", READERS)
def test_bytes_changed_toward_code_not_yet_reached(reader: str, campaign: bool, measured: Measured, tmp_path: Path):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: there is none for this system")
    if not campaign and reader != "checkpoints":
        pytest.skip("`make faults`")
    times = TIMES if campaign else FEW
    command = [sys.executable, str(GUIDED), reader, str(tmp_path), str(times)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": PATH})
    assert ended.returncode == 0 and "Done " in ended.stderr, (ended.stdout + ended.stderr)[-3000:]
    measured(f"{times:,} {reader} guided by coverage")
