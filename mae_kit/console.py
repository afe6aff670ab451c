"""The terminal of the command line: where log messages, tables and progress bars appear.

Library modules log to `logging.getLogger(__name__)` and print nothing; `mae-kit` shows these messages through
`messages()`. A Python program that wants them configures `logging` itself:

    logging.basicConfig(level=logging.INFO, format="%(message)s")
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from mae_kit.errors import OutputLost
from mae_kit.inert import inert

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def is_main_process() -> bool:
    """Whether this is the first of the processes that torchrun, SLURM or Lightning started together."""
    return next((os.environ[name] for name in _RANKS if name in os.environ), "0") == "0"


class _Terminal(Console):
    """Prints text as it is: nothing in a name of a file or class is markup, an emoji or a command to the terminal.

    Attributes:
        lost: Why a message, table or progress bar was not printed, as on a full disk; null while all were.
    """

    lost: OSError | None = None

    def _check_buffer(self) -> None:
        """Write what is printed; a run outlives its messages."""
        try:
            super()._check_buffer()
        except OSError as error:
            self.lost = error
            self._buffer.clear()  # rich would write it again with the next one

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(inert(text), **options)

    def on_broken_pipe(self) -> None:
        """Continue in silence: what reads the messages, as `head -1`, has ended, and the command has not."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


console = _Terminal(markup=False, emoji=False, highlight=False, soft_wrap=True, quiet=not is_main_process())


class _Handler(logging.Handler):
    """Prints messages as they are, without markup or wrapping, on the `sys.stdout` of that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(Text(inert(record.getMessage())))


@contextmanager
def messages() -> Iterator[None]:
    """Show the package's log messages of level INFO and above on the terminal, for as long as a command runs.

    Raises:
        OutputLost: At the end, since a run outlives its messages: something was not printed.
    """
    logger, handler = logging.getLogger("mae_kit"), _Handler()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.level, logger.propagate = logging.INFO, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        lost, console.lost = console.lost, None
    if lost:
        raise OutputLost(*lost.args)


@contextmanager
def warnings_only() -> Iterator[None]:
    """Hide messages below WARNING: for a step of a larger command, which reports the result itself."""
    logger = logging.getLogger("mae_kit")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Rate(TextColumn):
    def __init__(self, unit: str):
        super().__init__("")
        self.unit = unit

    def render(self, task):  # type: ignore[override]
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self.unit}/s")


def bar() -> BarColumn:
    """A progress bar's column, short on a narrow terminal, where the rest of the line would be cut."""
    return BarColumn(40 if console.width >= 160 else 10)


@contextmanager
def progress(description: str, total: float | None, unit: str = "images") -> Iterator[Callable[[float], None]]:
    """Show a progress bar with rate and remaining time; yields `advance(n)`."""
    columns = (TextColumn("{task.description}", markup=False), bar(), TaskProgressColumn(), MofNCompleteColumn())
    with Progress(*columns, _Rate(unit), TimeRemainingColumn(), console=console, transient=True) as shown:
        task = shown.add_task(description, total=total)
        yield lambda n: shown.advance(task, n)
