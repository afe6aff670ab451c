"""The verb `export`: its mistakes, and the folder for the Hub with a card that is true and whose code runs."""
# Also tests reports/model_card.py.

import errno
import json
import re
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from support.errors import raises
from support.tiny_models import MEAN, STD, save_run, tiny_mae, tiny_weights
from timm.data.config import resolve_data_config

import mae_kit
from mae_kit.commands.export import Format, export
from mae_kit.commands.import_ import import_
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import load_classifier, save_classifier, save_encoder
from mae_kit.weights.recognize import read_pretrained


def card(folder: Path) -> tuple[dict[str, Any], str]:
    """Its head and its text."""
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def run_lines(folder: Path, images: torch.Tensor) -> Any:
    """What the card's three lines give, its address on the Hub replaced by the folder."""
    (code,) = re.findall(r"```python\n(.+?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code.count("\n") == 3
    code = code.replace(f"hf-hub:OWNER/{folder.name}", f"local-dir:{folder}")
    scope: dict[str, Any] = {"images": images}
    exec(code, scope)
    return scope["output"]


def test_the_original_layout_loads_as_the_original_code_would(tmp_path: Path):
    mae = tiny_mae()
    export(save_run(tmp_path / "run", mae), tmp_path / "out", format="original")
    tensors = torch.load(tmp_path / "out" / "model.pth", weights_only=True)["model"]
    assert torch.equal(
        tensors["decoder_blocks.1.attn.qkv.weight"], mae.decoder.state_dict()["blocks.1.attn.qkv.weight"]
    )
    assert tensors["pos_embed"].shape == (1, 17, 48) and len(tensors) == 62


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("{run}", "out.one"),
        ("{run} --out a --hub-dir b", "out.one"),
        ("{run} --out {run}", "out.not_empty"),
        ("{run}/nothing --out {run}/x", "weights.missing.file"),
        ("{run} --out {run}/x --format jpeg", "format"),
    ],
)
def test_mistakes(tmp_path: Path, mistake: Callable[..., str], words: str, key: str):
    save_run(tmp_path / "run", tiny_mae())
    assert mistake("export", *words.format(run=tmp_path / "run").split()) == key
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.safetensors"]


@pytest.mark.slow
def test_a_pretraining_for_the_hub(trained: Path, tmp_path: Path):
    result = mae_kit.export(trained, hub_dir=tmp_path / "tiny-mae", license="apache-2.0")
    assert result["files"] == ["README.md", "config.json", "model.safetensors", "reconstructions.png"]
    head, text = card(tmp_path / "tiny-mae")
    assert head["license"] == "apache-2.0" and head["library_name"] == "timm"
    assert head["pipeline_tag"] == "image-feature-extraction" and "masked-autoencoder" in head["tags"]
    picture = (trained / "reconstructions" / "step-00000018.png").read_bytes()
    assert "(reconstructions.png)" in text and (tmp_path / "tiny-mae/reconstructions.png").read_bytes() == picture
    assert "| training images | 96 |" in text and "| epochs | 3.0 |" in text and "18 steps" in text
    losses = [
        row["loss"] for row in map(json.loads, (trained / "metrics.jsonl").read_text().splitlines()) if "loss" in row
    ]
    assert f"| {losses[-1]:.4f} |" in text and "batch_size: 16" in text
    assert str(trained.parent) not in text, "the card names a path of this machine"
    whole = load_file(trained / "model.safetensors")
    assert len(load_file(tmp_path / "tiny-mae" / "model.safetensors")) == sum(n.startswith("encoder.") for n in whole)
    assert run_lines(tmp_path / "tiny-mae", torch.randn(2, 3, 32, 32)).shape == (2, 48)


def test_a_classifier_for_the_hub(tmp_path: Path):
    from support.tiny_models import tiny_classifier

    (tmp_path / "run").mkdir()
    model = tiny_classifier()
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    mae_kit.import_(tmp_path / "a.pth", tmp_path / "run", encoder_heads=3)
    (tmp_path / "run" / "result.json").write_text('{"encoder": "none", "top1": 0.9, "top5": 1.0, "samples": 100}')
    mae_kit.export(tmp_path / "run", hub_dir=tmp_path / "hub")
    head, text = card(tmp_path / "hub")
    assert head["pipeline_tag"] == "image-classification" and head["license"] == "other"
    assert "| top-1 | 90.0% | 82.6–94.5% |" in text and "| classes | 0, 1, 2, 3, 4 |" in text
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(run_lines(tmp_path / "hub", images), model(images), rtol=1e-5, atol=1e-5)


RECORD = ModelConfig("resnet18", {}, MEAN, STD, image_size=(64, 96), classes=["cat", "dog"], multi_label=True)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A multi-label classifier whose size, crop and statistics are not those of its family."""
    save_classifier(tmp_path, timm.create_model("resnet18", num_classes=2), RECORD)
    return tmp_path


def test_the_record_of_a_classifier_travels_with_its_weights(classifier: Path, tmp_path: Path):
    export(classifier, tmp_path / "out")
    config = resolve_data_config(model=timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True))
    assert config["input_size"] == (3, 64, 96) and config["crop_pct"] == 1.0 and list(config["mean"]) == MEAN
    import_(tmp_path / "out", tmp_path / "again")
    again = load_classifier(tmp_path / "again").config
    assert replace(again, model_args={}) == RECORD


def test_a_graph_has_its_record_next_to_it(classifier: Path, tmp_path: Path):
    export(classifier, tmp_path / "out", format="pt2")
    record = json.loads((tmp_path / "out/model.json").read_text())
    assert record["image_size"] == [64, 96] and record["activation"] == "sigmoid" and record["crop_pct"] == 1.0
    graph = torch.export.load(tmp_path / "out/model.pt2").module()
    assert graph(torch.zeros(3, 3, *record["image_size"])).shape == (3, 2)


def test_the_original_layout_keeps_the_normalization(tmp_path: Path):
    mae = tiny_mae(num_heads=1, embed_dim=64)
    export(save_run(tmp_path / "run", mae), tmp_path / "out", format="original")
    again = read_pretrained(tmp_path / "out/model.pth")
    assert (again.config.mean, again.config.std) == (MEAN, STD) and not any("mean" in note for note in again.notes)


@pytest.mark.parametrize("kind", ["out", "hub_dir"])
def test_an_interrupted_export_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    run, out = save_run(tmp_path / "run", tiny_mae()), tmp_path / "out"
    place: Any = {kind: out}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("mae_kit.weights.files.replace_text", full)
        with pytest.raises(OSError):
            export(run, **place, format="vit_mae")
    assert not out.exists()
    (out / ".unfinished").mkdir(parents=True)  # as a kill leaves it
    (out / "mine").touch()
    files = export(run, **place)["files"]
    assert sorted([*files, "mine"]) == sorted(path.name for path in out.iterdir())
    with raises("out"):
        export(run, **place)


@pytest.mark.parametrize("format", ["original", "pt2", "onnx"])
def test_a_full_disk_is_told_by_the_system(tmp_path: Path, format: Format):
    """PyTorch, which cannot finish an archive then, says something else."""
    run, most = save_run(tmp_path / "run", tiny_mae()), resource.getrlimit(resource.RLIMIT_FSIZE)
    save_encoder(run, tiny_mae().encoder.model.state_dict(), tiny_weights(tiny_mae()).config)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most[1]))
    try:
        with pytest.raises(OSError) as full:
            export(run, tmp_path / "out", format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert full.value.errno == errno.EFBIG and not (tmp_path / "out").exists()
    assert export(run, tmp_path / "out", format=format)["files"]
