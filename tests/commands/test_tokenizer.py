"""The verb `tokenizer`: what it leaves behind, that it resumes, and that BEiT pretrains on it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.errors import raises
from support.pages import DRAW
from support.processes import Programs
from support.runs import lines, same

from mae_kit.encoders.tokenizers import load_tokenizer
from mae_kit.training.config import Relaxation

TOKENIZER = """
model:
  class_path: mae_kit.encoders.tokenizers.DVAE
  init_args: {codes: 300, stride: 8, width: 4, blocks: 1, code_dim: 8}
data: {batch_size: 16, image_size: 16}
optimization: {epochs: 2, learning_rate: 1.0e-3}
intervals: {log_every_n_steps: 3, checkpoint_every_n_steps: 5, eval_every_n_steps: 6}
machine: {num_workers: 0, precision: fp32}
"""
BEIT = """
objective:
  class_path: mae_kit.objectives.BEiT
  init_args:
    encoder:
      class_path: mae_kit.encoders.beit.BEiTEncoder
      init_args: {img_size: 32, patch_size: 8, embed_dim: 48, depth: 2, num_heads: 3, drop_path: 0.1}
    smallest_block: 2
data: {batch_size: 16, color_jitter: 0.4}
optimization: {epochs: 1, learning_rate: 1.0e-3}
intervals: {log_every_n_steps: 3, checkpoint_every_n_steps: 5, eval_every_n_steps: 1000}
machine: {num_workers: 0, precision: fp32}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "dvae.yaml"
    path.write_text(TOKENIZER)
    return path


@pytest.mark.long
def test_it_trains_resumes_and_beit_predicts_its_codes(programs: Programs, photos: Path, recipe: Path, tmp_path: Path):
    data = ["--data.path", photos / "train-*.tar"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    ended = programs.run("tokenizer", "--config", recipe, *data, "--run", whole, **{DRAW: 1})
    assert ended.code == 0, ended.err
    assert "the codebook has collapsed: perplexity " in ended.out and "of 300 codes" in ended.out
    told = [line for line in lines(whole) if "perplexity" in line]
    assert [line["step"] for line in told] == [6, 12]
    assert all(1 <= line["perplexity"] <= line["codes_used"] <= 300 and line["bits_per_code"] > 0 for line in told)
    assert len(list((whole / "reconstructions").glob("step-*.png"))) == 2
    page = (whole / "report.html").read_text()
    assert "<title>Tokenizer: whole" in page and "Perplexity of the codes" in page and "beit_tiny_64px" in page
    assert "The codebook has collapsed: " in page and [line["collapsed"] for line in told] == [1, 1]
    shutil.copytree(whole, halves)
    shutil.rmtree(halves / "checkpoints" / "step-00000012")
    ended = programs.run("tokenizer", "--resume", halves)
    assert ended.code == 0 and "resuming after step 10" in ended.out, ended.err
    assert same(whole, halves, "tokenizer.safetensors")
    assert load_tokenizer(whole).codebook == 300

    (tmp_path / "beit.yaml").write_text(BEIT)
    words = ["--config", tmp_path / "beit.yaml", "--objective.tokenizer", whole, *data, "--run", tmp_path / "beit"]
    ended = programs.run("pretrain", *words)
    assert ended.code == 0 and "eval mode" not in ended.err, ended.err
    assert not any("tokenizer" in name for name in load_file(tmp_path / "beit" / "model.safetensors"))
    assert json.loads((tmp_path / "beit" / "encoder.json").read_text())["objective"] == "BEiT"
    assert [line for line in lines(tmp_path / "beit") if "accuracy" in line]
    ended = programs.run("reconstruct", tmp_path / "beit", photos / "val-0.tar", "--out", tmp_path / "grid.png")
    assert ended.code == 0 and (tmp_path / "grid.png").stat().st_size > 1000, ended.err


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ("--data.image_size 20", "encoder.img_size.patch"),
        ("--model.stride 6", "tokenizer.stride"),
        ("--relaxation.temperature 0", "relaxation.temperature"),
        ("--relaxation.divergence_weight -1", "relaxation.divergence_weight"),
        ("--model.blocks -1", "tokenizer.codes"),
        ("--model.blocks 1000000", "tokenizer.codes"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    photos: Path, recipe: Path, tmp_path: Path, mistake: Callable[..., str], changed: str, key: str
):
    words = ["tokenizer", "--config", recipe, "--data.path", photos / "train-*.tar", "--run", tmp_path / "run"]
    assert mistake(*words, *changed.split()) == key
    assert not (tmp_path / "run").exists()


def test_codes_become_hard_the_divergence_counts_more_and_more_and_noise_fades():
    relaxation = Relaxation(
        0.0625, temperature_epochs=4, divergence_weight=6.6, divergence_epochs=2, noise=0.5, noise_epochs=2
    )
    assert relaxation.at(0) == (1, 0, 1)
    temperature, weight, noise = relaxation.at(1)
    assert 0.0625 < temperature < 1 and weight == pytest.approx(3.3) and noise == pytest.approx(0.75)
    assert relaxation.at(4) == relaxation.at(9) == (0.0625, 6.6, 0.5)
    assert Relaxation(temperature_epochs=0, divergence_epochs=0).at(0) == (0.0625, 6.6, 1), "the paper's noise"
    unfit: list[dict[str, Any]] = [{"temperature": 2.0}, {"noise": 0.0}]
    for wrong in unfit:
        with raises(f"relaxation.{next(iter(wrong))}"):
            Relaxation(**wrong)
