"""Run command lines in child processes: read what is complete, resume what has started, continue after a failure."""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, TextIO

from mae_kit.cli.launch import PARENT
from mae_kit.errors import UserError
from mae_kit.files.durable import must_take_files
from mae_kit.files.recipe_file import flat, read_recipe
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.run_records import read_record

log = logging.getLogger(__name__)

STOPPED = (130, 143)  # exit codes after SIGINT and SIGTERM: the run can be resumed
LOCAL = tuple(f"machine.{name}" for name in ("num_workers", "threads", "cache", "cache_size", "pack"))  # no result
_PLACES = ("run", "encoder", "data.path", "data.knn_shards", "data.val", "data.exclude")
_TRACEBACK = "internal error"  # in the line that the command line prints below a traceback

Outcome = dict[str, Any]
"""The `result` of a step, or its `error`; empty for a step that has not been run."""


class Failed(Exception):
    """A command ended with an error; its message is one line."""


class Step(NamedTuple):
    """One command, whose run folder records its progress.

    Attributes:
        start: The command line that starts it.
        resume: The command line that continues it.
        run: The run folder that it trains or evaluates.
        output: A file in `run` that exists once the step is complete.
    """

    start: list[str]
    resume: list[str]
    run: Path
    output: Path

    @property
    def command(self) -> str:
        return self.start[0]

    @property
    def started(self) -> bool:
        return RunFolder(self.run).config.is_file()

    def outcome(self) -> Outcome:
        """What an earlier call has found; empty if the step is not complete."""
        if not self.output.is_file():
            return {}
        return {"result": read_record(self.output) if self.output.suffix == ".json" else {}}


class Children:
    """Child processes, to be stopped together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = Event()

    @contextmanager
    def started(self, command: list[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
        env = os.environ | {PARENT: str(os.getpid())}
        with subprocess.Popen(command, text=True, errors="replace", env=env, **options) as process:
            self._running.add(process)
            if self.stopped:  # as it started, by another thread
                process.terminate()
            try:
                yield process
            except BaseException:
                process.terminate()
                raise
            finally:
                self._running.discard(process)

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        self._stopped.set()
        for process in list(self._running):
            process.terminate()


def run_all(steps: Sequence[Step], workers: int = 1) -> list[Outcome]:
    """Run what is left of each step in a child process; one that fails does not stop the others.

    A signal that stops this process stops its children, which save a checkpoint first.

    Args:
        steps: Steps that do not depend on each other.
        workers: How many run at the same time. The messages of several are kept in files next to their runs only.

    Raises:
        SystemExit: A signal stopped this process or one of its children.
    """
    children = Children()
    with _sigterm_exits(), ThreadPoolExecutor(workers) as pool:
        try:
            futures = [pool.submit(_run, step, children, workers == 1) for step in steps]
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Let SIGTERM unwind this process as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(step: Step, children: Children, shown: bool) -> Outcome:
    if children.stopped:
        sys.exit(STOPPED[-1])
    if found := step.outcome():
        return found
    words = step.resume if step.started else step.start
    if shown:
        log.info(f"\n$ mae-kit {shlex.join(words)}")
    step.run.parent.mkdir(parents=True, exist_ok=True)
    try:
        result, lines = call(words, step.run.with_name(f"{step.run.name}.log"), children, shown)
    except Failed as failure:
        log.warning(f"{step.run} FAILED: {failure}")
        return {"error": str(failure)}
    except SystemExit:
        children.stop()  # before this thread takes the next step
        raise
    if lines and not shown:
        log.info(f"{step.run}: {lines[-1]}")
    return {"result": result}


def call(words: list[str], log_file: Path, children: Children, shown: bool) -> tuple[dict[str, Any], list[str]]:
    """Run `mae-kit WORDS` in a child process; return its result and its messages.

    Args:
        words: The command line.
        log_file: Its messages are appended here.
        children: Stops it together with others.
        shown: Log its messages, too.

    Raises:
        Failed: It ended with an error.
        SystemExit: A signal stopped it.
    """
    command = [sys.executable, "-m", "mae_kit", *words, "--json"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        children.started(command, stdout=out, stderr=subprocess.PIPE) as process,
        open(log_file, "a", encoding="utf-8") as file,
    ):
        assert process.stderr
        lines = _forward(process.stderr, file, shown)
        code = process.wait()
        if code in STOPPED:
            sys.exit(code)
        if code:
            raise Failed(_reason(code, lines))
        out.seek(0)
        return json.load(out), lines


def _forward(messages: Iterable[str], file: TextIO, shown: bool) -> list[str]:
    """Copy a child's messages to a file, and to the log."""
    lines = []
    for line in filter(None, map(str.rstrip, messages)):
        print(line, file=file, flush=True)
        if shown:
            log.info(f"  {line}")
        lines.append(line)
    return lines


def _reason(code: int, lines: list[str]) -> str:
    """One line on why a child failed."""
    if code < 0:
        return f"killed by signal {-code}"
    last = next((line for line in reversed(lines) if _TRACEBACK not in line), f"exit code {code}")
    return last.removeprefix("mae-kit: error: ")


def check_folder(out: Path) -> None:
    """Refuse a folder that is a file or lies in one, or that cannot be written.

    Raises:
        UserError: It is.
    """
    must_take_files(out)
    if file := next(filter(Path.is_file, (out, *out.parents)), None):
        raise UserError("out.file", f"{file} is a file, where --out needs a folder", "choose another --out")


def check_same_settings(run: Path, asked: dict[str, Any]) -> None:
    """Refuse to resume a run that was started with other settings.

    Where data, encoder and run are, and options that change no result, may differ.

    Args:
        run: Its folder; nothing is checked of one that has not started.
        asked: What its config.yaml would be if it began now.

    Raises:
        UserError: Names the first setting that differs.
    """
    file = RunFolder(run).config
    if not file.is_file():
        return
    before, now = flat(read_recipe(file)), flat(json.loads(json.dumps(asked, default=str)))
    for name in dict.fromkeys((*now, *before)):
        if name not in (*_PLACES, *LOCAL) and before.get(name) != now.get(name):
            problem = f"{run} was started with {name} {before.get(name)}, not {now.get(name)}"
            raise UserError("compare.settings", problem, f"restore it, remove {run.parent}, or choose another --out")
