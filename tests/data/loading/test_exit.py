"""A program that keeps a loader ends all the same."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import mae_kit as mk

if __name__ == "__main__":
    data = mk.ShardDataModule(sys.argv[1], batch_size=16, image_size=32, num_workers=1)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    next(batches)
"""


@pytest.mark.slow
def test_workers_end_with_a_program_that_has_not_taken_all_batches(photos: Path, tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, str(tmp_path / "program.py"), str(photos / "train-*.tar")]
    assert subprocess.run(words, timeout=120, check=False).returncode == 0
