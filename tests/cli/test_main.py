import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from support import toy_commands

import mae_kit
from mae_kit import recipe_file
from mae_kit.cli import main as cli

Door = Callable[..., tuple[int, str, str]]
TOYS = Path(toy_commands.__file__)
HEAVY = {"torch", "numpy", "jsonargparse", "rich", "yaml", "pytorch_lightning", "timm", "matplotlib"}


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    """Run a command line in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(cli, "VERBS", {**cli.VERBS, **toy_commands.VERBS})
    for verb in toy_commands.VERBS:
        monkeypatch.setattr(mae_kit, verb, getattr(toy_commands, verb), raising=False)

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(toy_commands.RECIPE)
    return path


def program(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of the toys as a program."""
    return subprocess.run([sys.executable, str(TOYS), *words], capture_output=True, text=True, timeout=120)


def test_help_and_version_import_nothing_heavy():
    calls = "main(['--help']); main(['--version']); main([])"
    code = f"import sys; from mae_kit.cli.main import main; {calls}; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stderr.split())
    assert "mae_kit.cli.main" in done.stderr.split()


def test_help_lists_every_verb_under_its_group(door: Door):
    code, out, _ = door("--help")
    assert code == 0
    for name, verb in cli.VERBS.items():
        assert f"  {name} " in out and verb.help in out and f"\n{verb.group}:\n" in out


def test_version_is_the_installed_one():
    done = subprocess.run([sys.executable, "-m", "mae_kit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mae-kit {metadata.version('mae_kit')}\n"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_for_every_argument(verb: str, door: Door, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        door(verb, "--help")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert out.startswith(f"usage: mae-kit {verb} ") and "--json" in out and "<class" not in out
    assert ("--config RECIPE" in out) == bool(cli.VERBS[verb].recipes) == ("--resume RUN" in out)


def test_json_is_alone_on_stdout():
    done = program("look", "run", "a.jpg", "b.jpg", "--fast", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"images": ["a.jpg", "b.jpg"], "ratio": None, "fast": True}
    assert done.stderr.splitlines() == ["looking at a.jpg", "printed by a library"]


def test_file_names_that_are_no_utf8_are_printed():
    done = program("look", "run", os.fsdecode(b"caf\xe9.png"))
    assert (done.returncode, done.stdout) == (0, "looking at caf\\udce9.png\nprinted by a library\n")


def test_one_process_of_many_prints_the_json(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    assert door("look", "run", "a.jpg", "--json")[:2] == (0, "")


def test_without_json_the_human_lines_are_on_stdout(door: Door):
    assert door("look", "run", "a.jpg", "--ratio", ".5") == (0, "looking at a.jpg\nprinted by a library\n", "")


@pytest.mark.parametrize(
    ("how", "code", "last"),
    [
        ("user", 2, "mae-kit: error: photos/ holds no images: give another folder"),
        ("disk", 2, "mae-kit: error: runs/a: No space left on device: free some space or choose another folder"),
        ("way", 2, "mae-kit: error: runs/a: File exists: choose another path"),
        ("interrupt", 130, ""),
    ],
)
def test_exit_codes(how: str, code: int, last: str, door: Door):
    assert door("fail", how) == (code, "", f"{last}\n" if last else "")


@pytest.mark.parametrize(
    ("how", "code", "last"),
    [
        ("bug", 1, f"mae-kit {mae_kit.__version__}: this is our fault; please report it with the lines above"),
        ("signal", 143, ""),
    ],
)
def test_exit_codes_of_a_program(how: str, code: int, last: str):
    done = program("fail", how)
    assert done.returncode == code and done.stdout == ""
    lines = done.stderr.splitlines()
    assert (lines or [""])[-1] == last
    assert (len(lines) > 1) == (code == 1) == ("ZeroDivisionError: a bug" in lines)


def test_a_step_that_failed_is_told_by_the_exit_code_and_the_result(door: Door):
    assert door("fail", "step") == (1, "", "")
    assert door("fail", "step", "--json") == (1, '{"failed": 2}\n', "")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("lok run a", "no such verb 'lok': did you mean `mae-kit look`?"),
        ("look", "RUN is missing: see `mae-kit look --help`"),
        ("look run", "IMAGES is missing: see `mae-kit look --help`"),
        ("look run a --ratoi 1", "unknown option --ratoi: did you mean --ratio?"),
        ("look run a --rat 1", "unknown option --rat: did you mean --ratio?"),
        ("look run a --ratio x", "ratio does not take 'x': give float or null"),
        (
            "fail bugs",
            "how does not take 'bugs': give 'user' or 'disk' or 'way' or 'bug' or 'interrupt' or 'signal' or 'step'",
        ),
        ("fail bug more", "too many arguments, more: see `mae-kit fail --help`"),
        ("train --config", "argument --config: expected one argument: see `mae-kit train --help`"),
        ("train --resume nowhere", "nowhere has no config.yaml: give the folder of a run that was started before"),
    ],
)
def test_mistakes_on_the_command_line(words: str, error: str, door: Door):
    assert door(*words.split()) == (2, "", f"mae-kit: error: {error}\n")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("seed:", "sed:", "unknown key sed: did you mean seed?"),
        ("  size:", "  siz:", "unknown key data.siz: did you mean data.size?"),
        ("    ratio", "    rati", "unknown key objective.rati: did you mean objective.ratio?"),
        ("width", "wdth", "unknown key objective.encoder.wdth: did you mean objective.encoder.width?"),
        ("64", "big", "data.size does not take 'big': give int"),
        (": 8", ": x", "objective.encoder.width does not take 'x': give int"),
        (
            ".Hide",
            ".Hied",
            "objective: module 'support.toy_commands' has no attribute 'Hied': did you mean support.toy_commands.Hide?",
        ),
        (".5", "1", "ratio 1 leaves nothing visible: choose .75"),
    ],
)
def test_mistakes_in_a_recipe(old: str, new: str, error: str, door: Door, recipe: Path):
    recipe.write_text(toy_commands.RECIPE.replace(old, new))
    assert door("train", "--config", recipe, "--run", "r") == (2, "", f"mae-kit: error: {error}\n")


