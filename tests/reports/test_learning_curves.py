"""The curves of a comparison: what lies along their axes."""
# Also tests reports/curves.py, reports/drawing.py.

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from markupsafe import Markup
from matplotlib.figure import Figure

from mae_kit.commands.report import report
from mae_kit.reports import drawing
from mae_kit.reports import learning_curves as module
from mae_kit.reports.drawing import INSIDE, dress
from mae_kit.reports.learning_curves import learning_curves

COST = {"steps": 8, "images": 128.0, "flops": 128 * 5e9}  # 5e9 an image


def write_run(run: Path, scores: dict[int, float], metric: str) -> None:
    """Of 8 steps of 16 images, 60 seconds a step."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"batch_size": 16}}))
    clocks = [(2, 120.0), (4, 240.0), (6, 360.0), (8, 480.0)]
    rows = [{"step": step, "seconds": seconds, "loss": 1 / step} for step, seconds in clocks]
    rows += [{"step": step, metric: score} for step, score in scores.items()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def drawn(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def line(axes: Any, places: np.ndarray, values: np.ndarray, color: str, label: str, dashes: str) -> None:
        calls.append((places.tolist(), values.tolist(), color, dashes))
        drawing.line(axes, places, values, color, label, dashes)

    monkeypatch.setattr(module, "line", line)
    return calls


def test_scores_and_losses_lie_over_images_minutes_and_operations(tmp_path: Path, drawn: list[tuple[Any, ...]]):
    write_run(tmp_path / "mae-seed0/pretrain", {5: 0.25, 8: 0.5}, "knn_top1")
    row = {"name": "mae", "seeds": 1, "pretraining": COST, "finetuning": {}}
    page = learning_curves(tmp_path, [row])
    scores = [places for places, values, *_ in drawn if values == [25, 50]]
    assert scores == [[80, 128], [5, 8], [80 * 5e9, 128 * 5e9]]  # 5: between two steps that have a time
    losses = [places for places, values, *_ in drawn if values == [1 / 2, 1 / 4, 1 / 6, 1 / 8]]
    assert losses == [[32, 64, 96, 128], [2, 4, 6, 8], [160e9, 320e9, 480e9, 640e9]]
    assert [f">{title}</label>" in page for title in ("Images seen", "Minutes", "FLOPs")] == [True] * 3


def test_more_entries_than_colors_have_other_dashes(tmp_path: Path, drawn: list[tuple[Any, ...]]):
    rows = [{"name": f"entry{n}", "seeds": 1, "pretraining": {}, "finetuning": COST} for n in range(9)]
    for row in rows:
        write_run(tmp_path / f"{row['name']}-seed0/finetune", {8: 0.5}, "val_top1")
    learning_curves(tmp_path, rows)
    looks = {(color, dashes) for *_, color, dashes in drawn}
    assert len(looks) == 9 and len({color for color, _ in looks}) == 7


def test_runs_whose_cost_is_not_known_have_no_places_over_operations(tmp_path: Path, drawn: list[tuple[Any, ...]]):
    write_run(tmp_path / "mae-seed0/pretrain", {}, "knn_top1")
    write_run(tmp_path / "mae-seed0/finetune", {8: 0.25}, "val_top1")  # failed: what it wrote stays
    write_run(tmp_path / "late-seed0/pretrain", {}, "knn_top1")  # began after compare.json was written
    none: dict[str, Any] = {"encoder": None, "scores": {}, "differences": {}, "finetuning": {}, "failures": []}
    none |= {"seeds": 1, "recipes": {}}
    rows = [{"name": "mae", "pretraining": COST | {"seconds": 1, "core_seconds": 1}} | none]
    rows.append({"name": "late", "pretraining": {}} | none)
    found = {"images_seen": 128, "entries": rows}
    (tmp_path / "compare.json").write_text(json.dumps(found))
    page = Path(report(tmp_path)["report"]).read_text()
    assert [places for places, values, *_ in drawn if values == [25]] == [[128], [8]]
    assert page.count("Loss of mae</figcaption>") == 3 and page.count("Loss of late</figcaption>") == 2


def test_where_no_cost_is_known_operations_are_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "chart", lambda *_: drawing.Chart("", Markup()))
    write_run(tmp_path / "mae-seed0/pretrain", {}, "knn_top1")
    page = learning_curves(tmp_path, [{"name": "mae", "seeds": 1, "pretraining": {}, "finetuning": {}}])
    assert [f">{title}</label>" in page for title in ("Images seen", "Minutes", "FLOPs")] == [True, True, False]


def test_nothing_trained_is_nothing_drawn(tmp_path: Path):
    assert learning_curves(tmp_path, [{"name": "mae", "seeds": 1, "pretraining": {}, "finetuning": {}}]) == ""


@pytest.mark.parametrize("lines", [1, INSIDE, INSIDE + 1])
def test_names_of_many_lines_stand_beside_them(lines: int):
    axes = Figure().subplots()
    for number in range(lines):
        axes.plot([0, 1], [number, 1], label=str(number))
    dress(axes, "Images seen", 1, legend=lines > 1)
    beside = axes.figure.legends
    assert [len(legend.get_texts()) for legend in beside] == ([lines] if lines > INSIDE else [])
    assert (axes.get_legend() is not None) == (1 < lines <= INSIDE)


def test_points_at_the_edges_of_the_axes_are_drawn_whole():
    axes = Figure().subplots()
    drawing.line(axes, np.array([0, 10]), np.array([0.0, 1.0]), "blue", "")
    dress(axes, "step", 10, legend=False)
    axes.set_ylim(bottom=0)
    assert not axes.lines[0].get_clip_on()
