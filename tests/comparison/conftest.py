"""A small comparison, whose commands may be stood in for."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.comparisons import Commands, dry_run
from support.photo_shards import write_shard

from mae_kit.commands import compare as command
from mae_kit.comparison import orchestrate


@pytest.fixture
def content(tmp_path: Path, recipes: Path) -> dict[str, Any]:
    """The keys of a comparison of two objectives and scratch: 40 images, 64 seen, two seeds."""
    write_shard(tmp_path / "train.tar", range(40))
    write_shard(tmp_path / "val.tar", range(100, 116))
    shutil.copy(recipes / "pretrain.yaml", tmp_path / "pre.yaml")
    shutil.copy(recipes / "finetune.yaml", tmp_path / "fine.yaml")
    recipe = str(tmp_path / "pre.yaml")
    return {
        "data": str(tmp_path / "train.tar"),
        "val": str(tmp_path / "val.tar"),
        "images_seen": 64,
        "seeds": 2,
        "entries": {"mae": {"config": recipe}, "simmim": {"config": recipe}, "scratch": {"config": None}},
        "finetune": {"config": str(tmp_path / "fine.yaml")},
    }


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setattr(orchestrate, "call", commands)
    monkeypatch.setattr(command, "_dry_run", dry_run)
    return commands
