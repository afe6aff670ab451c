"""The door: one verb, one function. Nothing beyond the standard library is imported before a verb is chosen."""

import contextlib
import difflib
import errno
import importlib
import io
import json
import keyword
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mae_kit.errors import UserError
from mae_kit.version import __version__


class Verb(NamedTuple):
    """One word of the command line; the function of that name in `mae_kit` does the work.

    Its signature is the command line, its docstring the help.

    Attributes:
        help: One line for the list of verbs.
        group: The heading it is listed under.
        recipes: The folder of recipes it takes with --config; a verb without one takes plain arguments.
    """

    help: str
    group: str
    recipes: str = ""


VERBS = {
    "shard": Verb("pack a folder of images into shards", "Data"),
    "index": Verb("index shards and name every damaged one", "Data"),
    "dedup": Verb("find near-duplicates, and what a test set has as well", "Data"),
    "pretrain": Verb("train an encoder without labels", "Train", "pretrain"),
    "tokenizer": Verb("train the codes BEiT predicts", "Train", "tokenizer"),
    "finetune": Verb("train a classifier with labels", "Train", "downstream"),
    "reconstruct": Verb("show what the model predicts for your images", "Look"),
    "inspect": Verb("plot attention, features, losses and more of a run", "Look"),
    "predict": Verb("print classes and probabilities of your images", "Look"),
    "bench": Verb("measure an encoder's speed and memory over image sizes", "Look"),
    "report": Verb("turn a run folder into one HTML page", "Look"),
    "evaluate": Verb("say what an encoder is worth, frozen or tuned", "Judge"),
    "compare": Verb("train several objectives alike, judge them alike", "Judge"),
    "import": Verb("read weights of another program", "Exchange"),
    "export": Verb("write weights as other programs read them", "Exchange"),
    "doctor": Verb("say what this machine has; kill a run and resume it", "All"),
    "demo": Verb("all of it in a few minutes: shard, pretrain, look, finetune", "All"),
}

# What the owner of the disk can mend; every other OSError is ours.
_USER_ERRNO = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "choose a folder on a disk that takes files of this size",
    errno.EIO: "its disk fails: choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EROFS: "choose a folder that can be written",
    errno.EEXIST: "choose another path",
    errno.ENOTDIR: "choose another path",
    errno.EACCES: "change its permissions or choose another folder",
    errno.EPERM: "change its permissions or choose another folder",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The words after `mae-kit`; by default those of this process.

    Returns:
        The exit code: 0, 1 for a fault of ours or a step that failed (the result counts them as `failed`), 2 for a
        mistake of the user, 130 when interrupted. A function that stops with a code of its own (`SystemExit`, 143 after
        a SIGTERM) keeps it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the names of files are any bytes
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"mae-kit {__version__}")
        return 0
    from mae_kit.console import messages

    try:
        with messages():
            result = _run(words[0], words[1:])
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _complain(error)
    return int(isinstance(result, dict) and bool(result.get("failed")))


def overview() -> str:
    """The list of verbs, by group."""
    width = max(map(len, VERBS))
    lines = ["usage: mae-kit VERB ...", ""]
    for group in dict.fromkeys(verb.group for verb in VERBS.values()):
        verbs = [f"  {name:{width}}  {verb.help}" for name, verb in VERBS.items() if verb.group == group]
        lines += [f"{group}:", *verbs, ""]
    lines += ["`mae-kit VERB --help` lists the arguments of a verb; --json prints its result as one JSON object."]
    return "\n".join(lines)


def load(verb: str) -> Callable[..., Any]:
    """The function that does a verb's work."""
    return getattr(importlib.import_module("mae_kit"), f"{verb}_" if keyword.iskeyword(verb) else verb)


def _run(name: str, words: list[str]) -> Any:
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, 1)
        fix = f"did you mean `mae-kit {near[0]}`?" if near else f"choose one of {', '.join(VERBS)}"
        raise UserError("main.run", f"no such verb {name!r}", fix)
    if "--json" not in words:
        return _call(name, words)
    with contextlib.redirect_stdout(sys.stderr):  # human lines, ours and those of other libraries
        result = _call(name, [word for word in words if word != "--json"])
    from mae_kit.console import is_main_process

    if is_main_process():
        print(json.dumps(result))
    return result


def _call(name: str, words: list[str]) -> Any:
    from mae_kit.cli.parser import parse

    function = load(name)
    return function(**parse(function, f"mae-kit {name}", words, VERBS[name].recipes))


def _complain(error: Exception) -> int:
    from mae_kit.console import inert

    if isinstance(error, UserError):
        print(f"mae-kit: error: {inert(str(error))}", file=sys.stderr)
        return 2
    if isinstance(error, OSError) and error.errno in _USER_ERRNO:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mae-kit: error: {inert(where)}{error.strerror}: {_USER_ERRNO[error.errno]}", file=sys.stderr)
        return 2
    traceback.print_exception(error)
    print(f"mae-kit {__version__}: this is our fault; please report it with the lines above", file=sys.stderr)
    return 1
