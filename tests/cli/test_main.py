"""The entry point: exit codes, streams, help and version."""
# Also tests __main__.py, errors.py, version.py.

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from support import toy_commands

from mae_kit.cli import main as cli

Door = Callable[..., tuple[int, str, str]]
TOYS = Path(toy_commands.__file__)
HEAVY = {"torch", "numpy", "rich", "yaml", "pytorch_lightning", "timm", "matplotlib"}


@pytest.fixture
def door(toys: None, capsys: pytest.CaptureFixture[str]) -> Door:
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def program(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command line of the toys as a program."""
    command = [sys.executable, str(TOYS), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]


def test_help_and_version_import_nothing_heavy():
    calls = "main(['--help']); main(['--version']); main([]); main(['help']); main(['pretrian'])"
    code = f"import sys; from mae_kit.cli.main import main; {calls}; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mae_kit.cli.main" in done.stderr.split()
    assert (HEAVY - {"rich"}).isdisjoint(done.stderr.split())


def test_help_lists_every_command_under_its_group(door: Door):
    code, out, _ = door("--help")
    assert code == 0 and door("help")[1] == door()[1] == out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in out and command.help in out and f"\n{command.group}:\n" in out


def test_version_is_the_installed_one():
    done = subprocess.run([sys.executable, "-m", "mae_kit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mae-kit {metadata.version('mae_kit')}\n"


def test_a_reader_that_stops_early_is_no_error():
    ends = subprocess.run(
        f"{sys.executable} -m mae_kit --help | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ends.stdout.splitlines()[-1] == "0" and ends.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["recipes"], ["recipes", "--json"], ["--help"]], ids=" ".join)
def test_a_full_standard_output_is_one_line(words: list[str], unbuffered: str):
    command = [sys.executable, str(TOYS), *words]
    with open("/dev/full", "w") as full:
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr.count("mae-kit: error: "), "Traceback" in done.stderr) == (1, 1, False)


def test_json_is_alone_on_stdout():
    done = program("look", "run", "a.jpg", "b.jpg", "--fast", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"images": ["a.jpg", "b.jpg"], "ratio": None, "fast": True}
    assert done.stderr.splitlines() == ["looking at a.jpg", "printed by a library"]


def test_file_names_that_are_not_utf8_are_printed():
    done = program("look", "run", os.fsdecode(b"caf\xe9.png"))
    assert (done.returncode, done.stdout) == (0, "looking at caf\\udce9.png\nprinted by a library\n")


def test_one_process_of_many_prints_the_json(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    assert door("look", "run", "a.jpg", "--json")[:2] == (0, "")


def test_without_json_messages_are_on_stdout(door: Door):
    assert door("look", "run", "a.jpg", "--ratio", ".5") == (0, "looking at a.jpg\nprinted by a library\n", "")


@pytest.mark.parametrize(("how", "code"), [("user", 2), ("disk", 2), ("way", 2)])
def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(how: str, code: int, door: Door):
    ended, out, error = door("fail", how)
    assert (ended, out) == (code, "") and error.startswith("mae-kit: error: ") and error.count("\n") == 1


def test_interrupted_is_one_line_and_exit_code_130(door: Door, monkeypatch: pytest.MonkeyPatch):
    code, out, alone = door("fail", "interrupt")
    assert (code, out, alone.count("\n")) == (130, "", 1)
    monkeypatch.setitem(cli.COMMANDS, "fail", cli.COMMANDS["fail"]._replace(resumes=True))
    code, _, hint = door("fail", "interrupt")
    assert code == 130 and hint.startswith(alone.rstrip()) and hint > alone
    assert door("fail", "signal")[0] == 143


def test_the_next_command_is_printed_last(door: Door):
    assert door("fail", "next")[1] == "next: mae-kit look\n"
    assert json.loads(door("fail", "next", "--json")[1]) == {"next": "mae-kit look"}


def test_an_internal_error_is_exit_code_1_with_a_traceback():
    done = program("fail", "bug")
    assert done.returncode == 1 and done.stdout == ""
    assert "ZeroDivisionError: a bug" in done.stderr.splitlines() and "report" in done.stderr.splitlines()[-1]


def test_a_command_that_stops_with_a_code_of_its_own_keeps_it():
    done = program("fail", "signal")
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_a_step_that_failed_is_reported_by_exit_code_and_result(door: Door):
    assert door("fail", "step") == (1, "", "")
    assert door("fail", "step", "--json") == (1, '{"failed": 2}\n', "")


def test_a_misspelled_command_names_the_nearest(door: Door):
    code, _, error = door("lok", "run", "a")
    assert code == 2 and "mae-kit look" in error
