"""Scripts that complete commands, recipes and options in a shell.

They hold all words, so that completing imports nothing: run `mae-kit --completion bash` again after an update.
"""

from mae_kit.cli.main import COMMANDS, outlined
from mae_kit.cli.parser import options, writes_run
from mae_kit.cli.schema import positional
from mae_kit.errors import UserError
from mae_kit.files.recipe_file import recipe_names

_BASH = """\
_mae_kit() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words="{commands}"
    if [ "$COMP_CWORD" -gt 1 ]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
            *) words="" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _mae_kit mae-kit
"""
_ZSH = "autoload -Uz compinit bashcompinit\n(( $+functions[compdef] )) || compinit\nbashcompinit\n"


def script(shell: str) -> str:
    """The completion script of a shell.

    Args:
        shell: bash, zsh or fish.

    Raises:
        UserError: Another shell.
    """
    if shell not in ("bash", "zsh", "fish"):
        raise UserError("completion", f"no completion for {shell or 'no shell'}", "give bash, zsh or fish")
    words = {command: _words(command) for command in COMMANDS}
    if shell == "fish":
        return "\n".join(_fish(command, own) for command, own in words.items())
    cases = "\n".join(f'            {command}) words="{" ".join(own)}" ;;' for command, own in words.items())
    return _ZSH * (shell == "zsh") + _BASH.format(commands=" ".join(COMMANDS), cases=cases)


def _words(command: str) -> list[str]:
    """Recipes by their short names, and options."""
    kind, function = COMMANDS[command].recipes, outlined(command)
    recipes = [name.removeprefix(f"{kind}/") for name in recipe_names(kind)] if kind else []
    named = [
        *(["devices"] if kind and writes_run(function) else []),
        *options(function, kind),
        "json",
        "import",
        "help",
    ]
    places = () if kind else positional(function)
    return [*recipes, *(f"--{_written(name)}" for name in dict.fromkeys(named) if name not in places)]


def _written(option: str) -> str:
    """A setting of a recipe as the recipe spells it, any other option with dashes."""
    return option if "." in option else option.replace("_", "-")


def _fish(command: str, words: list[str]) -> str:
    text = COMMANDS[command].help.replace("'", "\\'")
    lines = [f"complete -c mae-kit -f -n __fish_use_subcommand -a {command} -d '{text}'"]
    condition = f"-n '__fish_seen_subcommand_from {command}'"
    for word in words:
        kind = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
        lines.append(f"complete -c mae-kit {condition} {kind}")
    return "\n".join(lines)
