"""What has been done, a file a stage: work that was interrupted repeats nothing."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mae_kit.console import say
from mae_kit.durable import replace_text
from mae_kit.errors import UserError
from mae_kit.stages.command import Failed, run_command
from mae_kit.stages.stage import Stage

Record = dict[str, Any]
"""`words`, `recipe` and fingerprints of the stage, and its `result` or its `error`."""


def must_be_folder(out: Path) -> None:
    """Asked before any work.

    Raises:
        UserError: A file is where the folder is to be.
    """
    file = next(filter(Path.is_file, (out, *out.parents)), None)
    if file:
        raise UserError(f"{file} is a file, where --out needs a folder", "choose another --out")


def run_stage(stage: Stage, begun: bool) -> dict[str, Any]:
    """The result of its command line, in a process of its own.

    Args:
        stage: What is done.
        begun: Go on with the run that is there.

    Raises:
        Failed: It ended with an error.
        SystemExit: A signal stopped it.
    """
    say(f"\n$ mae-kit {shlex.join(stage.words)}")
    words = [stage.verb, "--resume", str(stage.run)] if begun else stage.words
    return run_command(words, stage.folder / f"{stage.verb}.log")


def complete(stage: Stage, work: Callable[[Stage, bool], dict[str, Any]] = run_stage) -> Record:
    """Do what is left of a stage: what is done is read, what has begun goes on, what has failed is tried again.

    Args:
        stage: What is done.
        work: How; told whether the stage has begun.

    Raises:
        UserError: It was begun with other settings.
        SystemExit: A signal stopped it.
    """
    path = stage.folder / f"{stage.verb}.json"
    settings = {"words": stage.words, "recipe": stage.recipe, **stage.prints}
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else settings
    begun = (stage.run / "config.yaml").is_file()
    changed = [name for name, now in settings.items() if before.get(name, now) != now]  # what is not known is believed
    if (begun or "result" in before) and changed:
        causes = ", ".join(changed).replace("words", "command line")
        what = f"{stage.run} was begun with other settings ({causes})"
        raise UserError(what, f"choose another --out, or remove {stage.folder}")
    if "result" in before:
        return before
    stage.folder.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(settings))
    record = settings | _outcome(stage, begun, work)
    replace_text(path, json.dumps(record, indent=2))
    return record


def _outcome(stage: Stage, begun: bool, work: Callable[[Stage, bool], dict[str, Any]]) -> Record:
    try:
        return {"result": work(stage, begun)}
    except Failed as failure:
        say(f"{stage.run} FAILED: {failure}")
        return {"error": str(failure)}
