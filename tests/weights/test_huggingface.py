"""transformers' ViTMAE and ViT folders, held to what transformers itself computes with them."""
# Also tests weights/preprocessor.py.

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.errors import raises
from support.tiny_models import ARGS, MEAN, STD, save_run, tiny_classifier, tiny_mae
from torch import Tensor

from mae_kit.commands.export import export
from mae_kit.commands.import_ import import_
from mae_kit.encoders.position_embeddings import sincos_positions
from mae_kit.objectives.masking import hide_smallest_last
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.huggingface import MULTI_LABEL, write_vit
from mae_kit.weights.native import save_classifier, to_objective
from mae_kit.weights.pretrained import Pretrained, build_timm
from mae_kit.weights.recognize import read_pretrained

pytestmark = pytest.mark.slow  # transformers takes seconds to import
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
IMAGES = {"image_size": 32, "patch_size": 8, "num_channels": 3, "layer_norm_eps": 1e-6}
DECODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def theirs(kind: str, **more: Any) -> Any:
    """A random model of transformers, no tensor of it zero or one."""
    import transformers

    classes: dict[str, Any] = {"vit_mae": (transformers.ViTMAEConfig, transformers.ViTMAEForPreTraining)}
    classes |= {"vit": (transformers.ViTConfig, transformers.ViTModel)}
    classes |= {"classifier": (transformers.ViTConfig, transformers.ViTForImageClassification)}
    config, model = classes[kind]
    decoder = {f"decoder_{name}": value for name, value in DECODER.items()} if kind == "vit_mae" else {}
    torch.manual_seed(0)
    made = model(config(**SIZES, **IMAGES, **decoder, **more))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def close(ours: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalized", [False, True])
def test_their_decoder_gives_their_loss(tmp_path: Path, normalized: bool):
    model = theirs("vit_mae", norm_pix_loss=normalized)
    model.save_pretrained(tmp_path / "theirs")
    weights = read_pretrained(tmp_path / "theirs")
    kind = "normalized" if normalized else "plain"
    assert (
        weights.kind == f"Hugging Face ViTMAE, encoder and decoder, {kind} pixels"
        and "normalized by mean" in weights.notes[0]
    )
    images, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    ours = to_objective(weights).compare(images, hide_smallest_last(noise, 4))
    other = model(images, noise=noise)
    close(ours.loss, other.loss)
    close(ours.prediction, other.logits)


@pytest.mark.parametrize("kind", ["vit", "vit_mae", "classifier"])
def test_the_names_that_transformers_5_has_in_memory(tmp_path: Path, kind: str):
    model = theirs(kind)
    model.save_pretrained(tmp_path)
    saved = read_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    in_memory = read_pretrained(tmp_path)
    assert (in_memory.kind, in_memory.config, in_memory.notes) == (saved.kind, saved.config, saved.notes)
    assert sorted(in_memory.left_out) == sorted(saved.left_out)
    for part in (lambda each: each.tensors, lambda each: each.decoder.tensors if each.decoder else {}):
        assert part(in_memory).keys() == part(saved).keys()
        assert all(torch.equal(part(in_memory)[name], tensor) for name, tensor in part(saved).items())


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("multi_label", [False, True], ids=["softmax", "sigmoid"])
def test_a_classifier_as_vit(tmp_path: Path, pool: str, multi_label: bool):
    """One that pools the mean is transformers' BEiT without relative positions."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model, classes = tiny_classifier(global_pool=pool), [*"abcde"]
    how: dict[str, Any] = {"image_size": (32, 32), "classes": classes, "multi_label": multi_label}
    run = tmp_path / "run"
    run.mkdir()
    save_classifier(run, model, ModelConfig("vit_base_patch16_224", ARGS, MEAN, STD, **how))
    export(run, hub_dir=tmp_path / "out", format="vit")
    loaded: Any = AutoModelForImageClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    theirs, report = loaded
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    images = torch.randn(2, 3, 32, 32)
    close(theirs.eval()(images).logits, model(images))
    assert theirs.config.id2label == dict(enumerate(classes))
    assert (theirs.config.problem_type == MULTI_LABEL) == multi_label
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "out").image_mean) == MEAN
    assert "AutoModelForImageClassification" in (tmp_path / "out" / "README.md").read_text()
    again = read_pretrained(tmp_path / "out")
    close(build_timm(again)(images), model(images))
    assert (again.classes, again.config.multi_label, again.config.mean) == (classes, multi_label, MEAN)


@pytest.mark.parametrize("kind", ["vit", "classifier"])
def test_their_vit_gives_their_features(tmp_path: Path, kind: str):
    model = theirs(kind, **({"num_labels": 4} if kind == "classifier" else {}))
    model.save_pretrained(tmp_path)
    weights = read_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    ours = build_timm(weights)
    if kind == "classifier":
        assert weights.kind.endswith("classifier of 4 classes (class token)") and weights.classes[0] == "LABEL_0"
        close(ours(images), model(images).logits)
    else:
        assert weights.left_out == ["pooler.dense.bias", "pooler.dense.weight"] and weights.config.mean == [0.5] * 3
        close(ours.forward_features(images), model(images).last_hidden_state)


def test_published_spellings_and_statistics(tmp_path: Path):
    """The decoder's layers as in the files on the Hub, and their layer norms of 1e-12."""
    from safetensors.torch import load_file, save_file

    theirs("vit_mae").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    published = {name.replace("decoder_encoder.layer", "decoder_layers"): t for name, t in tensors.items()}
    save_file(published, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-12}))
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    weights = read_pretrained(tmp_path)
    assert weights.config.mean == [0.1, 0.2, 0.3] and "1e-12 in the file" in weights.notes[0]


