"""The original MAE's files: which of the kinds a file is, nothing lost, and the original's own numbers."""
# Also tests weights/plain_vit.py, weights/recognize.py.

import argparse
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from support.errors import raises
from support.tiny_models import ARGS, tiny_classifier, tiny_mae, tiny_weights

from mae_kit.objectives.masking import hide_smallest_last
from mae_kit.weights import original
from mae_kit.weights.files import Raw
from mae_kit.weights.native import to_objective
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.pretrained import build_timm
from mae_kit.weights.recognize import read_pretrained

HEADS = Hints(encoder_heads=3, decoder_heads=4)


def save(path: Path, tensors: Any, **more: Any) -> Path:
    torch.save({"model": dict(tensors), **more}, path)
    return path


def test_the_originals_weights_give_the_originals_numbers(shared: Path, tmp_path: Path):
    golden = load_file(shared / "golden/mae_forward.safetensors")
    tensors = {name.removeprefix("model."): t for name, t in golden.items() if name.startswith("model.")}
    weights = read_pretrained(save(tmp_path / "a.pth", tensors), HEADS)
    assert weights.kind == "original MAE, encoder and decoder, normalized pixels" and weights.left_out == []
    outcome = to_objective(weights).compare(golden["images"], hide_smallest_last(golden["noise"], 4))
    torch.testing.assert_close(outcome.prediction, golden["pred"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outcome.loss, golden["norm_pix.loss"][0], rtol=1e-5, atol=1e-5)
    written = original.write(weights)
    assert written.keys() == tensors.keys() and all(torch.equal(written[name], tensors[name]) for name in tensors)


def test_there_and_back(tmp_path: Path):
    mae = tiny_mae(img_size=32, in_chans=1)
    theirs = original.write(tiny_weights(mae))
    assert {"mask_token", "decoder_pos_embed", "decoder_blocks.1.mlp.fc2.bias", "decoder_pred.weight"} <= theirs.keys()
    again = read_pretrained(save(tmp_path / "a.pth", theirs), HEADS)
    images, keys = torch.randn(2, 1, 32, 32), torch.tensor([1, 2])
    assert torch.equal(to_objective(again)(images, keys).prediction, mae(images, keys).prediction)
    assert again.config.model_args == ARGS | {"in_chans": 1}
    assert again.config.mean == [0.449]


@pytest.mark.parametrize("name", ["blocks.1.mlp.fc1.bias", "decoder_pred.weight"])
def test_weights_that_are_not_finite(tmp_path: Path, name: str):
    theirs = original.write(tiny_weights(tiny_mae()))
    theirs[name] = torch.full_like(theirs[name], torch.inf)
    with raises("weights.not_finite"):
        read_pretrained(save(tmp_path / "a.pth", theirs), HEADS)


def test_encoder_only(tmp_path: Path):
    model = tiny_mae().encoder.model
    weights = read_pretrained(save(tmp_path / "a.pth", model.state_dict()), HEADS)
    assert weights.kind == "original MAE or a plain ViT of timm's, encoder only" and weights.decoder is None
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(build_timm(weights)(images), model(images))


@pytest.mark.parametrize(("pool", "words"), [("avg", "mean of the patches"), ("token", "class token")])
def test_fine_tuned(tmp_path: Path, pool: str, words: str):
    model = tiny_classifier(global_pool=pool)
    weights = read_pretrained(save(tmp_path / "a.pth", model.state_dict()), HEADS)
    assert weights.kind == f"original MAE, fine-tuned classifier of 5 classes ({words})"
    assert weights.classes == list("01234")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(build_timm(weights)(images), model(images))
    assert original.write(weights).keys() == model.state_dict().keys()


def test_a_linear_probe_loses_its_head_and_says_so(tmp_path: Path):
    tensors = dict(tiny_mae().encoder.model.state_dict())
    tensors |= {"head.0.running_mean": torch.zeros(48), "head.0.running_var": torch.ones(48)}
    tensors |= {"head.1.weight": torch.zeros(5, 48), "head.1.bias": torch.zeros(5)}
    weights = read_pretrained(save(tmp_path / "a.pth", tensors), HEADS)
    assert weights.kind == "original MAE, linear probe" and len(weights.left_out) == 4 and weights.classes == []


def test_whether_pixels_are_normalized(tmp_path: Path):
    """No tensor shows it: the user, then the settings, then the name."""
    theirs = original.write(tiny_weights(tiny_mae()))
    plain = save(tmp_path / "mae_visualize_vit_tiny.pth", theirs)
    said = read_pretrained(plain, HEADS)
    assert said.decoder and not said.decoder.normalized and "by the file's name" in said.notes[-1]
    assert read_pretrained(plain, Hints(3, 4, True)).decoder.normalized  # type: ignore[union-attr]
    args = argparse.Namespace(norm_pix_loss=False, mask_ratio=0.6)
    told = read_pretrained(save(tmp_path / "a.pth", theirs, args=args), HEADS)
    assert told.decoder and not told.decoder.normalized and told.decoder.mask_ratio == 0.6


def test_published_sizes_are_known_by_their_width(tmp_path: Path):
    """Shapes alone, at the published widths: heads are in no tensor."""
    with torch.device("meta"):
        base = timm.create_model("vit_base_patch16_224", num_classes=0)
    empty = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in base.state_dict().items()}
    weights, _ = original.read(Raw(tmp_path, empty, {}, {}, {}), Hints())
    assert weights.config.model == "vit_base_patch16_224"
    assert weights.config.model_args == {"img_size": 224, "patch_size": 16, "in_chans": 3}
    assert "12 attention heads" in weights.notes[0]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda t: t.pop("norm.weight"), "weights.names.model"),
        (lambda t: t.pop("decoder_blocks.1.norm1.bias"), "weights.names.model"),
        (lambda t: t.update(extra=torch.ones(1)), "weights.names.unknown"),
        (lambda t: t.update({"norm.weight": torch.ones(5)}), "weights.names.model"),
        (lambda t: t.update(pos_embed=torch.ones(1, 16, 48), decoder_pos_embed=torch.ones(1, 16, 32)), "weights.grid"),
        (lambda t: t.update({"blocks.0.mlp.fc1.bias": torch.ones(96)}), "weights.mlp_ratio"),
        (lambda t: t.pop("blocks.0.attn.qkv.weight"), "weights.layout.unknown"),
    ],
)
def test_a_file_that_is_not_whole(tmp_path: Path, change: Any, key: str):
    tensors = original.write(tiny_weights(tiny_mae()))
    change(tensors)
    with raises(key):
        read_pretrained(save(tmp_path / "a.pth", tensors), HEADS)


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod.", "model.", "backbone.", "encoder.", "teacher."])
def test_prefixes_are_dropped_and_named(tmp_path: Path, prefix: str):
    tensors = dict(tiny_mae().encoder.model.state_dict())
    beside = {"n_averaged" if prefix == "module." else "projector.0.weight": torch.zeros(3, 3)}  # AveragedModel's
    file = save(tmp_path / "a.pth", {f"{prefix}{name}": tensor for name, tensor in tensors.items()} | beside)
    weights = read_pretrained(file, HEADS)
    assert weights.tensors.keys() == tensors.keys() and weights.left_out == [*beside]
    assert any(prefix in note for note in weights.notes)


