"""Words become arguments: recipes, overlays, short names, and what is refused."""
# Also tests cli/schema.py, cli/settings.py, cli/words.py.

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import toy_commands
from support.errors import raises

from mae_kit.cli.main import read
from mae_kit.files import recipe_file

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(toy_commands.RECIPE)
    return path


def train(*words: str | Path) -> dict[str, Any]:
    return read("train", [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("look", "run"),
        ("look run", "images"),
        ("look run a --ratoi 1", "--ratoi"),
        ("look run a --rat 1", "--rat"),
        ("look run a --ratio x", "ratio"),
        ("look run a --ratio", "ratio"),
        ("fail bugs", "how"),
        ("fail bug more", "arguments"),
        ("train --config", "config"),
        ("train --resume nowhere", "resume"),
        ("train nowhere", "recipe.name"),
        ("look run a --config c", "--config"),
    ],
)
def test_mistakes_on_the_command_line(words: str, key: str):
    command, *rest = words.split()
    with raises(key):
        read(command, rest)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed:", "sed:", "sed"),
        ("  size:", "  siz:", "data.siz"),
        ("    ratio", "    rati", "objective.rati"),
        ("width", "wdth", "objective.encoder.wdth"),
        ("64", "big", "data.size"),
        ("64", "null", "data.size"),
        (": 8", ": x", "objective.encoder.width"),
        ("path: photos", "size: 1\nstep: 1", "recipe.yaml"),
        ("  path: photos\n", "", "data.path"),
        (".Hide", ".Hied", "config.class_path"),
        (".Hide", ".Encoder", "objective"),
        ("support.toy_commands.Hide", "nowhere.Hide", "config.class_path"),
        (".5", "1", "toy.ratio"),
    ],
)
def test_mistakes_in_a_recipe(old: str, new: str, key: str, recipe: Path):
    recipe.write_text(toy_commands.RECIPE.replace(old, new))
    with raises(key):
        train(recipe, "--run", "r")


@pytest.mark.parametrize("word", ["objective.rati", "data.siz", "objective.encoder.wdth"])
def test_an_unknown_option_is_named_with_the_nearest(word: str, recipe: Path):
    with raises(word, f"--{word}") as caught:
        train(recipe, f"--{word}", "1", "--run", "r")
    assert "did you mean" in caught.value.fix


def test_overrides_hold_wherever_they_stand(recipe: Path):
    assert train(recipe, "--run", "r")["objective"].ratio == 0.5
    overrides = ["--objective.ratio", ".6", "--data.size", "32", "--run", "r"]
    for words in ([recipe, *overrides], [*overrides, "--config", recipe], [*overrides, recipe]):
        made = train(*words)
        assert (made["objective"].ratio, made["data"].size, made["run"]) == (0.6, 32, Path("r"))
        assert made["steps"] is None and made["resume"] is False
    assert train(recipe, "--run", "r", "--objective.init_args.ratio", ".7")["objective"].ratio == 0.7
    assert train(recipe, "--run=r", "--objective.encoder.width=5")["objective"].encoder.width == 5
    assert train(recipe, "--run=r", "--data", "2026")["data"].path == Path("2026")


def test_the_seed_decides_the_weights(recipe: Path):
    first, again, other = (train(recipe, "--run", "r", *more)["objective"].weight for more in ([], [], ["--seed", "4"]))
    assert first == again != other


