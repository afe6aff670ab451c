"""PretrainModule, FinetuneModule and ShardDataModule under a plain Trainer, as users of Lightning write it."""
# Also tests training/datamodule.py, training/guard.py, training/module.py, training/quarantine.py.

import warnings
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from support.errors import raises
from torch.utils.data import DataLoader

from mae_kit.data.loading.batch import Batch
from mae_kit.encoders import ViT
from mae_kit.files.run_folder import RunFolder
from mae_kit.objectives import MAE, ContrastiveMAE
from mae_kit.randomness import repeated
from mae_kit.tasks.module import FinetuneModule
from mae_kit.training.checkpoint import DurableCheckpointIO, load_latest
from mae_kit.training.checkpoint_callback import Checkpoints
from mae_kit.training.config import Plan
from mae_kit.training.datamodule import ShardDataModule
from mae_kit.training.guard import SkipNonFinite
from mae_kit.training.metrics import read_metrics
from mae_kit.training.modules import PretrainModule
from mae_kit.training.precision import ScaledHalf
from mae_kit.training.quarantine import Quarantine
from mae_kit.training.record import Record

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def tiny_mae() -> MAE:
    torch.manual_seed(0)
    return MAE(ViT("vit_tiny_patch16_224", **TINY), decoder_dim=32, decoder_depth=1, decoder_heads=2)  # type: ignore[arg-type]


def trainer(steps: int, folder: Path, *callbacks: pl.Callback, **given: Any) -> pl.Trainer:
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        **(quiet | given),
    )


def shards(photos: Path) -> ShardDataModule:
    return ShardDataModule(photos, batch_size=16, image_size=32, num_workers=0)


def test_several_masks_are_those_of_so_many_passes():
    module = PretrainModule(tiny_mae(), lr=1e-3, masks=3, mean=[0.5] * 3, std=[0.25] * 3)
    images, seeds = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.arange(4)
    batch = Batch(images, torch.zeros(4), seeds, seeds, seeds, [])
    seen = module.augment(images, seeds)  # flipped by the images' own keys
    outcomes = [module.objective(seen, repeated(seeds, 3)[number::3]) for number in range(3)]
    losses = torch.stack([outcome.loss for outcome in outcomes])
    torch.testing.assert_close(module.loss(batch)["loss"], losses.mean())
    assert len({outcome.hidden.numpy().tobytes() for outcome in outcomes}) == 3


def test_an_image_is_not_to_be_told_from_itself():
    vit = ViT("vit_tiny_patch16_224", **TINY)  # type: ignore[arg-type]
    with raises("data.masks"):
        PretrainModule(ContrastiveMAE(vit, decoder_dim=32, decoder_depth=1, decoder_heads=2), lr=1e-3, masks=2)


def weights(module: pl.LightningModule) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@pytest.mark.parametrize("parts", [1, 2])
def test_a_resumed_training_is_the_same_training(photos: Path, tmp_path: Path, parts: int):
    """96 images are 6 steps an epoch: one training is stopped within the first, and all end within the second."""
    given: dict[str, Any] = {"accumulate_grad_batches": parts}
    whole = PretrainModule(tiny_mae(), lr=1e-3)
    trainer(8, tmp_path, **given).fit(whole, shards(photos))
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    half = PretrainModule(tiny_mae(), lr=1e-3)
    trainer(6, tmp_path, keep, **given).fit(half, shards(photos))
    for checkpoint in sorted(tmp_path.glob("*.ckpt")):
        resumed = PretrainModule(tiny_mae(), lr=1e-3)
        trainer(8, tmp_path, **given).fit(resumed, shards(photos), ckpt_path=str(checkpoint))
        assert torch.equal(weights(resumed), weights(whole)), checkpoint.name
        loaded = PretrainModule.load_from_checkpoint(checkpoint)
        assert loaded.hparams["lr"] == 1e-3 and isinstance(loaded.objective, MAE)


