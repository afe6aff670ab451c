"""Entries of a comparison over the images they have seen: each one's own loss, and the scores of all."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from mae_kit.reporting.curves import ABOUT_KNN
from mae_kit.reporting.drawing import COLOURS, chart, dress, line
from mae_kit.reporting.folder import read_batch_size, read_metrics, series
from mae_kit.reporting.page import note, section

ALONG = "images seen"


class Track(NamedTuple):
    """One metric of one run.

    Attributes:
        entry: Its name.
        colour: The entry's.
        images: Seen when it was measured.
        values: What was measured.
    """

    entry: str
    colour: str
    images: np.ndarray
    values: np.ndarray


def race(folder: Path, names: list[str]) -> str:
    """Of the runs of all seeds in the folder of a comparison.

    Args:
        folder: Of the comparison.
        names: Of its entries.
    """
    losses, *knn = (_tracks(folder, names, "pretrain", metric) for metric in ("loss", "knn_top1", "knn_map"))
    tuned = [_tracks(folder, names, "finetune", metric) for metric in ("val_top1", "val_map")]
    own = [[track for track in losses if track.entry == name] for name in names]
    shown = [(f"Loss of {tracks[0].entry}", tracks, 1) for tracks in own if tracks]
    small = "".join(_chart(title, tracks, scale, len(shown)) for title, tracks, scale in shown)
    whens = ("kNN {} in pretraining, %", "Validation {} in fine-tuning, %")
    titles = [when.format(name) for when in whens for name in ("top-1", "mAP")]
    large = "".join(_chart(t, tracks, 100, 2) for t, tracks in zip(titles, (*knn, *tuned), strict=True) if tracks)
    about = note("A line for each seed. Losses of different objectives are not to be compared. " + ABOUT_KNN)
    rows = (f"<div class=charts>{large}</div>", f'<div class="charts small">{small}</div>', about)
    return section("Over the images seen", *rows) if large or small else ""


def _tracks(folder: Path, names: list[str], verb: str, metric: str) -> list[Track]:
    tracks = []
    for number, name in enumerate(names):
        for run in sorted(folder.glob(f"{name}-seed*/{verb}")):
            steps, values = series(read_metrics(run / "metrics.jsonl"), metric)
            if steps.size:
                colour = COLOURS[number % len(COLOURS)]
                tracks.append(Track(name, colour, steps * read_batch_size(run), values))
    return tracks


def _chart(title: str, tracks: list[Track], scale: float, panels: int) -> str:
    prefix = "".join(filter(str.isalnum, title))
    return chart(title, panels, partial(_draw, tracks=tracks, scale=scale), f"race-{prefix}")


def _draw(axes: Axes, tracks: list[Track], scale: float) -> None:
    told: set[str] = set()
    for entry, colour, images, values in tracks:
        line(axes, images, values * scale, colour, "" if entry in told else entry)
        told.add(entry)
    dress(axes, ALONG, max(track.images[-1] for track in tracks), legend=len(told) > 1)
