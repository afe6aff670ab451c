"""Micro-batches by memory: as few as fit, the same training as with their number."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from support.errors import raises
from support.runs import same
from support.tiny_models import tiny_mae

import mae_kit
from mae_kit.data.loading.batch import Batch
from mae_kit.training import accumulate
from mae_kit.training.accumulate import parts_that_fit
from mae_kit.training.config import Machine
from mae_kit.training.modules import PretrainModule

FP32 = Machine(precision="fp32")


def batch(count: int) -> Batch:
    ids = torch.arange(count)
    return Batch(torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8), ids, ids, ids, ids, [])


@pytest.fixture(scope="module")
def module() -> PretrainModule:
    return PretrainModule(tiny_mae().train(), lr=1.0, mean=[0.5] * 3, std=[0.5] * 3)


@pytest.mark.parametrize("megabytes", [4, 8, 16, 1000])
def test_what_is_chosen_fits_and_half_as_many_would_not(module: PretrainModule, megabytes: float):
    free, images = megabytes * 1e6, 96
    parts = parts_that_fit(module, batch(4), images, FP32, free)
    moments = 2 * 4 * sum(parameter.numel() for parameter in module.parameters())
    needed = [moments + accumulate._peak(module, batch(images // each), FP32) for each in (parts, parts // 2 or 1)]
    assert needed[0] < free and (parts == 1 or needed[1] > 0.6 * free)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_fewer_than_two_images_are_not_tried(module: PretrainModule):
    with raises("machine.accumulate_grad_batches"):
        parts_that_fit(module, batch(4), 96, FP32, 1e5)


@pytest.mark.long
@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_run_keeps_their_number(
    photos: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
):
    paths = {"data.path": str(photos / "train-*.tar")}
    paths |= {"data.val": str(photos / "val-*.tar")} if verb == "finetune" else {}
    train = partial(getattr(mae_kit, verb), recipes / f"{verb}.yaml", **paths)
    monkeypatch.setattr(accumulate, "parts_that_fit", lambda *_: 4)
    train(run=tmp_path / "auto", **{"machine.accumulate_grad_batches": "auto"})
    parts = yaml.safe_load((tmp_path / "auto" / "config.yaml").read_text())["machine"]["accumulate_grad_batches"]
    assert parts == 4
    train(run=tmp_path / "given", **{"machine.accumulate_grad_batches": parts})
    file = {"pretrain": "model.safetensors", "finetune": "classifier.safetensors"}[verb]
    assert same(tmp_path / "auto", tmp_path / "given", file)
