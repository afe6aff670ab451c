"""What a file may ask timm for: a model of its own, and nothing from elsewhere."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from support.errors import raises

from mae_kit.encoders.timm_models import build
from mae_kit.files.tensor_file import CLASSIFIER, ENCODER, save_kind
from mae_kit.tasks.classifier import ModelSpec, build_classifier
from mae_kit.weights.native import load_classifier
from mae_kit.weights.recognize import load_encoder

VIT = "vit_tiny_patch16_224"
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("hf-hub:timm/vit_tiny_patch16_224.augreg_in21k", {}),
    ("hf_hub:timm/vit_tiny_patch16_224.augreg_in21k", {}),
    ("local-dir:/tmp", {}),
    (VIT, {"pretrained": True}),
    (VIT, {"pretrained_cfg": {"url": "http://127.0.0.1:9/a.pth"}, "pretrained": True}),
    (VIT, {"pretrained_cfg_overlay": {"hf_hub_id": "timm/x"}}),
    (VIT, {"checkpoint_path": "/etc/passwd"}),
    (VIT, {"cache_dir": "/tmp"}),
    (VIT, {"depth": 10**6}),
    (VIT, {"depth": 0}),
    ("swin_tiny_patch4_window7_224", {"depths": [2, 2, 10**6, 2]}),
]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for a connection."""

    def connect(*_: Any) -> None:
        raise AssertionError("a file has asked for a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "args"), ASKED)
def test_nothing_is_fetched_for_a_file(name: str, args: dict[str, Any], tmp_path: Path):
    with raises("encoder.model_args"):
        build(name, args, "")
    about = {"model": name, "model_args": args, "mean": [0.5] * 3, "std": [0.5] * 3, "classes": [], "step": 0}
    about |= {"multi_label": False, "image_size": [224, 224], "crop_pct": 1.0}
    save_kind(tmp_path, ENCODER, {"a": torch.zeros(1)}, about)
    with raises("encoder.name", "encoder.model_args"):
        load_encoder(tmp_path)
    save_kind(tmp_path, CLASSIFIER, {"a": torch.zeros(1)}, about | {"classes": ["cat", "dog"]})
    with raises("encoder.model_args", "classifier.damaged"):
        load_classifier(tmp_path)
    with raises("model.name", "encoder.model_args"):
        build_classifier(ModelSpec(name, args), 2, None, 0.0, (224, 224))
