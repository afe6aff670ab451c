"""Weights that timm publishes: from a cache of the Hub as it lies on disk, without a network."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from support.errors import raises
from support.photo_shards import write_shard
from support.tiny_models import shaken

from mae_kit.cli import main as cli
from mae_kit.data.index.open import open_index
from mae_kit.encoders import ViT, create_encoder
from mae_kit.evaluation.features import FeatureSource
from mae_kit.evaluation.labeled_features import feature_splits
from mae_kit.objectives import MAE
from mae_kit.weights import timm as timm_folder
from mae_kit.weights.files import Raw
from mae_kit.weights.initialize import start_from
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.recognize import load_encoder, read_pretrained

NAME = "test_vit.r160_in1k"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, and no network."""
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def publish(cache: Path, name: str, without: str = "nothing") -> Any:
    """Leave random weights where the Hub's client would have put those of timm."""
    model = shaken(timm.create_model(name))
    snapshot = cache / f"models--timm--{name}" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / f"models--timm--{name}" / "refs").mkdir()
    (cache / f"models--timm--{name}" / "refs" / "main").write_text("0123")
    tensors = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith(without)}
    save_file(tensors, snapshot / "model.safetensors")
    return model


def test_a_name_is_read_as_its_folder_would_be(cache: Path):
    model = publish(cache, NAME)
    weights = read_pretrained(Path(f"timm:{NAME}"))
    assert weights.kind == "timm's test_vit, classifier of 1000 classes"
    assert weights.config.mean == weights.config.std == [0.5] * 3
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_it_is_judged(cache: Path, tmp_path: Path):
    model = publish(cache, NAME)
    write_shard(tmp_path / "a.tar", range(2))
    encoder, index = load_encoder(Path(f"timm:{NAME}")), open_index(tmp_path / "a.tar")
    splits = feature_splits(encoder, index, index, workers=1)
    assert not any(name.startswith("head") for name in encoder.model.state_dict())
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), model.forward_features(images))
    assert splits[FeatureSource(encoder.depth, "mean")].train.features.shape == (2, encoder.dim)


@pytest.mark.slow
def test_it_is_imported_and_started_from(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = publish(cache, NAME)
    assert cli.main(["import", f"timm:{NAME}", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "classifier.safetensors").is_file()
    assert f"timm:{NAME}: timm's test_vit, classifier of 1000 classes" in capsys.readouterr().out
    mae = MAE(ViT("test_vit", 80), decoder_dim=32, decoder_depth=1, decoder_heads=2)
    start_from(Path(f"timm:{NAME}"), mae, [0.5] * 3, [0.5] * 3)
    assert torch.equal(mae.encoder.model.state_dict()["cls_token"], model.cls_token)


@pytest.mark.slow
def test_a_convnextv2_whose_file_has_no_last_norm(cache: Path):
    """As timm publishes FCMAE's; the images are of the size that these weights have seen."""
    model = publish(cache, "convnextv2_atto.fcmae", without="head.")
    encoder = load_encoder(Path("timm:convnextv2_atto.fcmae"))
    assert encoder.image_size == (224, 224) and torch.equal(encoder.model.head.norm.weight, torch.ones(320))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), model.forward_features(images).flatten(2).mT)


@pytest.mark.parametrize(("classes", "pools"), [(5, 3), (0, 2)])
def test_a_hiera_pools_as_often_as_in_its_training(classes: int, pools: int, tmp_path: Path):
    args: dict[str, Any] = {"embed_dim": 8, "num_heads": 1}
    model = shaken(timm.create_model("hiera_tiny_224", num_classes=classes, **args))
    config = {"architecture": "hiera_tiny_224", "num_classes": classes, "model_args": args}
    weights, _ = timm_folder.read(Raw(tmp_path, model.state_dict(), {}, config, {}), Hints())
    encoder: Any = create_encoder("hiera_tiny_224", weights.config.model_args)
    assert encoder.model.q_pool == pools


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("test_vit.r16_in1k", "weights.timm_name"),
        ("hf-hub:timm/test_vit", "weights.timm_name"),
        ("", "weights.timm_name"),
        (NAME, "weights.download"),
        ("resnet18.a1_in1k", "encoder.name"),
    ],
)
def test_what_is_refused_in_one_line(name: str, key: str):
    with raises(key) as error:
        load_encoder(Path(f"timm:{name}"))
    assert "\n" not in str(error.value)


def test_weights_whose_norm_is_behind_the_pooling_are_refused(monkeypatch: pytest.MonkeyPatch, cache: Path):
    """Timm's BEiTs have been fine-tuned: no norm that any patch token has been through."""
    create = timm.create_model

    def small(name: str, **words: Any) -> Any:
        sizes: dict[str, Any] = {"depth": 1, "embed_dim": 24, "num_heads": 1}
        return create(name, **sizes | words)

    monkeypatch.setattr(timm, "create_model", small)
    publish(cache, "beit_base_patch16_224.in22k_ft_in22k")
    with raises("weights.names"):
        load_encoder(Path("timm:beit_base_patch16_224.in22k_ft_in22k"))


def test_arguments_that_no_encoder_takes():
    with raises("encoder.model_args"):
        create_encoder("beit_base_patch16_224", {"use_abs_pos_emb": True})