def test_any_word_before_all_names_is_a_prefix(tmp_path: Path):
    tensors = dict(tiny_mae().encoder.model.state_dict())
    weights = read_pretrained(save(tmp_path / "a.pth", {f"module.trunk.{k}": v for k, v in tensors.items()}), HEADS)
    assert weights.tensors.keys() == tensors.keys() and any("module.trunk." in note for note in weights.notes)
    with raises("weights.layout.unknown"):
        read_pretrained(save(tmp_path / "a.pth", {"a": torch.zeros(1)}))


@pytest.mark.parametrize("names", [("teacher", "student"), ("model", "model_ema")])
def test_weights_and_their_average_are_two_models(tmp_path: Path, names: tuple[str, str]):
    tensors = tiny_mae().encoder.model.state_dict().items()
    both = {f"{prefix}.{name}": tensor for name, tensor in tensors for prefix in names}
    with raises("weights.layout"):
        read_pretrained(save(tmp_path / "a.pth", both), HEADS)


def test_a_rectangle_is_known_by_its_fixed_table_or_the_settings_else_refused(tmp_path: Path):
    """3 x 12 patches are as many as 6 x 6."""
    mae = tiny_mae(img_size=[24, 96])
    tensors = original.write(tiny_weights(mae))
    encoder = {name: tensor for name, tensor in tensors.items() if not name.startswith(("decoder", "mask_token"))}
    images = torch.randn(1, 3, 24, 96)

    def same(file: Path, hints: Hints = HEADS) -> None:
        torch.testing.assert_close(
            build_timm(read_pretrained(file, hints)).forward_features(images), mae.encoder(images)
        )

    same(save(tmp_path / "fixed.pth", encoder))
    learned = {**encoder, "pos_embed": encoder["pos_embed"] + torch.randn(1, 37, 48)}
    mae.encoder.model.load_state_dict(learned)
    same(save(tmp_path / "said.pth", learned, args=argparse.Namespace(input_size=[24, 96])))
    same(save(tmp_path / "hinted.pth", learned), Hints(3, 4, image_size=(24, 96)))
    assert any("square of 6 x 6" in note for note in read_pretrained(tmp_path / "hinted.pth", HEADS).notes)
    odd = {**learned, "pos_embed": torch.randn(1, 36, 48)}
    with raises("weights.grid"):
        read_pretrained(save(tmp_path / "odd.pth", odd), HEADS)


def test_heads_that_nobody_says(tmp_path: Path):
    path = save(tmp_path / "a.pth", original.write(tiny_weights(tiny_mae())))
    with raises("weights.heads"):
        read_pretrained(path)


def test_an_image_gpt_needs_its_config(tmp_path: Path):
    tensors = {"transformer.h.0.attn.c_attn.weight": torch.ones(2, 6)}
    with raises("weights.layout"):
        read_pretrained(save(tmp_path / "a.pth", tensors))
