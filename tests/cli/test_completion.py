"""The scripts that complete commands, recipes and options: what bash offers with them."""

import shutil
import subprocess

import pytest
from support.errors import raises

from mae_kit.cli.completion import script
from mae_kit.cli.main import COMMANDS

BASH = shutil.which("bash")


def offered(words: list[str]) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f'COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}; _mae_kit; printf "%s\\n" "${{COMPREPLY[@]}}"'
    program = f"{script('bash')}\n{ask}"
    return subprocess.run([str(BASH), "-c", program], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.skipif(not BASH, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mae-kit", "pre"], ["predict", "pretrain"]),
        (["mae-kit", "pretrain", "mae_vit_b"], ["mae_vit_b16"]),
        (["mae-kit", "pretrain", "on/"], ["on/gpu"]),
        (["mae-kit", "finetune", "mae_vit_b16", "--data.batch"], ["--data.batch_size"]),
        (["mae-kit", "doctor", "--self"], ["--self-test"]),
        (["mae-kit", "nothing", ""], []),
    ],
)
def test_bash_completes(words: list[str], expected: list[str]):
    assert sorted(offered(words)) == expected


@pytest.mark.skipif(not BASH, reason="no bash")
def test_bash_offers_every_command():
    assert sorted(offered(["mae-kit", ""])) == sorted(COMMANDS)


def test_an_unknown_shell_is_refused():
    with raises("completion"):
        script("csh")
