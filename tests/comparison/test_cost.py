"""What a training costs, counted by hand."""
# Also tests comparison/results.py.

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from support.tiny_models import save_tokenizer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mae_kit.comparison.cost import IMAGES, _step, encoder_of, finetuning_cost, flops_per_image, pretraining_cost
from mae_kit.comparison.plan import Comparison, Entry, Recipe
from mae_kit.comparison.results import Outcomes, summary
from mae_kit.encoders import BEiTEncoder, ViT
from mae_kit.objectives import MAE, BEiT, SimMIM
from mae_kit.reports.comparison import cost_cells
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier

RECORD: Any = {"mean": [0.5] * 3, "std": [0.2] * 3, "image_size": (32, 32), "classes": list("abcdefghij")}
ARGS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def write_run(run: Path, objective: Any) -> Path:
    """Of 5 steps of 16 images."""
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"objective": objective.config, "data": {"batch_size": 16}}))
    clocks = [(3, 30.0, 50.0), (5, 40.0, 70.0)]
    rows = [{"step": step, "seconds": seconds, "core_seconds": cores} for step, seconds, cores in clocks]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def blocks(tokens: int, width: int, depth: int) -> int:
    """Operations of transformer blocks: four matrices of width^2 in the attention, eight in the MLP, and two maps."""
    return depth * (2 * 12 * width**2 * tokens + 4 * tokens**2 * width)


def test_every_token_counts_where_hidden_patches_are_filled(tmp_path: Path):
    cost = pretraining_cost(write_run(tmp_path / "run", SimMIM(ViT("vit_tiny_patch16_224", **ARGS), unit=8)))
    embedding = head = 2 * 16 * 192 * 48  # 16 patches of 8 x 8 x 3
    assert cost["flops"] == pytest.approx(5 * 16 * (2 * embedding + 3 * (head + blocks(17, 48, 2))))
    assert (cost["images"], cost["seconds"], cost["core_seconds"]) == (80, 40, 70)


def test_visible_patches_alone_cost_where_the_others_are_dropped(tmp_path: Path):
    encoder = ViT("vit_tiny_patch16_224", **ARGS)
    mae = MAE(encoder, 0.75, decoder_dim=32, decoder_depth=1, decoder_heads=2)
    cost = pretraining_cost(write_run(tmp_path / "run", mae))
    embedding, around = 2 * 4 * 192 * 48, 2 * 5 * 48 * 32 + 2 * 17 * 32 * 192  # into the decoder, and out of it
    expected = 5 * 16 * (2 * embedding + 3 * (around + blocks(5, 48, 2) + blocks(17, 32, 1)))
    assert cost["flops"] == pytest.approx(expected, rel=0.02)  # the last layer may leave the class token out
    assert encoder_of(tmp_path / "run") == encoder.config


def test_a_fine_tuning_costs_all_tokens_and_the_head(tmp_path: Path):
    run = write_run(tmp_path / "run", SimMIM(ViT("vit_tiny_patch16_224", **ARGS), unit=8))
    assert finetuning_cost(run) == {}  # it has not ended
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **ARGS)
    save_classifier(run, model, ModelConfig("vit_tiny_patch16_224", ARGS, **RECORD))
    embedding, head = 2 * 16 * 192 * 48, 2 * 48 * 10
    assert finetuning_cost(run)["flops"] == pytest.approx(5 * 16 * (2 * embedding + 3 * (head + blocks(17, 48, 2))))


def test_what_does_not_learn_needs_no_gradient(tmp_path: Path):
    run = write_run(tmp_path / "run", SimMIM(ViT("vit_tiny_patch16_224", **ARGS), unit=8))
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(recipe | {"blocks": 1}))
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **ARGS)
    save_classifier(run, model, ModelConfig("vit_tiny_patch16_224", ARGS, **RECORD))
    embedding, head, block = 2 * 16 * 192 * 48, 2 * 48 * 10, blocks(17, 48, 1)
    assert finetuning_cost(run)["flops"] == pytest.approx(5 * 16 * (embedding + block + 3 * (block + head)))


def test_a_fine_tuning_that_drops_patches_costs_what_is_left(tmp_path: Path):
    run = write_run(tmp_path / "run", SimMIM(ViT("vit_tiny_patch16_224", **ARGS), unit=8))
    dropping: dict[str, Any] = {"patch_drop_rate": 0.5}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **ARGS, **dropping)
    config = ModelConfig("vit_tiny_patch16_224", ARGS | dropping, **RECORD)
    save_classifier(run, model, config)
    embedding, head = 2 * 16 * 192 * 48, 2 * 48 * 10
    assert finetuning_cost(run)["flops"] == pytest.approx(5 * 16 * (2 * embedding + 3 * (head + blocks(9, 48, 2))))


