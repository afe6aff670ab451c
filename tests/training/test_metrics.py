"""metrics.jsonl as a table."""

import json
from pathlib import Path

from mae_kit.training.metrics import read_metrics


def test_a_torn_line_is_left_out_and_a_repeated_step_keeps_its_last_values(tmp_path: Path) -> None:
    with open(tmp_path / "metrics.jsonl", "w") as file:
        file.write('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 2, "knn_top1": 0.3}\n')
        file.write('{"step": 3, "lo\n{"step": 2, "loss": 1.5}\n[1]\n{"step": 4, "loss": 0.')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.5, "knn_top1": 0.3}]


def test_a_long_run_is_read_in_part(tmp_path: Path):
    lines = [json.dumps({"step": step, "loss": 1 / step}) for step in range(1, 20_001)]
    lines += [json.dumps({"step": step, "knn_top1": 0.5}) for step in range(1000, 20_001, 1000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    rows = read_metrics(tmp_path, 500)
    assert len(rows) <= 600 and (rows[0]["step"], rows[-1]["step"]) == (1, 20_000)
    assert sum("knn_top1" in row for row in rows) == 20 and rows[-1]["loss"] == 1 / 20_000
    assert len(read_metrics(tmp_path)) == 20_000
