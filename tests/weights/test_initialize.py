"""Pretraining from the weights of a file: what is loaded, what is fresh, and what does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from support.errors import raises
from support.photo_shards import write_shard
from support.processes import Programs
from support.tiny_models import MEAN, STD, save_run, save_tokenizer, shaken, tiny_classifier, tiny_mae, tiny_weights

import mae_kit
from mae_kit.commands.import_ import import_
from mae_kit.commands.pretrain import PretrainData, save_results
from mae_kit.encoders import BEiTEncoder, Hiera, ImageGPT, Swin, ViT
from mae_kit.encoders.position_embeddings import resample_offsets, resample_positions
from mae_kit.objectives import IGPT, MAE, BEiT, HieraMAE, MaskedPatch, MaskFeat, SimMIM
from mae_kit.tasks.classifier import build_classifier
from mae_kit.weights import original
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.initialize import start_from
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import load_encoder, read_pretrained


def fresh(size: int = 32, decoder_depth: int = 2, heads: tuple[int, int] = (3, 4)) -> MAE:
    encoder = ViT("vit_base_patch16_224", size, 8, embed_dim=48, depth=2, num_heads=heads[0])
    return MAE(encoder, 0.75, decoder_dim=32, decoder_depth=decoder_depth, decoder_heads=heads[1])


def test_the_whole_model_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    old, new = tiny_mae(), fresh()
    start_from(save_run(tmp_path, old), new, MEAN, STD)
    assert all(torch.equal(tensor, new.state_dict()[name]) for name, tensor in old.state_dict().items())
    assert "30 tensors of the encoder and the decoder" in caplog.text


def test_an_encoder_alone_leaves_the_decoder_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    old, new = tiny_mae(), fresh()
    weights = tiny_weights(old)
    save_encoder(tmp_path, dict(weights.tensors), weights.config)
    before = {name: tensor.clone() for name, tensor in new.decoder.state_dict().items()}
    start_from(tmp_path, new, MEAN, STD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.decoder.state_dict().items())
    own = new.encoder.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in weights.tensors.items())
    assert "newly initialized: the decoder" in caplog.text


def test_a_published_file_takes_what_it_does_not_say_from_the_recipe(tmp_path: Path):
    old, new = tiny_mae(), fresh()
    torch.save({"model": original.write(tiny_weights(old))}, tmp_path / "full.pth")
    start_from(tmp_path / "full.pth", new, MEAN, STD)
    assert all(torch.equal(tensor, new.state_dict()[name]) for name, tensor in old.state_dict().items())


def simmim(heads: int = 1) -> SimMIM:
    sizes: dict[str, Any] = {"embed_dim": 16, "depths": [1, 1], "num_heads": [heads, 2], "window_size": 4}
    return SimMIM(Swin("swin_tiny_patch4_window7_224", 32, **sizes), unit=16)


def test_a_swin_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    old, new = simmim(), simmim()
    encoder = old.encoder
    save_encoder(
        tmp_path, encoder.model.state_dict(), ModelConfig(encoder.name, encoder.model_args, MEAN, STD, "simmim", 1)
    )
    start_from(tmp_path, new, MEAN, STD)
    own = new.encoder.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in encoder.model.state_dict().items())
    assert "newly initialized: the decoder" in caplog.text
    with raises("weights.names"):
        start_from(tmp_path, simmim(heads=2), MEAN, STD)


@pytest.mark.parametrize("kind", [SimMIM, MaskedPatch, MaskFeat])
@pytest.mark.parametrize("published", [False, True])
def test_any_objective_of_a_vit_goes_on_from_a_whole_mae(tmp_path: Path, kind: Any, published: bool):
    old, encoder = tiny_mae(), fresh().encoder
    new = kind(encoder, **({"unit": 16} if kind is SimMIM else {}))
    if published:
        torch.save({"model": original.write(tiny_weights(old))}, tmp_path / "full.pth")
    else:
        save_run(tmp_path, old)
    start_from(tmp_path / "full.pth" if published else tmp_path, new, MEAN, STD)
    theirs = old.encoder.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in encoder.model.state_dict().items())


HIERA: dict[str, Any] = {"img_size": 32, "embed_dim": 16, "stages": [1, 1]}
OF_TWO_STAGES: dict[str, Any] = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}


@pytest.mark.parametrize(
    "make",
    [
        lambda heads: HieraMAE(Hiera("hiera_tiny_224", num_heads=heads, q_pool=1, **HIERA), **OF_TWO_STAGES),
        lambda heads: IGPT(ImageGPT(img_size=4, embed_dim=16, depth=1, num_heads=heads, colors=4)),
    ],
)
def test_heads_that_no_shape_shows(tmp_path: Path, make: Any):
    run = save_run(tmp_path, make(1))
    start_from(run, make(1), MEAN, STD)
    with raises("init.heads"):
        start_from(run, make(2), MEAN, STD)


SIZES: dict[str, Any] = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
TABLE = "relative_position_bias_table"


def beit(folder: Path, size: int = 32) -> BEiT:
    return BEiT(BEiTEncoder(img_size=size, **SIZES), str(save_tokenizer(folder)), smallest_block=2)


def unilm(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A file of BEiT's pretraining: one table, its index, and what predicts the codes."""
    shared = {f"rel_pos_bias.{TABLE}": tensors[f"blocks.0.attn.{TABLE}"]}
    kept = {name: tensor for name, tensor in tensors.items() if TABLE not in name}
    index = {"rel_pos_bias.relative_position_index": torch.zeros(17, 17, dtype=torch.int64)}
    head = {"lm_head.weight": torch.zeros(20, 48), "lm_head.bias": torch.zeros(20), "mask_token": torch.zeros(1, 1, 48)}
    return kept | shared | index | head


