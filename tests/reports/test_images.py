from pathlib import Path

import numpy as np

from mae_kit.files.run_folder import RunFolder
from mae_kit.plots.reconstructions import save_png
from mae_kit.reports.images import plots


def test_existing_plots_are_shown_in_order(tmp_path: Path):
    assert plots(RunFolder(tmp_path)) == ""
    for name in ("ratios", "attention", "another"):
        save_png(RunFolder(tmp_path).plot(name), np.zeros((8, 8, 3), np.uint8))
    shown = plots(RunFolder(tmp_path))
    assert shown.count("<img") == 2
    assert shown.index("Attention") < shown.index("Reconstructions at several mask ratios")