def test_the_loss_is_logged_and_validated(photos: Path, tmp_path: Path):
    fitted = trainer(6, tmp_path, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    fitted.fit(PretrainModule(tiny_mae(), lr=1e-3), shards(photos))
    assert "loss" in fitted.logged_metrics and "val_loss" in fitted.callback_metrics


def test_a_checkpoint_of_other_samples_is_refused(photos: Path, tmp_path: Path):
    trained = trainer(1, tmp_path)
    trained.fit(PretrainModule(tiny_mae(), lr=1e-3), shards(photos))
    trained.save_checkpoint(tmp_path / "one.ckpt")
    other = ShardDataModule(photos, batch_size=16, image_size=32, num_workers=0, seed=1)
    with raises("resume.settings"):
        trainer(2, tmp_path).fit(PretrainModule(tiny_mae(), lr=1e-3), other, ckpt_path=str(tmp_path / "one.ckpt"))


def test_a_trainer_saves_durably(photos: Path, tmp_path: Path):
    saved = trainer(1, tmp_path, plugins=[DurableCheckpointIO()])
    saved.fit(PretrainModule(tiny_mae(), lr=1e-3), shards(photos))
    saved.save_checkpoint(tmp_path / "step-00000001")
    state = load_latest(tmp_path)
    assert state and state["global_step"] == 1


class Images(torch.utils.data.Dataset):
    """Pairs of an image and its label; or images alone."""

    def __init__(self, images: torch.Tensor, labeled: bool):
        self.images, self.labeled = images, labeled

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> Any:
        return (self.images[item], item % 4) if self.labeled else self.images[item]


@pytest.mark.parametrize("labeled", [False, True])
@pytest.mark.parametrize("floats", [False, True])
def test_any_loader_of_images_feeds_it(tmp_path: Path, labeled: bool, floats: bool):
    images = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8)
    loader: Any = DataLoader(Images(images / 255 if floats else images, labeled), 8)
    module = PretrainModule(tiny_mae(), base_lr=1e-3, warmup_epochs=1, epochs=2)
    trainer(4, tmp_path).fit(module, loader)
    assert module.images_per_step == 8


def test_floats_and_bytes_are_the_same_images():
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    module = PretrainModule(tiny_mae(), lr=1e-3, mean=[0.5] * 3, std=[0.25] * 3, flip=False)
    seeds = torch.zeros(2, dtype=torch.int64)
    ours, theirs = (module.augment(module.as_batch(x).images, seeds) for x in (images, images / 255))
    torch.testing.assert_close(ours, theirs)
    assert module.objective.mean is not None
    assert torch.equal(module.objective.mean.flatten(), torch.full((3,), 0.5))


def test_normalized_images_are_refused():
    with raises("data.images"):
        PretrainModule(tiny_mae(), lr=1e-3).as_batch(torch.randn(4, 3, 32, 32))


def test_statistics_of_other_channels_are_refused():
    with raises("data.mean"):
        PretrainModule(tiny_mae(), lr=1e-3, mean=[0.5], std=[0.5])


def test_the_rate_of_a_line_is_that_of_its_step(photos: Path, tmp_path: Path):
    """The warm-up starts at 0: a line of the first step that had another rate would tell the next one's."""
    record = Record(RunFolder(tmp_path), every=1)
    module = PretrainModule(tiny_mae(), lr=1e-3, warmup_epochs=1, epochs=2)
    trainer(2, tmp_path, record, SkipNonFinite()).fit(module, shards(photos))
    record.close()
    rates = [row["lr"] for row in read_metrics(tmp_path)]
    assert rates == [0.0, pytest.approx(1e-3 / 6)]


def test_bad_samples_are_those_of_all_ranks(tmp_path: Path):
    ranks = Mock(spec=pl.Trainer, world_size=2, global_step=0, callbacks=[])
    ranks.strategy.root_device = "cpu"
    ranks.strategy.reduce = lambda values, reduce_op: values + 5  # those of the other rank
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", Plan(96, 16, 1, 0))
    nothing = torch.zeros(0, dtype=torch.int64)
    batch = Batch(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), nothing, nothing, nothing, nothing, ["{}", "{}"])
    quarantine.on_train_batch_start(ranks, pl.LightningModule(), batch, 0)
    state: dict[str, Any] = {}
    quarantine.on_save_checkpoint(ranks, pl.LightningModule(), state)
    assert quarantine.total(ranks) == state["bad_samples"] == 7
    resumed = Quarantine(tmp_path / "quarantine.jsonl", Plan(96, 16, 1, 0))
    resumed.on_load_checkpoint(ranks, pl.LightningModule(), state)
    assert resumed.total(ranks) == 7 + 5


class Poison(pl.Callback):
    """Gradients of some steps that are no number."""

    def __init__(self, *steps: int):
        self.steps = steps

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step in self.steps:
            next(p for p in pl_module.parameters() if p.grad is not None).grad[:] = torch.nan  # type: ignore[index]


