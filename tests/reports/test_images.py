from pathlib import Path

import numpy as np

from mae_kit.plots.reconstructions import save_png
from mae_kit.reports.images import plots


def test_existing_plots_are_shown_in_order(tmp_path: Path):
    assert plots(tmp_path / "inside") == ""
    for name in ("ratios", "attention", "another"):
        save_png(tmp_path / "inside" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    shown = plots(tmp_path / "inside")
    assert shown.count("<img") == 2
    assert shown.index("Attention") < shown.index("Reconstructions at several mask ratios")