def test_resume_takes_the_saved_recipe(recipe: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(toy_commands.RECIPE + "run: where/it/was\nsteps: 7\n")
    made = train("--resume", run, "--data.size", "48")
    assert (made["resume"], made["run"], made["steps"], made["data"].size) == (True, run, 7, 48)
    assert train(recipe, "--run", run)["resume"] is False
    assert train("--resume", run, f"--run={run}")["run"] == run
    with raises("resume"):
        train("--resume", run, "--run", "elsewhere")


def test_resume_auto_begins_a_run_or_continues_it(recipe: Path, tmp_path: Path):
    run = tmp_path / "run"
    words = (recipe, "--run", run, "--resume", "auto")
    assert train(*words)["resume"] is False
    run.mkdir()
    shutil.copy(recipe, run / "config.yaml")
    made = train(*words)
    assert (made["resume"], made["run"]) == (True, run)
    with raises("run"):
        train(recipe, "--resume", "auto")


def test_the_run_is_the_next_free_folder(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert train(recipe)["run"] == Path("runs/toy")
    Path("runs/toy").mkdir(parents=True)
    assert train(recipe)["run"] == Path("runs/toy-2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with raises("run"):
        train(recipe)


def test_recipes_are_found_by_name_and_overlaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in {
        "pretrain/toy_b16": toy_commands.RECIPE,
        "downstream/toy_b16": "steps: 1",
        "downstream/toy_l16": "steps: 1",
        "on/gpu": "steps: 9\ndata: {size: 16}",
    }.items():
        path = tmp_path / "recipes" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(recipe_file, "FOLDER", tmp_path / "recipes")
    for name in ("toy_b16", "toy_b16.yaml", "pretrain/toy_b16", "recipes/pretrain/toy_b16.yaml"):
        assert train(name, "--run", "r")["data"].size == 64
    for words in (["toy_b16", "gpu"], ["toy_b16", "--config", "on/gpu"]):
        made = train(*words, "--run", "r")
        assert (made["data"].size, made["steps"], made["objective"].ratio) == (16, 9, 0.5)
    for wrong, key in {"toy_b61": "recipe.name", "zzz": "recipe.name", "toy_l16": "recipe.kind"}.items():
        with raises(key):
            train(wrong, "--run", "r")


@pytest.mark.usefixtures("elsewhere")
def test_recipes_are_utf8(recipe: Path):
    recipe.write_text(f"# \u00e9\n{toy_commands.RECIPE}", encoding="utf-8")
    assert train(recipe, "--run", "r")["data"].size == 64


def test_a_pattern_without_quotes_is_named(recipe: Path, tmp_path: Path):
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).touch()
    with raises("recipe.name") as caught:
        train(recipe, "--data", tmp_path / "a.tar", tmp_path / "b.tar")
    assert "quote" in caught.value.fix


PRETRAIN = "pretrain mae_vit_tiny_64px --data x --run r"
FINETUNE = "finetune vit_tiny_64px --data x --run r"


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (f"{PRETRAIN} --optimization.lr 1", "--optimization.lr"),
        (f"{PRETRAIN} --objective SimMIM", "objective"),
        (f"{PRETRAIN} --config beit_tiny_64px", "objective"),
        ("pretrain beit_tiny_64px --data x --run y", "objective.tokenizer"),
        (f"{PRETRAIN} --model x", "--model"),
        (f"{PRETRAIN} --data.mean 0.5,x", "data.mean"),
        (f"{PRETRAIN} --data.crop_scale 0.5", "data.crop_scale"),
        (f"{PRETRAIN} --no-seed", "--no_seed"),
        (f"{FINETUNE} --model resnet18", "model"),
        (f"{FINETUNE} --model.nam x", "--model.nam"),
        (f"{FINETUNE} --model.args patch_size=8", "model.args"),
        ("pretrain vit_tiny_64px", "recipe.kind"),
    ],
)
def test_words_that_the_trainings_do_not_know(words: str, key: str):
    command, *rest = words.split()
    with raises(key):
        read(command, rest)


def test_short_names_stand_for_settings():
    made = read("pretrain", f"{PRETRAIN} --epochs 3 --batch-size 8 --lr 1e-3 --precision fp32 --seed 5".split()[1:])
    optimization = made["optimization"]
    assert (optimization.epochs, optimization.learning_rate, optimization.base_learning_rate) == (3, 1e-3, None)
    assert (made["data"].batch_size, made["machine"].precision, made["seed"]) == (8, "fp32", 5)


def test_commas_make_lists():
    made = read("pretrain", f"{PRETRAIN} --data.mean .5,.4,.3 --data.std [.1,.2,.3] --data.crop_scale .5,1".split()[1:])
    assert (made["data"].mean, made["data"].std) == ([0.5, 0.4, 0.3], [0.1, 0.2, 0.3])
    assert made["data"].crop_scale == (0.5, 1)
    assert read("pretrain", f"{PRETRAIN} --data.mean .5".split()[1:])["data"].mean == [0.5]
    assert read("inspect", ["run", "--show", "attention,losses"])["show"] == ["attention", "losses"]
    assert read("inspect", ["run", "--show", "attention"])["show"] == "attention"
    assert read("evaluate", ["run", "--layers", "6,12"])["layers"] == [6, 12]
    with raises("show"):
        read("inspect", ["run", "--show", "attention,loses"])


def test_a_switch_is_turned_off():
    assert read("pretrain", PRETRAIN.split()[1:])["machine"].pack
    assert not read("pretrain", f"{PRETRAIN} --no-pack".split()[1:])["machine"].pack
    assert not read("evaluate", ["run", "--no-pack", "--data", "x"])["pack"]
    assert read("look", ["run", "a", "--no-fast"])["fast"] is False


@pytest.mark.parametrize(
    ("command", "other", "key"),
    [
        ("pretrain", "finetune", "augmentation"),
        ("finetune", "pretrain", "objective"),
        ("pretrain", "tokenizer", "relaxation"),
    ],
)
def test_a_run_is_resumed_by_the_command_that_started_it(tmp_path: Path, command: str, other: str, key: str):
    (tmp_path / "config.yaml").write_text(f"{key}: {{}}")
    with raises("resume") as caught:
        read(command, ["--resume", str(tmp_path)])
    assert f"mae-kit {other} --resume" in caught.value.fix


@pytest.mark.parametrize("epochs", [0.5, 30])
def test_a_warmup_is_shortened_where_it_does_not_fit(epochs: float):
    words = ["mae_vit_tiny_64px", "--data", "x"]
    recipe = read("pretrain", words)["optimization"]
    made = read("pretrain", [*words, "--epochs", str(epochs)])["optimization"]
    fraction = epochs / recipe.epochs if epochs < recipe.warmup_epochs else 1
    assert made.warmup_epochs == pytest.approx(recipe.warmup_epochs * fraction)
