"""Every recipe: parses, builds its model (without memory), and says how it is used."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_models import save_tokenizer

from mae_kit.cli import VERBS, load
from mae_kit.recipes import FOLDER
from mae_kit.signature import parse

NEEDED = {
    "pretrain": ["--data.shards", "x"],
    "tokenizer": ["--data.shards", "x"],
    "finetune": ["--data.train", "x", "--data.val", "y"],
}
RECIPES = [(verb, path) for verb in NEEDED for path in sorted((FOLDER / VERBS[verb].recipes).glob("*.yaml"))]


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe[1].stem)
def recipe(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param


def test_it_parses_and_its_model_can_be_built(recipe: tuple[str, Path], tmp_path: Path):
    verb, path = recipe
    words = ["--config", str(path), *NEEDED[verb], "--run", "run"]
    if "objectives.BEiT" in path.read_text() and verb == "pretrain":
        words += ["--objective.tokenizer", str(save_tokenizer(tmp_path))]
    with torch.device("meta"):
        arguments: dict[str, Any] = parse(load(VERBS[verb]), verb, words, VERBS[verb].recipes)
    optimization, batch_size = arguments["optimization"], arguments["data"].batch_size
    assert 0 < optimization.peak(batch_size) < 0.02 and optimization.warmup_epochs < optimization.epochs
    assert optimization.min_learning_rate < optimization.peak(batch_size)
    if verb == "pretrain":
        parameters = sum(parameter.numel() for parameter in arguments["objective"].encoder.parameters())
        assert parameters > 100_000 and arguments["objective"].encoder.config()["init_args"]["img_size"]


def test_its_head_says_what_it_is_and_how_it_is_run(recipe: tuple[str, Path]):
    verb, path = recipe
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert "Command:" in head and (f"{verb} --config {path.stem}" in head or "demo" in head), head


def test_it_is_complete_but_for_what_the_user_brings(recipe: tuple[str, Path]):
    verb, path = recipe
    known = set(inspect.signature(load(VERBS[verb])).parameters)
    given = yaml.safe_load(path.read_text())
    assert set(given) <= known
    own = {"pretrain": {"objective"}, "tokenizer": {"model", "relaxation"}, "finetune": set()}[verb]
    assert own | {"data", "optimization"} <= set(given)