def test_a_fine_tuning_that_goes_on_predicting_costs_the_colors_too(tmp_path: Path):
    args: dict[str, Any] = {"colors": 16, "embed_dim": 48, "depth": 2, "num_heads": 3, "causal": False}
    model = timm.create_model("igpt_s", num_classes=10, img_size=4, **args)
    flops = []
    for weight in (0.0, 1.0):
        run = write_run(tmp_path / f"{weight}", SimMIM(ViT("vit_tiny_patch16_224", **ARGS), unit=8))
        recipe = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump(recipe | {"generative": weight}))
        save_classifier(run, model, ModelConfig("igpt_s", args, **RECORD | {"image_size": (4, 4)}))
        flops.append(finetuning_cost(run)["flops"] or 0.0)
    colors = 2 * 16 * 48 * 16  # multiplied and added, of all pixels
    assert flops[1] - flops[0] == pytest.approx(5 * 16 * 3 * colors)


def plan(**entries: int) -> Comparison:
    """Of so many seeds."""
    recipe = Entry("mae_vit_tiny_64px")
    tuning = Recipe("vit_tiny_64px")
    return Comparison("", "", "", 80, 80, dict.fromkeys(entries, recipe), tuning, max(entries.values()), None, {})


def test_a_seed_that_broke_off_does_not_make_an_entry_cheap(tmp_path: Path):
    objective = MAE(ViT("vit_tiny_patch16_224", **ARGS), decoder_dim=32, decoder_depth=1, decoder_heads=2)
    for seed, lines in ((0, 2), (1, 1)):
        (tmp_path / f"mae-seed{seed}").mkdir()
        write_run(tmp_path / f"mae-seed{seed}/pretrain", objective)
        metrics = tmp_path / f"mae-seed{seed}/pretrain/metrics.jsonl"
        metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:lines]))
    failed: Outcomes = {"pretrain": {"error": "no memory"}}
    found: list[dict[int, Outcomes]] = [{0: {"pretrain": {"result": {}}}, 1: failed}, {0: failed, 1: failed}]
    steps = [summary(plan(mae=2), {"mae": records}, tmp_path)[0]["pretraining"]["steps"] for records in found]
    assert steps == [5, 4], "as far as they have come, where none has ended"


def test_a_tokenizer_that_is_gone_leaves_the_operations_unknown(tmp_path: Path):
    encoder = BEiTEncoder(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    beit = BEiT(encoder, str(save_tokenizer(tmp_path)), smallest_block=2)
    (tmp_path / "beit-seed0").mkdir()
    write_run(tmp_path / "beit-seed0/pretrain", beit)
    (tmp_path / "tokenizer.safetensors").unlink()
    (row,) = summary(plan(beit=2), {"beit": {0: {}, 1: {}}}, tmp_path)
    cost = row["pretraining"]
    assert cost["flops"] is None and (cost["steps"], cost["images"], cost["seconds"]) == (5, 80, 40)
    assert cost_cells(cost) == ("5", "80", "0.7", "1.2", "unknown")


def test_a_tokenizer_which_does_not_learn_goes_forwards_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = BEiTEncoder(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    beit = BEiT(encoder, str(save_tokenizer(tmp_path)), smallest_block=2)
    whole = flops_per_image(beit)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        beit.tokenizer.encode(torch.zeros(1, 3, 16, 16))  # its patches have 4 pixels a side
    monkeypatch.setattr(beit, "codes", lambda images: torch.zeros(len(images), 16, dtype=torch.int64))
    assert whole - flops_per_image(beit) == counter.get_total_flops() > 0


def test_a_convolution_of_groups_costs_what_its_groups_do():
    layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    first, second = 2 * 16 * 8 * 48, 2 * 16 * 8 * 9  # 16 places, 8 channels; the first has no gradient of its input
    assert _step(lambda: layers(torch.zeros(IMAGES, 3, 16, 16)).sum()) == 2 * first + 3 * second


def test_what_has_not_begun_costs_nothing(tmp_path: Path):
    assert pretraining_cost(tmp_path) == {} and encoder_of(tmp_path) is None