def test_a_published_beit_with_one_table_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    own = shaken(BEiTEncoder(img_size=32, **SIZES).model).state_dict()
    torch.save({"model": unilm(own)}, tmp_path / "pretrained.pth")
    new = beit(tmp_path)
    start_from(tmp_path / "pretrained.pth", new, MEAN, STD)
    assert all(torch.equal(tensor, own[name]) for name, tensor in new.encoder.model.state_dict().items())
    assert "37 tensors of the encoder; newly initialized: the decoder" in caplog.text
    larger = beit(tmp_path, 48)
    start_from(tmp_path / "pretrained.pth", larger, MEAN, STD)
    table = resample_offsets(own[f"blocks.0.attn.{TABLE}"], (4, 4), (6, 6))
    assert torch.equal(larger.encoder.model.state_dict()[f"blocks.1.attn.{TABLE}"], table)


def test_a_published_beit_is_imported_and_fine_tuned_at_any_size(tmp_path: Path):
    own = shaken(BEiTEncoder(img_size=32, **SIZES).model).state_dict()
    torch.save({"model": unilm(own)}, tmp_path / "pretrained.pth")
    table = resample_offsets(own[f"blocks.0.attn.{TABLE}"], (4, 4), (6, 5))
    import_(tmp_path / "pretrained.pth", tmp_path / "as it is")
    import_(tmp_path / "pretrained.pth", tmp_path / "resized", img_size=[48, 40])
    for run in ("as it is", "resized"):
        classifier = build_classifier(None, 4, load_encoder(tmp_path / run), 0.0, (48, 40))
        tensors = classifier.model.state_dict()
        assert torch.equal(tensors[f"blocks.0.attn.{TABLE}"], table) and torch.equal(
            tensors[f"blocks.1.attn.{TABLE}"], table
        )
        assert classifier.model(torch.rand(1, 3, 48, 40)).shape == (1, 4)


def test_the_encoder_of_a_beit_is_read_without_its_tokenizer(tmp_path: Path):
    """Which may have stayed on another machine."""
    beit = BEiT(BEiTEncoder(img_size=32, **SIZES), str(save_tokenizer(tmp_path)), smallest_block=2)
    (tmp_path / "run").mkdir()
    save_results(tmp_path / "run", 7, beit, PretrainData("shards", 2, mean=[0.5] * 3, std=[0.25] * 3))
    (tmp_path / "tokenizer.safetensors").unlink()
    weights = read_pretrained(tmp_path / "run")
    assert weights.kind == "our BEiT model, its encoder"
    own = beit.encoder.model.state_dict()
    assert weights.tensors.keys() == own.keys() and all(torch.equal(weights.tensors[name], own[name]) for name in own)


