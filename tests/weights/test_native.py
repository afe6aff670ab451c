"""Our own files: saved, loaded as modules, and told from every other kind."""

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.errors import raises
from support.tiny_models import save_tokenizer, shaken, tiny_classifier, tiny_mae, tiny_weights
from torch import nn

from mae_kit.encoders.tokenizers import load_tokenizer
from mae_kit.errors import UserError
from mae_kit.files.tensor_file import (
    CLASSIFIER,
    DETECTOR,
    ENCODER,
    HEADER,
    KINDS,
    MODEL,
    REGRESSOR,
    SEGMENTER,
    TOKENIZER,
    Kind,
    kind_of,
)
from mae_kit.objectives import MAE
from mae_kit.tasks.classifier import ModelSpec
from mae_kit.tasks.detector import DetectorConfig, load_detector, save_detector
from mae_kit.tasks.labeled import build_backbone
from mae_kit.tasks.regressor import Regressor, load_regressor, save_regressor
from mae_kit.tasks.segmenter import SegmenterConfig, load_segmenter, save_segmenter
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import load_classifier, load_model, save_classifier, save_encoder, save_model
from mae_kit.weights.recognize import load_encoder, read_pretrained

CONFIG = ModelConfig(
    "vit_base_patch16_224",
    {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    [0.5] * 3,
    [0.2] * 3,
    image_size=(32, 32),
    crop_pct=0.9,
    classes=[*"abcde"],
    multi_label=True,
)
LOAD: dict[Kind, Any] = {
    ENCODER: load_encoder,
    MODEL: load_model,
    CLASSIFIER: load_classifier,
    TOKENIZER: load_tokenizer,
    SEGMENTER: lambda path: load_segmenter(path)[0],
    REGRESSOR: lambda path: load_regressor(path)[0],
    DETECTOR: lambda path: load_detector(path)[0],
}


class Made(NamedTuple):
    """Models, and a folder with a file of every kind."""

    mae: MAE
    classifier: Any
    folder: Path


@pytest.fixture
def mae(made: Made) -> MAE:
    return copy.deepcopy(made.mae)


@pytest.fixture
def classifier(made: Made) -> Any:
    return made.classifier


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A folder with a file of every kind."""
    return shutil.copytree(made.folder, tmp_path / "run")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Not to be changed."""
    mae, classifier, folder = tiny_mae(), tiny_classifier(), tmp_path_factory.mktemp("made")
    config = tiny_weights(mae).config
    save_encoder(folder, mae.encoder.model.state_dict(), config)
    save_model(folder, mae, config)
    save_classifier(folder, classifier, CONFIG)
    save_regressor(folder, Regressor(classifier, 5), CONFIG)
    narrow = {"channels": [8, 8, 16, 16]}
    model = ModelConfig("resnet18", narrow, [0.5] * 3, [0.2] * 3, image_size=(32, 32), classes=[*"ab"])
    backbone = build_backbone(ModelSpec("resnet18", narrow), None, 0.0, (32, 32), 3).model
    segments = SegmenterConfig(model, "linear", 16, 0.5)
    save_segmenter(folder, segments.build(backbone), segments)
    detects = DetectorConfig(
        model, "detr", {"queries": 4, "layers": [1, 1], "width": 16, "heads": 2, "feedforward": 16}
    )
    save_detector(folder, detects.build(backbone), detects)
    return Made(mae, classifier, save_tokenizer(folder))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_is_loaded_as_a_module_from_its_folder_or_file(run: Path, kind: Kind):
    assert kind_of(run / kind.file) == kind.name
    for path in (run, run / kind.file):
        loaded = LOAD[kind](path)
        assert isinstance(loaded, nn.Module) and not loaded.training


def test_an_encoder_is_ready_to_call_and_says_what_it_is(run: Path, mae: MAE):
    encoder, images = load_encoder(run), torch.randn(2, 3, 32, 32)
    assert torch.equal(encoder(images), mae.encoder(images)) and encoder(images).shape == (2, 17, 48)
    assert encoder.pretrained_cfg == tiny_weights(mae).config
    assert json.loads((run / "encoder.json").read_text())["model"] == encoder.name


def test_a_fingerprint_is_of_weights_and_normalization_and_the_same_in_every_file(run: Path, mae: MAE):
    first = load_encoder(run).fingerprint
    assert load_encoder(run / MODEL.file).fingerprint == load_model(run).encoder.fingerprint == first  # type: ignore[union-attr]
    config = tiny_weights(mae).config
    config.mean[0] = 0.1
    save_encoder(run, mae.encoder.model.state_dict(), config)
    second = load_encoder(run).fingerprint
    save_encoder(run, shaken(mae).encoder.model.state_dict(), config)
    assert len({first, second, load_encoder(run).fingerprint}) == 3


def test_a_model_predicts_as_before_and_its_arguments_can_be_changed(run: Path, mae: MAE):
    images, seeds = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
    assert torch.equal(load_model(run)(images, seeds).prediction, mae(images, seeds).prediction)
    assert load_model(run, mask_ratio=0.5, mask=None)(images, seeds).hidden.sum() == 16
    with raises("model.arguments"):
        load_model(run, colors=5)


def test_a_model_whose_class_has_changed_since(run: Path, mae: MAE):
    tensors = {name: tensor for name, tensor in load_file(run / MODEL.file).items() if name != "decoder.mask_token"}
    mae.state_dict = lambda *_, **__: tensors  # type: ignore[method-assign]
    save_model(run, mae, tiny_weights(mae).config)
    with raises("model.names"):
        load_model(run)


def test_a_classifier_keeps_its_record(run: Path, classifier: Any):
    loaded, images = load_classifier(run), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), classifier(images))
    assert (loaded.config.crop_pct, loaded.config.multi_label, loaded.config.image_size) == (0.9, True, (32, 32))
    read = read_pretrained(run / CLASSIFIER.file)
    assert read.config == loaded.config


