import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.errors import raises
from support.tiny_models import save_run, shaken, tiny_mae

from mae_kit.commands.export import export
from mae_kit.commands.import_ import import_
from mae_kit.tasks.classifier import build_classifier
from mae_kit.weights.pretrained import build_timm
from mae_kit.weights.recognize import load_encoder, read_pretrained


def local(folder: Path) -> Any:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def test_a_run_loads_with_timm_alone(tmp_path: Path):
    mae = tiny_mae(img_size=[32, 48], in_chans=1)
    export(save_run(tmp_path / "run", mae), tmp_path / "out")
    model, images = local(tmp_path / "out"), torch.randn(2, 1, 32, 48)
    torch.testing.assert_close(model.forward_features(images), mae.encoder(images), rtol=1e-5, atol=1e-5)
    config = timm.data.resolve_data_config(model=model)  # type: ignore[attr-defined]
    assert config["input_size"] == (1, 32, 48) and list(config["mean"]) == [0.4] and list(config["std"]) == [0.2]
    again = read_pretrained(tmp_path / "out")
    assert again.kind == "timm's vit_base_patch16_224, encoder only"
    assert again.config.model_args == mae.encoder.model_args and again.config.mean == [0.4]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_any_folder_of_timms_becomes_an_encoder_and_a_classifier(tmp_path: Path, name: str):
    """Written by timm itself."""
    from timm.models import save_for_hf

    model = shaken(timm.create_model(name, num_classes=5))
    save_for_hf(model, str(tmp_path / "theirs"), safe_serialization=True)
    weights = read_pretrained(tmp_path / "theirs")
    images = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(build_timm(weights)(images), model(images))
    assert weights.kind == f"timm's {name}, classifier of 5 classes"
    result = import_(tmp_path / "theirs", tmp_path / "run")
    assert (tmp_path / "run" / "classifier.safetensors").is_file() and result["decoder"] == 0
    classifier = build_classifier(None, 3, load_encoder(tmp_path / "run", any_family=True), 0.0, (160, 160))
    assert classifier.loaded and classifier.model(images).shape == (2, 3)
    export(tmp_path / "run", tmp_path / "again")
    torch.testing.assert_close(local(tmp_path / "again")(images), model(images))


def test_a_model_that_timm_does_not_have(tmp_path: Path):
    export(save_run(tmp_path / "run", tiny_mae()), tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"architecture": "vit_of_tomorrow"}))
    with raises("weights.timm_name"):
        read_pretrained(tmp_path / "out")
    path.write_text(json.dumps(config | {"model_args": config["model_args"] | {"depth": 3}}))
    with raises("weights.names"):
        read_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"model_args": {"foo": 1}}, "encoder.model_args.refused"),
        ({"model_args": {"embed_dim": 190}}, "encoder.model_args.refused"),
        ({"model_args": [3]}, "weights.damaged.layout"),
        ({"num_classes": "ten"}, "weights.damaged.layout"),
    ],
)
def test_a_config_that_makes_no_sense(tmp_path: Path, changed: dict[str, Any], key: str):
    export(save_run(tmp_path / "run", tiny_mae()), tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with raises(key):
        read_pretrained(tmp_path / "out")