def test_a_run_as_vit_mae(tmp_path: Path):
    from transformers import ViTMAEForPreTraining

    mae = tiny_mae()
    export(save_run(tmp_path / "run", mae), tmp_path / "out", format="vit_mae")
    loaded: Any = ViTMAEForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    model, report = loaded
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    close(model.decoder.decoder_pos_embed, sincos_positions(32, (4, 4)))
    images, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    ours, other = mae.compare(images, hide_smallest_last(noise, 4)), model.eval()(images, noise=noise)
    close(ours.loss, other.loss)
    close(ours.prediction, other.logits)
    again = read_pretrained(tmp_path / "out")
    assert again.decoder and all(torch.equal(again.decoder.tensors[k], v) for k, v in mae.decoder.state_dict().items())


def test_a_run_as_vit(tmp_path: Path):
    from transformers import ViTImageProcessor, ViTModel

    mae = tiny_mae()
    export(save_run(tmp_path / "run", mae), tmp_path / "out", format="vit")
    loaded: Any = ViTModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    model, report = loaded
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    images = torch.randn(2, 3, 32, 32)
    output = model.eval()(images)
    close(mae.encoder(images), output.last_hidden_state)
    close(mae.encoder(images)[:, 0].tanh(), output.pooler_output)
    assert list(ViTImageProcessor.from_pretrained(tmp_path / "out").image_mean) == [0.4, 0.5, 0.6]


def test_a_whole_model_becomes_a_run(tmp_path: Path):
    model = theirs("vit_mae", norm_pix_loss=True)
    model.save_pretrained(tmp_path / "theirs")
    result = import_(tmp_path / "theirs", tmp_path / "run")
    assert (result["encoder"], result["decoder"], result["left_out"]) == (30, 32, [])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "encoder.safetensors",
        "encoder.json",
        "model.safetensors",
    }


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"hidden_act": "relu"}, "weights.activation"),
        ({"intermediate_size": 96}, "weights.intermediate_size"),
        ({"qkv_bias": False}, "weights.qkv_bias"),
        ({"num_hidden_layers": 3}, None),
        ({"image_size": 64}, "weights.names"),
    ],
)
def test_configs_that_do_not_fit(tmp_path: Path, changed: dict[str, Any], key: str | None):
    theirs("vit").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changed))
    if key is None:
        assert read_pretrained(tmp_path).config.model_args["depth"] == 2  # the tensors say it
        return
    with raises(key):
        read_pretrained(tmp_path)


def test_what_transformers_has_no_class_for(tmp_path: Path):
    from support.tiny_models import tiny_weights

    wide = tiny_weights(tiny_mae(img_size=[32, 48]))
    with raises("format"):
        write_vit(wide)
    model = tiny_classifier(global_pool="avg")
    config = replace(wide.config, model_args=ARGS | {"global_pool": "avg"}, image_size=(32, 32), classes=[*"abcde"])
    with raises("format"):
        write_vit(Pretrained("a classifier", config, model.state_dict()))
