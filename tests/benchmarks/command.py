"""A benchmark's function as its command line, like the commands of mae-kit."""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mae_kit.cli.parser import parse
from mae_kit.errors import UserError


def run(function: Callable[..., dict[str, Any]]) -> None:
    """Call it with the words of the command line; with --json, stdout receives its result alone."""
    words = [word for word in sys.argv[1:] if word != "--json"]
    arguments = _arguments(function, words)
    if len(words) == len(sys.argv) - 1:
        function(**arguments)
        return
    with contextlib.redirect_stdout(sys.stderr):
        result = function(**arguments)
    print(json.dumps(result))


def _arguments(function: Callable[..., Any], words: list[str]) -> dict[str, Any]:
    try:
        return parse(function, Path(sys.argv[0]).name, words)
    except UserError as error:
        sys.exit(str(error))
