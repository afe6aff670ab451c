"""Files of a run that were bent or made up: a page is made without what nothing reads, or the file is named."""

from pathlib import Path

import pytest
from support.bent_files import RECORDS, bent, write
from support.gates import Measured

from mae_kit.errors import UserError
from mae_kit.reports.folder import read_folder
from mae_kit.reports.model_card import _results
from mae_kit.reports.page import write_report


@pytest.mark.gate("R20")
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", RECORDS)
def test_a_page_of_bent_files(name: str, tmp_path: Path, campaign: bool, measured: Measured):
    """One line that names the file, or a page; whichever of its values is whatever."""
    for kept in ("metrics.jsonl", "config.yaml"):
        write(tmp_path, kept, RECORDS[kept])
        (tmp_path / "mae-seed0/pretrain").mkdir(parents=True, exist_ok=True)
        write(tmp_path / "mae-seed0/pretrain", kept, RECORDS[kept])
    every, refused = 1 if campaign else 23, 0
    variants = [RECORDS[name], *list(bent(RECORDS[name]))[::every]]
    for content in variants:
        write(tmp_path, name, content)
        try:
            write_report(tmp_path)
            _results(read_folder(tmp_path))
        except UserError as error:
            assert content is not RECORDS[name] and "\n" not in str(error) and tmp_path.name in str(error)
            refused += 1
    measured(f"every value of {name} replaced, {len(variants):,} times, {refused:,} refused")
