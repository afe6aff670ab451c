"""Objectives and encoders by folder, and by name on the Hub, whose client is asked here and not its server."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from support.errors import raises
from support.tiny_models import tiny_mae

import mae_kit as mk

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.21, 0.22]
IMAGES, SEEDS = torch.randn(2, 3, 32, 32), torch.arange(2)


def saved(folder: Path) -> Any:
    mae = tiny_mae()
    mae.set_statistics(MEAN, STD)
    mae.save_pretrained(folder)
    return mae


def test_an_objective_and_its_encoder_are_loaded_from_one_folder(tmp_path: Path):
    mae = saved(tmp_path / "new")
    again = mk.MAE.from_pretrained(str(tmp_path / "new"))
    assert torch.equal(again(IMAGES, SEEDS).loss, mae(IMAGES, SEEDS).loss) and again.config == mae.config
    assert again.encoder.statistics == (MEAN, STD) and not again.encoder.fresh
    vit = mk.ViT.from_pretrained(tmp_path / "new")
    assert torch.equal(vit(IMAGES), mae.encoder(IMAGES)) and vit.statistics == (MEAN, STD)
    assert mk.Objective.from_pretrained(tmp_path / "new", mask_ratio=0.5)(IMAGES).hidden.float().mean() == 0.5


def test_an_encoder_is_saved_alone(tmp_path: Path):
    encoder = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=1, num_heads=3).eval()
    with raises("encoder.statistics"):
        encoder.save_pretrained(tmp_path)
    encoder.set_statistics(MEAN, STD)
    encoder.save_pretrained(tmp_path)
    again = mk.Encoder.from_pretrained(tmp_path)
    assert torch.equal(again(IMAGES), encoder(IMAGES))
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "encoder.json").read_text() == (tmp_path / "encoder.json").read_text()


def test_another_class_and_unknown_statistics_are_refused(tmp_path: Path):
    with raises("objective.statistics"):
        tiny_mae().save_pretrained(tmp_path)
    saved(tmp_path)
    with raises("pretrained.class"):
        mk.SimMIM.from_pretrained(tmp_path)
    with raises("pretrained.class"):
        mk.Swin.from_pretrained(tmp_path)


def test_the_hub_gets_and_gives_the_files_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    uploaded: dict[str, bytes] = {}

    def upload_folder(self: Any, *, folder_path: str, repo_id: str, **_: Any) -> str:
        uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
        return f"https://huggingface.co/{repo_id}/commit/1"

    def snapshot_download(repo_id: str, allow_patterns: list[str], **_: Any) -> str:
        for name, content in uploaded.items():
            (tmp_path / name).write_bytes(content)
        return str(tmp_path)

    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_repo", lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id)
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    mae = saved(tmp_path / "local")
    assert mae.push_to_hub("me/tiny") == "https://huggingface.co/me/tiny/commit/1"
    assert uploaded.keys() == {"model.safetensors", "encoder.safetensors", "encoder.json"}
    assert torch.equal(mk.MAE.from_pretrained("me/tiny")(IMAGES, SEEDS).loss, mae(IMAGES, SEEDS).loss)
