"""The benchmark of a GPU, of tiny models on whatever is here."""

import json
import subprocess
from pathlib import Path

import pytest
from support.processes import Programs


@pytest.mark.long
def test_all_of_it_runs(programs: Programs, tmp_path: Path):
    words = [Path(__file__).with_name("gpu.py"), "--tiny", "--minutes", "5", "--out", tmp_path]
    subprocess.run([programs.python, *words], check=True)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["masks"] == {"random": True, "block": True, "grid": True}
    assert found["resumed"]["killed"] == pytest.approx(found["resumed"]["whole"], rel=1e-6)
    paces = found["vit_tiny_patch16_224"].values()
    assert len(paces) == 4 and all(0 < each["of_peak"] < 1 for each in paces)
    assert found["teraflops"] > 0 and found["images_per_second_loaded"] > 0
