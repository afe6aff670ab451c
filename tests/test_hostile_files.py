"""Gate R20: whatever stands in a file: no process, foreign import, connection or write elsewhere; typed errors."""

import json
import subprocess
from pathlib import Path

import pytest
from support.gates import Measured
from support.processes import Programs

pytestmark = [pytest.mark.slow, pytest.mark.gate("R20")]

TIMES, FEW = 10_000, 40
TARGETS = [
    "recipes",
    "recipes of fine-tunings",
    "comparisons",
    "files of runs",
    "encoders",
    "classifiers",
    "models",
    "tokenizers",
    "folders of the Hub",
    "folders of shards",
    "annotations",
]
CODE = "import sys; sys.path.insert(0, {tests!r}); from support.audited import main; main(*sys.argv[1:])"


@pytest.mark.parametrize("target", TARGETS)
def test_no_file_does_more_than_be_read(
    programs: Programs, target: str, campaign: bool, measured: Measured, tmp_path: Path
):
    words = [programs.python, "-c", CODE.format(tests=str(Path(__file__).parent)), target, tmp_path]
    command = [*map(str, words), str(TIMES if campaign else FEW)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["seen"] == {} and found["owned"] == [], json.dumps(found, indent=1)
    measured(f"{found['read']:,} {target}")
