from pathlib import Path

import numpy as np

from mae_kit.plots.reconstructions import save_png
from mae_kit.reports.inside import inside


def test_the_pictures_that_are_there_are_shown(tmp_path: Path):
    assert inside(tmp_path / "inside") == ""
    for name in ("ratios", "attention", "another"):
        save_png(tmp_path / "inside" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    shown = inside(tmp_path / "inside")
    assert shown.count("<img") == 2
    assert shown.index("Attention") < shown.index("Reconstructions over the share that is hidden")
