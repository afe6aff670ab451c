"""Losses and scores of a comparison, over images seen, time and operations."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.curves import ABOUT_KNN
from mae_kit.reports.drawing import COLORS, Chart, chart, dress, line
from mae_kit.reports.folder import read_batch_size
from mae_kit.reports.render import render
from mae_kit.training.metrics import Row, read_metrics, series

ALONG = ("Images seen", "Minutes", "FLOPs")
DASHES = ("-", "--", ":")  # for more entries than colors
SCORES = {
    "kNN top-1 in pretraining, %": ("pretrain", "knn_top1"),
    "kNN mAP in pretraining, %": ("pretrain", "knn_map"),
    "Validation top-1 in fine-tuning, %": ("finetune", "val_top1"),
    "Validation mAP in fine-tuning, %": ("finetune", "val_map"),
    "Validation mean IoU in fine-tuning, %": ("finetune", "val_miou"),
    "Validation R2 in fine-tuning, %": ("finetune", "val_r2"),
}
COSTS = {"pretrain": "pretraining", "finetune": "finetuning"}  # key in a row of compare.json, by verb


class Track(NamedTuple):
    """One metric of one run.

    Attributes:
        entry: Its name.
        color: The entry's.
        dashes: The entry's.
        places: Where it was measured, on each axis of `ALONG`; without the last if the cost is not known yet.
        values: What was measured.
    """

    entry: str
    color: str
    dashes: str
    places: tuple[np.ndarray, ...]
    values: np.ndarray


def learning_curves(folder: Path, rows: list[Row]) -> Markup:
    """Draw the runs of all seeds.

    Args:
        folder: Of the comparison.
        rows: The entries of its compare.json.
    """
    losses = _tracks(folder, rows, "pretrain", "loss")
    small = {f"Loss of {row['name']}": [track for track in losses if track.entry == row["name"]] for row in rows}
    large = {title: _tracks(folder, rows, *of) for title, of in SCORES.items()}
    views = {
        name: (_charts(large, axis, 100, 2), _charts(small, axis, 1, len(small))) for axis, name in enumerate(ALONG)
    }
    known = {name: view for name, view in views.items() if any(view)}
    return render("learning_curves.html", views=known, about_knn=ABOUT_KNN) if known else Markup()


def runs_of(folder: Path, row: Row, verb: str) -> list[Path]:
    """The run folders of all seeds of an entry, whether they exist or not."""
    return [RunFolder(folder).training(row["name"], seed, verb) for seed in range(row["seeds"])]


def _tracks(folder: Path, rows: list[Row], verb: str, metric: str) -> list[Track]:
    tracks = []
    for number, row in enumerate(rows):
        look = COLORS[number % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]
        for run in runs_of(folder, row, verb):
            metrics = read_metrics(run)
            steps, values = series(metrics, metric)
            if steps.size:
                images = steps * read_batch_size(run)
                places = images, np.interp(steps, *_clock(metrics)) / 60, *_flops(images, row[COSTS[verb]])
                tracks.append(Track(row["name"], *look, places, values))
    return tracks


def _clock(metrics: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and seconds, starting at 0."""
    steps, seconds = series(metrics, "seconds")
    return np.append(0, steps), np.append(0, seconds)


def _flops(images: np.ndarray, cost: Row) -> list[np.ndarray]:
    """Empty if the cost of the run is not known yet."""
    return [images * cost["flops"] / cost["images"]] if cost.get("flops") else []


def _charts(charts: dict[str, list[Track]], axis: int, scale: float, panels: int) -> list[Chart]:
    """The charts that have a track on that axis."""
    drawn = []
    for title, tracks in charts.items():
        known = [track for track in tracks if axis < len(track.places)]
        if known:
            prefix = f"curves-{axis}-{''.join(filter(str.isalnum, title))}"
            drawn.append(chart(title, panels, partial(_draw, tracks=known, axis=axis, scale=scale), prefix))
    return drawn


def _draw(axes: Axes, tracks: list[Track], axis: int, scale: float) -> None:
    labeled: set[str] = set()
    for entry, color, dashes, places, values in tracks:
        line(axes, places[axis], values * scale, color, "" if entry in labeled else entry, dashes)
        labeled.add(entry)
    dress(axes, ALONG[axis], max(track.places[axis][-1] for track in tracks), legend=len(labeled) > 1)