def test_a_fine_tuned_beit_has_no_one_table(tmp_path: Path):
    own = dict(shaken(BEiTEncoder(img_size=32, **SIZES).model).state_dict())
    own[f"blocks.1.attn.{TABLE}"] = own[f"blocks.1.attn.{TABLE}"] + 1
    torch.save({"model": own}, tmp_path / "tuned.pth")
    with raises("encoder.relative_positions"):
        start_from(tmp_path / "tuned.pth", beit(tmp_path), MEAN, STD)


def test_another_size_and_other_statistics(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    old, new = tiny_mae(), fresh(48)
    start_from(save_run(tmp_path, old), new, [0.5] * 3, [0.5] * 3)
    table = old.encoder.model.state_dict()["pos_embed"]
    assert torch.equal(new.encoder.model.state_dict()["pos_embed"], resample_positions(table, (4, 4), (6, 6)))
    assert "normalized with mean [0.4, 0.5, 0.6]" in caplog.text


def test_a_classifier_goes_on_without_its_head(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model, new = tiny_classifier(), fresh()
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    import_(tmp_path / "a.pth", tmp_path / "run", encoder_heads=3)
    start_from(tmp_path / "run", new, MEAN, STD)
    assert torch.equal(new.encoder.model.state_dict()["cls_token"], model.cls_token)
    assert "28 tensors of the encoder; newly initialized: the decoder, norm.weight, norm.bias" in caplog.text


def test_what_does_not_fit(tmp_path: Path):
    run = save_run(tmp_path / "run", tiny_mae())
    with raises("weights.names.model"):
        start_from(run, fresh(decoder_depth=1), MEAN, STD)
    deeper = MAE(ViT("vit_base_patch16_224", 32, 8, embed_dim=48, depth=3, num_heads=3), decoder_dim=32)
    with raises("weights.names"):
        start_from(run, deeper, MEAN, STD)
    for heads in ((4, 4), (3, 2)):  # of the encoder, of the decoder
        with raises("init.heads"):  # no shape
            start_from(run, fresh(heads=heads), MEAN, STD)
    gray = save_run(tmp_path / "gray", tiny_mae(in_chans=1))
    with raises("init.channels"):
        start_from(gray, fresh(), MEAN, STD)


@pytest.mark.slow
def test_a_run_that_starts_from_another(programs: Programs, trained: Path, tmp_path: Path):
    """Its loss goes on where the other ended; and when it is resumed, it is not started over."""
    words = ["--config", trained / "config.yaml", "--run", tmp_path / "run", "--init", trained]
    ended = programs.run("pretrain", *words, "--optimization.epochs", "1", "--intervals.log_every_n_steps", "1")
    assert ended.code == 0 and "and the decoder" in ended.out, ended.err
    first, last = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
        for run in (tmp_path / "run", trained)
    )
    assert abs(first[0]["loss"] - last[-1]["loss"]) < abs(first[0]["loss"] - last[0]["loss"])
    done = load_file(tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "model.safetensors").unlink()
    again = programs.run("pretrain", "--resume", tmp_path / "run")
    assert again.code == 0 and "starts from" not in again.out, again.err
    resumed = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in done.items())


@pytest.mark.slow
def test_its_recipe_goes_on_from_an_encoder_of_timm_and_keeps_the_positions_that_it_learned(tmp_path: Path):
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 1}
    theirs = shaken(timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    write_shard(tmp_path / "train-0.tar", range(8))
    how: dict[str, Any] = {f"objective.encoder.{name}": value for name, value in sizes.items()}
    how |= {"objective.encoder.name": "vit_tiny_patch16_224", "objective.decoder_depth": 1}
    how |= {"optimization.warmup_epochs": 1, "machine.num_workers": 0, "machine.precision": "fp32"}
    run, init = tmp_path / "run", tmp_path / "theirs.pth"
    mae_kit.pretrain(
        "mae_continue", data=str(tmp_path / "train-0.tar"), run=run, init=init, epochs=2, batch_size=8, **how
    )
    before, after = theirs.state_dict(), load_encoder(run).model.state_dict()
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert same == {"pos_embed"}
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in after)
