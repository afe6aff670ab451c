"""What has been done, a file a stage: work that was interrupted repeats nothing."""

import json
import logging
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from mae_kit.comparison.process import Failed, run_command
from mae_kit.comparison.stage import Stage
from mae_kit.durable import replace_text
from mae_kit.errors import UserError

log = logging.getLogger(__name__)

Record = dict[str, Any]
"""`words` and fingerprints of the stage, and its `result` or its `error`."""


def must_be_folder(out: Path) -> None:
    """Asked before any work.

    Raises:
        UserError: A file is where the folder is to be.
    """
    file = next(filter(Path.is_file, (out, *out.parents)), None)
    if file:
        raise UserError("ledger.folder", f"{file} is a file, where --out needs a folder", "choose another --out")


def run_stage(stage: Stage, begun: bool) -> dict[str, Any]:
    """The result of its command line, in a process of its own.

    Args:
        stage: What is done.
        begun: Go on with the run that is there.

    Raises:
        Failed: It ended with an error.
        SystemExit: A signal stopped it.
    """
    words = stage.going_on if begun else stage.words
    log.info(f"\n$ mae-kit {shlex.join(words)}")
    return run_command(words, stage.folder / f"{stage.verb}.log")


def has_result(stage: Stage) -> bool:
    """Whether it is done, with these settings or others."""
    return "result" in _read(stage)


def recorded(stage: Stage) -> Record:
    """What is known of a stage; empty where it was not begun.

    Raises:
        UserError: It was begun with other settings.
    """
    before = _read(stage)
    before |= {"words": stage.telling(before["words"])} if "words" in before else {}
    now = stage.settings
    changed = [name for name in now if before.get(name, now[name]) != now[name]]  # what is not known is believed
    if changed and (_has_begun(stage) or "result" in before):
        causes = [_difference(before[name], now[name]) if name == "words" else name for name in changed]
        what = f"{stage.run} was begun with other settings ({', '.join(causes)})"
        own = filter(Path.exists, (stage.run, stage.record))
        there = [stage.folder] if _is_first(stage) else own  # what else is there was made from it
        fix = f"put them back, or remove {' and '.join(map(str, there))} to begin that anew, or choose another --out"
        raise UserError("ledger.recorded", what, fix)
    return {} if changed else before


def complete(stage: Stage, work: Callable[[Stage, bool], dict[str, Any]] = run_stage) -> Record:
    """Do what is left of a stage: what is done is read, what has begun goes on, what has failed is tried again.

    Args:
        stage: What is done.
        work: How; told whether the stage has begun.

    Raises:
        UserError: It was begun with other settings.
        SystemExit: A signal stopped it.
    """
    before = recorded(stage)
    if "result" in before:
        return before
    stage.folder.mkdir(parents=True, exist_ok=True)
    replace_text(stage.record, json.dumps(stage.settings))
    record = stage.settings | _outcome(stage, _has_begun(stage), work)
    replace_text(stage.record, json.dumps(record, indent=2))
    return record


def _read(stage: Stage) -> Record:
    return json.loads(stage.record.read_text(encoding="utf-8")) if stage.record.is_file() else {}


def _is_first(stage: Stage) -> bool:
    """Of its folder: nothing else trains before a pretraining, nor before a fine-tuning from scratch."""
    return stage.verb == "pretrain" or (stage.verb == "finetune" and not (stage.folder / "pretrain.json").is_file())


def _has_begun(stage: Stage) -> bool:
    return (stage.run / "config.yaml").is_file()


def _difference(before: list[str], now: list[str]) -> str:
    """The first one of two command lines, for people."""
    then, today = _options(before), _options(now)
    names = (name for name in [*today, *then] if then.get(name) != today.get(name))
    name = next(names, "the order of options")
    return f"{name} {then.get(name, 'nothing')} then, {today.get(name, 'nothing')} now"


def _options(words: list[str]) -> dict[str, str]:
    """Values by option; of what stands alone by its place."""
    values: dict[str, str] = {}
    for place, (before, word) in enumerate(pairwise(["", *words])):
        if word.startswith("--"):
            values[word] = "set"
        else:
            values[before if before.startswith("--") else f"word {place + 1}"] = word
    return values


def _outcome(stage: Stage, begun: bool, work: Callable[[Stage, bool], dict[str, Any]]) -> Record:
    try:
        return {"result": work(stage, begun)}
    except Failed as failure:
        log.warning(f"{stage.run} FAILED: {failure}")
        return {"error": str(failure)}
