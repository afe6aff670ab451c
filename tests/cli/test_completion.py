"""The scripts that complete commands, recipes and options: what each shell offers with them, where it is installed."""

import shutil
import subprocess

import pytest
from support.errors import raises

from mae_kit.cli.completion import script
from mae_kit.cli.main import COMMANDS

BASH = """{script}
COMP_WORDS=({words}); COMP_CWORD={last}; _mae_kit; printf "%s\\n" "${{COMPREPLY[@]}}"
"""
ZSH = """{script}
setopt ksharrays
COMP_WORDS=({words}); COMP_CWORD={last}; _mae_kit; print -l -- "${{COMPREPLY[@]}}"
"""
FISH = """{script}
complete -C "{line}"
"""
SHELLS = {"bash": (BASH, ["--norc"]), "zsh": (ZSH, ["-f"]), "fish": (FISH, ["--no-config"])}

everywhere = pytest.mark.parametrize("shell", SHELLS)


def offered(shell: str, words: list[str]) -> set[str]:
    """What a shell offers for the last of these words; zsh itself keeps those that begin with it."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    template, options = SHELLS[shell]
    quoted = " ".join(f"'{word}'" for word in words)
    text = template.format(script=script(shell), words=quoted, last=len(words) - 1, line=" ".join(words))
    done = subprocess.run([program, *options, "-c", text], check=True, capture_output=True, text=True)
    assert not done.stderr
    return {line.split("\t")[0] for line in done.stdout.splitlines() if line.startswith(words[-1])} - {""}


@everywhere
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mae-kit", "pre"], ["predict", "pretrain"]),
        (["mae-kit", "pretrain", "mae_vit_l"], ["mae_vit_l16"]),
        (["mae-kit", "pretrain", "on/"], ["on/gpu"]),
        (["mae-kit", "finetune", "mae_vit_b16", "--data.batch"], ["--data.batch_size"]),
        (["mae-kit", "doctor", "--self"], ["--self-test"]),
        (["mae-kit", ""], list(COMMANDS)),
    ],
)
def test_a_shell_completes(shell: str, words: list[str], expected: list[str]):
    assert offered(shell, words) == set(expected)


def test_an_unknown_shell_is_refused():
    with raises("completion"):
        script("csh")
