"""How long the pretrainings of a comparison are: counted, or timed by a trial that is made up."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import FINETUNE, PRETRAIN
from support.photo_shards import write_shard
from support.processes import Programs

from mae_kit.comparison import ledger
from mae_kit.comparison.cost import flops_per_image
from mae_kit.comparison.length import TRIAL_STEPS, TRIAL_WARM_UP, known_length, length
from mae_kit.comparison.plan import Plan, read_plan
from mae_kit.comparison.process import Failed
from mae_kit.encoders import ViT
from mae_kit.errors import UserError
from mae_kit.objectives import MAE


class Trial:
    """Stands for the process: two seconds a step, the first ones slower."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.broken = False

    def __call__(self, words: list[str], log: Path) -> dict[str, Any]:
        self.words.append(words)
        run = Path(words[words.index("--run") + 1])
        assert not run.exists(), "what is left of an earlier one is thrown away"
        run.mkdir()
        (run / "config.yaml").write_text(yaml.safe_dump({"data": {"batch_size": 16}}))
        if self.broken:
            raise Failed("no memory")
        rows = [{"step": step, "seconds": 100 + 2.0 * step, "images_per_second": 8} for step in (8, 16, 24)]
        rows.append({"step": 20, "audit_keys": 1})
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"steps": 24}


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trial:
    trials = Trial()
    monkeypatch.setattr(ledger, "run_command", trials)
    return trials


def plan(folder: Path, overrides: dict[str, Any], **amount: float) -> Plan:
    """Of two entries, 40 images and an amount of something."""
    write_shard(folder / "train.tar", range(40))
    (folder / "pre.yaml").write_text(PRETRAIN)
    (folder / "fine.yaml").write_text(FINETUNE)
    mae = {"config": str(folder / "pre.yaml"), "overrides": overrides}
    content = {
        "shards": str(folder / "train.tar"),
        "val": str(folder / "train.tar"),
        "entries": {"mae": mae, "scratch": {"config": None}},
        "finetune": {"config": str(folder / "fine.yaml")},
    }
    (folder / "compare.yaml").write_text(yaml.safe_dump(content | amount, sort_keys=False))
    return read_plan(folder / "compare.yaml")


def test_minutes_are_what_a_trial_makes_of_them_and_stay_so(tmp_path: Path, trials: Trial):
    made = plan(tmp_path, {}, minutes=1.5)
    assert known_length(made, "mae", tmp_path) is None and not trials.words
    found = length(made, "mae", tmp_path)["result"]
    assert found == {"images_per_second": 8, "images": 720}, "16 images in 2 seconds, 90 seconds"
    assert known_length(made, "mae", tmp_path) == 720
    (words,) = trials.words
    assert words[0] == "pretrain" and words[words.index("--optimization.epochs") + 1] == f"{TRIAL_STEPS * 16 / 40:g}"
    assert words[words.index("--intervals.log_every_n_steps") + 1] == str(TRIAL_WARM_UP)
    assert not (tmp_path / "mae-minutes/pretrain").exists(), "the trial is thrown away"
    assert length(made, "mae", tmp_path)["result"] == found and len(trials.words) == 1
    assert length(made, "scratch", tmp_path)["result"] == {"images": 0}
    counted = length(plan(tmp_path, {}, flops=1e10), "mae", tmp_path)["result"]
    assert counted.keys() == {"flops_per_image", "images"}, "what was timed is no count"


def test_a_trial_that_was_killed_or_failed_is_made_anew(tmp_path: Path, trials: Trial):
    made = plan(tmp_path, {}, minutes=1)
    trials.broken = True
    assert length(made, "mae", tmp_path)["error"] == "no memory"
    left = tmp_path / "mae-minutes/pretrain"
    left.mkdir()
    (left / "config.yaml").touch()
    trials.broken = False
    assert length(made, "mae", tmp_path)["result"]["images"] == 480 and "--resume" not in trials.words[1]


@pytest.mark.slow
def test_operations_are_counted_before_any_training(tmp_path: Path, trials: Trial):
    one = length(plan(tmp_path, {}, flops=1e10), "mae", tmp_path / "out")["result"]
    encoder = ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    assert one["flops_per_image"] == flops_per_image(MAE(encoder, decoder_dim=32, decoder_depth=1, decoder_heads=2))
    assert one["images"] == pytest.approx(1e10 / one["flops_per_image"]) and not trials.words
    deeper = plan(tmp_path, {"objective.encoder.depth": 4}, flops=1e10)
    more = length(deeper, "mae", tmp_path / "other")["result"]
    assert more["flops_per_image"] > 1.4 * one["flops_per_image"] and more["images"] < one["images"]
    with pytest.raises(UserError, match=r"mae-flops/pretrain was .*encoder.depth nothing then, 4 now\): put"):
        length(deeper, "mae", tmp_path / "out")


def test_an_entry_that_cannot_be_counted_has_failed(tmp_path: Path, trials: Trial):
    made = plan(tmp_path, {"objective.mask_ratio": 3}, flops=1e10)
    assert "mask_ratio" in length(made, "mae", tmp_path)["error"]


@pytest.mark.slow
def test_a_trial_that_is_real(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ledger, "run_command", lambda words, log: json.loads(programs.run(*words, "--json").out))
    started = time.perf_counter()
    found = length(plan(tmp_path, {}, minutes=1), "mae", tmp_path)["result"]
    elapsed = time.perf_counter() - started
    assert found["images_per_second"] > TRIAL_STEPS * 16 / elapsed, "of the steps alone, not of what comes before them"
    assert found["images"] == 60 * found["images_per_second"]
