"""What a pretraining shows of itself: at the right steps, the same patches hidden, and without touching the run."""
# Also tests training/periodic.py.

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from support.photo_shards import CLASSES
from support.processes import Programs

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.plots.callbacks import KnnScore
from mae_kit.training.periodic import Periodic
from mae_kit.training.record import Record
from mae_kit.training.signals import StopOnSignal


class Counting(Periodic):
    def __init__(self, every: int):
        super().__init__(every)
        self.steps: list[int] = []

    def act(self, trainer: Any, pl_module: Any) -> None:
        assert not pl_module.training and not torch.is_grad_enabled()
        self.steps.append(trainer.global_step)


class Watched(Trainer):
    """What callbacks see of a trainer."""

    precision_plugin: Any = SimpleNamespace(forward_context=torch.no_grad)
    is_global_zero: Any = True
    world_size: Any = 1
    global_step: Any = 0
    max_steps: Any = 0
    accumulate_grad_batches: Any = 2
    strategy: Any = None

    def __init__(self, *callbacks: Callback):
        self.callbacks = list(callbacks)


@pytest.mark.parametrize(
    ("steps", "stopped", "seen"),
    [(10, 10, [4, 8, 10]), (8, 8, [4, 8]), (10, 9, [4, 8]), (3, 3, [3])],
    ids=["a last one at the end", "not twice at the end", "not where a signal stops it", "at least one"],
)
def test_when_it_acts(steps: int, stopped: int, seen: list[int]):
    callback, module, record = Counting(4), LightningModule(), Told()
    trainer = Watched(record)
    trainer.max_steps = steps
    for trainer.global_step in range(1, stopped + 1):
        for part in range(2):
            callback.on_train_batch_end(trainer, module, {}, None, part)
    callback.on_train_end(trainer, module)
    assert callback.steps == seen and module.training
    assert len(record.left_out) == len(seen), "it is not time of the steps"


class Told(Record):
    """A record that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []
        self.left_out: list[float] = []

    def leave_out(self, seconds: float) -> None:
        self.left_out.append(seconds)

    def write(self, trainer: Any, pl_module: Any, values: dict[str, float]) -> None:
        self.told.append(values)


class Oracle(torch.nn.Module):
    """An encoder whose tokens say which of the first samples the image is: a perfect feature, or none."""

    prefix = 1

    def __init__(self, labels: list[int], perfect: bool):
        super().__init__()
        self.labels, self.perfect, self.seen = labels, perfect, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        labels = torch.tensor(self.labels[self.seen : self.seen + len(images)])
        self.seen += len(images)
        feature = torch.nn.functional.one_hot(labels, 4).float() if self.perfect else torch.ones(len(images), 4)
        return torch.cat([torch.full((len(images), 1, 4), 99.0), feature[:, None].expand(-1, 2, -1)], dim=1)


@pytest.mark.parametrize(("perfect", "score"), [(True, 1.0), (False, 0.25)])
def test_the_knn_score_is_the_accuracy_on_half_of_the_samples(photos: Path, perfect: bool, score: float):
    index, rows = open_index(photos / "train-*.tar"), np.arange(96)
    assert index.label[:8].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]  # every other sample would miss half of the classes
    batches = EvaluationBatches(index, rows, 16, (16, 16))
    objective = SimpleNamespace(encoder=Oracle(index.label[rows].tolist(), perfect))
    module: Any = SimpleNamespace(
        objective=objective,
        augment=SimpleNamespace(normalize=lambda images: images.float()),
        transfer_batch_to_device=lambda batch, device, number: batch,
        device="cpu",
    )
    told = Told()
    signals = StopOnSignal()
    KnnScore(batches, 4, 10).act(Watched(told, signals), module)
    signals.close()
    assert told.told == [{"knn_top1": pytest.approx(score, abs=0.15 * (not perfect)), "knn_images": 48}]


@pytest.mark.long
def test_looking_does_not_change_the_run(programs: Programs, trained: Path, photos: Path, tmp_path: Path):
    run = tmp_path / "run"
    words = ["--intervals.eval_every_n_steps", "4", "--data.knn_shards", photos / "val-*.tar"]
    ended = programs.run("pretrain", "--config", trained / "config.yaml", "--run", run, *words)
    assert ended.code == 0, ended.err
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["knn_top1"] for row in rows if "knn_top1" in row}
    assert list(scores) == [0, 4, 8, 12, 16, 18] and all(0 <= score <= 1 for score in scores.values())
    assert max(scores.values()) > 1 / len(CLASSES)
    pictures = sorted(path.name for path in (run / "reconstructions").iterdir())
    assert pictures == [f"step-{step:08d}.png" for step in (4, 8, 12, 16, 18)]
    last = run / "reconstructions" / pictures[-1]
    assert last.read_bytes() == (trained / "reconstructions" / last.name).read_bytes(), "the same probe, hidden alike"