def test_saving_twice_gives_the_same_bytes(run: Path, mae: MAE):
    before = (run / MODEL.file).read_bytes()
    save_model(run, mae, tiny_weights(mae).config)
    assert (run / MODEL.file).read_bytes() == before


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_weights_that_are_not_finite_are_refused_by_name(run: Path, kind: Kind, bad: float):
    with safe_open(run / kind.file, "pt") as file:
        header = file.metadata()
    tensors = load_file(run / kind.file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[-1] = bad
    save_file(tensors, run / kind.file, header)
    with raises(f"{kind.name}.not_finite") as error:
        LOAD[kind](run / kind.file)
    assert name in error.value.problem


def rename(file: Path, content: Any) -> None:
    save_file(load_file(file), file, {HEADER: json.dumps(content)})


DAMAGES: dict[str, Any] = {
    "missing": Path.unlink,
    "kind": lambda file: save_file(load_file(file), file),
    "version": lambda file: rename(file, {"kind": file.stem, "version": 1}),
    "damaged": lambda file: file.write_bytes(file.read_bytes()[:1000]),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_wrong_with_a_file_is_the_key(run: Path, kind: Kind, damage: str):
    DAMAGES[damage](run / kind.file)
    with raises(f"{kind.name}.{damage}"):
        LOAD[kind](run / kind.file)


@pytest.mark.parametrize("content", ["[]", "{", '{"kind": "model", "version": 2}'])
def test_a_header_that_makes_no_sense(run: Path, content: str):
    save_file(load_file(run / MODEL.file), run / MODEL.file, {HEADER: content})
    with raises("model.damaged"):
        load_model(run)


def bent(content: Any, others: Sequence[Any] = (None, -1, 0.5, "x", [], {})) -> Iterator[Any]:
    """The content of a header with one value bent or gone, at every place; below the first level by two values."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items):
        for other in (*others, *bent(value, (None, "x"))):
            copy = content.copy()
            copy[key] = other
            yield copy
        if isinstance(content, dict):
            yield {name: kept for name, kept in content.items() if name != key}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_bent_header_is_told_by_key(run: Path, kind: Kind):
    tensors = load_file(run / kind.file)
    with safe_open(run / kind.file, "pt") as file:
        content = json.loads(file.metadata()[HEADER])
    for other in bent(content):
        save_file(tensors, run / kind.file, {HEADER: json.dumps(other)})
        try:
            LOAD[kind](run / kind.file)
        except UserError as error:
            assert "\n" not in str(error)


def test_another_kind_in_its_place(run: Path):
    with raises("classifier.kind"):
        load_classifier(run / ENCODER.file)
    with raises("model.kind"):
        load_model(run / TOKENIZER.file)
