"""metrics.jsonl as a table."""

from pathlib import Path

from mae_kit.training.metrics import read_metrics


def test_a_torn_line_is_left_out_and_a_repeated_step_keeps_its_last_values(tmp_path: Path) -> None:
    with open(tmp_path / "metrics.jsonl", "w") as file:
        file.write('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 2, "knn_top1": 0.3}\n')
        file.write('{"step": 3, "lo\n{"step": 2, "loss": 1.5}\n[1]\n{"step": 4, "loss": 0.')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.5, "knn_top1": 0.3}]