def test_a_guard_skips_what_is_not_finite(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ends = []
    for by_itself in (False, True):
        monkeypatch.setattr("mae_kit.training.guard.skips_by_itself", lambda *_, here=by_itself: here)
        guard, module = SkipNonFinite(), PretrainModule(tiny_mae(), lr=1e-3)
        trainer(4, tmp_path, guard, Poison(1, 3)).fit(module, shards(photos))
        assert guard.counts["skipped_steps"] == 2 and torch.isfinite(weights(module)).all()
        ends.append(weights(module))
    assert torch.equal(*ends)


@pytest.mark.parametrize(("every", "skipped"), [(1, 3), (2, 4)])
def test_the_weights_go_back_also_where_the_norm_is_read_a_step_later(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, skipped: int
):
    """Before a checkpoint it is read at once; otherwise one more step is skipped, whose weights are gone."""
    monkeypatch.setattr("mae_kit.training.guard.skips_by_itself", lambda *_: True)
    guard, module = SkipNonFinite(tmp_path), PretrainModule(tiny_mae(), lr=1e-3)
    callbacks = guard, Checkpoints(tmp_path, every), Poison(2, 3, 4)
    trainer(8, tmp_path, *callbacks, plugins=[DurableCheckpointIO()]).fit(module, shards(photos))
    assert (guard.counts["skipped_steps"], guard.counts["rollbacks"]) == (skipped, 1)
    assert torch.isfinite(weights(module)).all()


class Burst(pl.Callback):
    """Gradients at step 1 that fp16 cannot hold at a large scale, or losses from there on that are no number."""

    def __init__(self, loss: float):
        self.loss = loss

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        if trainer.global_step == 1:
            loss.data.mul_(self.loss)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 1:
            next(p for p in pl_module.parameters() if p.grad is not None).grad[:] = torch.inf  # type: ignore[index]


@pytest.mark.parametrize(("loss", "overflows", "skipped"), [(1.0, 1, 0), (float("nan"), 0, 1)])
def test_an_overflow_in_fp16_is_no_fault(photos: Path, tmp_path: Path, loss: float, overflows: int, skipped: int):
    guard, module, half = SkipNonFinite(), PretrainModule(tiny_mae(), lr=1e-3), ScaledHalf("cpu")
    trainer(3, tmp_path, Burst(loss), guard, plugins=[half]).fit(module, shards(photos))
    assert (guard.counts["overflows"], guard.counts["skipped_steps"]) == (overflows, skipped)
    assert torch.isfinite(weights(module)).all()
    assert half.scaler is not None and half.scaler.get_scale() == 2.0**15  # halved once from its start


def test_gradients_in_fp16_are_unscaled_where_they_are_clipped(photos: Path, tmp_path: Path):
    norms = []
    for plugins in ([], [ScaledHalf("cpu")]):
        guard, module = SkipNonFinite(), PretrainModule(tiny_mae(), lr=1e-3, clip=0.1)
        trainer(2, tmp_path, guard, plugins=plugins).fit(module, shards(photos))
        norms.append(float(guard.gradient_norm))
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_fp16_resumes_with_its_scale(photos: Path, tmp_path: Path):
    ends = []
    for steps in ((4,), (2, 4)):
        module, folder = PretrainModule(tiny_mae(), lr=1e-3), tmp_path / str(len(steps))
        for number, last in enumerate(steps):
            saved, half = ModelCheckpoint(folder, save_last=True), ScaledHalf("cpu")
            fitted = trainer(last, folder, SkipNonFinite(), Burst(1.0), saved, plugins=[half])
            fitted.fit(module, shards(photos), ckpt_path=str(folder / "last.ckpt") if number else None)
        assert half.scaler is not None
        ends.append((half.scaler.state_dict(), weights(module)))
    assert ends[0][0] == ends[1][0] and torch.equal(ends[0][1], ends[1][1])


def test_a_classifier_is_trained_and_validated(photos: Path, tmp_path: Path):
    torch.manual_seed(0)
    encoder = ViT("vit_tiny_patch16_224", **TINY)  # type: ignore[arg-type]
    before = encoder.model.blocks[0].attn.qkv.weight.clone()
    module = FinetuneModule(encoder, num_classes=4, lr=1e-3, layer_decay=0.75)
    assert torch.equal(before, module.model.blocks[0].attn.qkv.weight)  # type: ignore[union-attr, index]
    fitted = trainer(6, tmp_path, ModelCheckpoint(tmp_path))
    fitted.fit(module, shards(photos))
    assert 0 <= fitted.callback_metrics["val_top1"] <= 1
    loaded = FinetuneModule.load_from_checkpoint(next(tmp_path.glob("*.ckpt")))
    assert torch.equal(weights(loaded), weights(module))


def test_a_module_of_ones_own_is_trained_as_it_is(photos: Path, tmp_path: Path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    trainer(1, tmp_path).fit(FinetuneModule(model, 4, lr=1e-3), shards(photos))