def test_the_parser_refuses_a_class_of_another_type(door: Door, recipe: Path):
    recipe.write_text(toy_commands.RECIPE.replace("support.toy_commands.Hide", "support.toy_commands.Encoder"))
    code, _, error = door("train", "--config", recipe, "--run", "r")
    assert code == 2 and "support.toy_commands.Encoder does not correspond to a subclass of Objective" in error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [", "is not YAML: "),
        ("a: 1\nb: 3\na: 2", "is not YAML: a is there twice "),
        ("just words", "is no recipe: "),
        ("", "is no recipe: "),
    ],
)
def test_a_file_that_is_no_recipe_is_named(text: str, error: str, door: Door, recipe: Path):
    recipe.write_text(text)
    code, _, line = door("train", "--config", recipe, "--run", "r")
    assert code == 2 and line.startswith(f"mae-kit: error: {recipe} {error}") and line.count("\n") == 1


def trained(door: Door, *words: str | Path) -> dict[str, object]:
    code, out, error = door("train", *words, "--json")
    assert code == 0, error
    return json.loads(out)


def test_overrides_hold_wherever_they_stand(door: Door, recipe: Path):
    assert trained(door, "--config", recipe, "--run", "r")["ratio"] == 0.5
    overrides = ["--objective.ratio", ".6", "--data.size", "32", "--run", "r"]
    result = trained(door, *overrides, "--config", recipe)
    assert result == trained(door, "--config", recipe, *overrides)
    assert (result["ratio"], result["size"], result["run"], result["steps"]) == (0.6, 32, "r", None)
    assert trained(door, "--config", recipe, "--run", "r", "--objective.init_args.ratio", ".7")["ratio"] == 0.7


def test_the_seed_decides_the_weights(door: Door, recipe: Path):
    first, again = (trained(door, "--config", recipe, "--run", "r") for _ in range(2))
    other = trained(door, "--config", recipe, "--run", "r", "--seed", "4")
    assert first["weight"] == again["weight"] != other["weight"]


def test_resume_takes_the_saved_recipe(door: Door, recipe: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(toy_commands.RECIPE + "run: where/it/was\nsteps: 7\n")
    result = trained(door, "--resume", run, "--data.size", "48")
    assert result["resume"] is True and result["run"] == str(run)
    assert (result["steps"], result["size"]) == (7, 48)
    assert trained(door, "--config", recipe, "--run", run)["resume"] is False
    assert trained(door, "--resume", run, f"--run={run}")["run"] == str(run)
    code, _, error = door("train", "--resume", run, "--run", "elsewhere")
    what = f"--resume {run} goes on in that folder, not in --run elsewhere: leave out one of the two"
    assert (code, error) == (2, f"mae-kit: error: {what}\n")


def test_recipes_are_found_by_name_and_overlaid(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
        assert trained(door, "--config", name, "--run", "r")["size"] == 64
    overlaid = trained(door, "--config", "toy_b16", "--config", "gpu", "--run", "r")
    assert (overlaid["size"], overlaid["steps"], overlaid["ratio"]) == (16, 9, 0.5)
    code, _, error = door("train", "--config", "toy_b61", "--run", "r")
    assert (code, error) == (2, "mae-kit: error: no recipe toy_b61: did you mean pretrain/toy_b16?\n")
    code, _, error = door("train", "--config", "zzz", "--run", "r")
    assert (code, error) == (2, "mae-kit: error: no recipe zzz: give a path, or one of pretrain/toy_b16, on/gpu\n")


@pytest.mark.usefixtures("elsewhere")
def test_recipes_are_utf8(door: Door, recipe: Path):
    recipe.write_text(f"# \u00e9\n{toy_commands.RECIPE}", encoding="utf-8")
    assert trained(door, "--config", recipe, "--run", "r")["size"] == 64
