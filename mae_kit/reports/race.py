"""Entries of a comparison over the images they have seen, their time and their arithmetic: losses, and scores."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from mae_kit.reports.curves import ABOUT_KNN
from mae_kit.reports.drawing import COLORS, chart, dress, line
from mae_kit.reports.folder import read_batch_size
from mae_kit.reports.html import choice, note, section
from mae_kit.training.metrics import Row, read_metrics, series

ALONG = ("Images seen", "Minutes", "FLOPs")
DASHES = ("-", "--", ":")  # where there are more entries than colors
COSTS = {"pretrain": "pretraining", "finetune": "finetuning"}  # of a verb, in a row of compare.json


class Track(NamedTuple):
    """One metric of one run.

    Attributes:
        entry: Its name.
        color: The entry's.
        dashes: The entry's.
        places: When it was measured, on each axis of `ALONG`; not on the last one where the cost is not known yet.
        values: What was measured.
    """

    entry: str
    color: str
    dashes: str
    places: tuple[np.ndarray, ...]
    values: np.ndarray


def race(folder: Path, rows: list[Row]) -> str:
    """Of the runs of all seeds in the folder of a comparison.

    Args:
        folder: Of the comparison.
        rows: The entries of its compare.json.
    """
    losses, *knn = (_tracks(folder, rows, "pretrain", metric) for metric in ("loss", "knn_top1", "knn_map"))
    tuned = [_tracks(folder, rows, "finetune", metric) for metric in ("val_top1", "val_map")]
    small = {f"Loss of {row['name']}": [track for track in losses if track.entry == row["name"]] for row in rows}
    whens = ("kNN {} in pretraining, %", "Validation {} in fine-tuning, %")
    titles = [when.format(name) for when in whens for name in ("top-1", "mAP")]
    large = dict(zip(titles, (*knn, *tuned), strict=True))
    views = {name: view for axis, name in enumerate(ALONG) if (view := _charts(large, small, axis))}
    if not views:
        return ""
    about = note("A line for each seed. Losses of different objectives are not to be compared. " + ABOUT_KNN)
    return section("Over images, time and operations", choice("along", views), about)


def runs_of(folder: Path, row: Row, verb: str) -> list[Path]:
    """Of all seeds of an entry, whether they have begun or not."""
    return [folder / f"{row['name']}-seed{seed}" / verb for seed in range(row["seeds"])]


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
    """Steps and seconds, from nothing on."""
    steps, seconds = series(metrics, "seconds")
    return np.append(0, steps), np.append(0, seconds)


def _flops(images: np.ndarray, cost: Row) -> list[np.ndarray]:
    """Nothing where a run has begun after the row was written, or has not ended as its cost has to."""
    return [images * cost["flops"] / cost["images"]] if cost.get("flops") else []


def _charts(large: dict[str, list[Track]], small: dict[str, list[Track]], axis: int) -> str:
    large, small = _along(large, axis), _along(small, axis)
    if not (large or small):
        return ""
    scores = "".join(_chart(title, tracks, axis, 100, 2) for title, tracks in large.items())
    losses = "".join(_chart(title, tracks, axis, 1, len(small)) for title, tracks in small.items())
    return f'<div class=charts>{scores}</div><div class="charts small">{losses}</div>'


def _along(charts: dict[str, list[Track]], axis: int) -> dict[str, list[Track]]:
    """The charts that have a track with places on that axis, each with these tracks alone."""
    found = {title: [track for track in tracks if axis < len(track.places)] for title, tracks in charts.items()}
    return {title: tracks for title, tracks in found.items() if tracks}


def _chart(title: str, tracks: list[Track], axis: int, scale: float, panels: int) -> str:
    prefix = "".join(filter(str.isalnum, title))
    return chart(title, panels, partial(_draw, tracks=tracks, axis=axis, scale=scale), f"race-{axis}-{prefix}")


def _draw(axes: Axes, tracks: list[Track], axis: int, scale: float) -> None:
    told: set[str] = set()
    for entry, color, dashes, places, values in tracks:
        line(axes, places[axis], values * scale, color, "" if entry in told else entry, dashes)
        told.add(entry)
    dress(axes, ALONG[axis], max(track.places[axis][-1] for track in tracks), legend=len(told) > 1)
