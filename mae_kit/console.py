"""The terminal: one human line, or one progress bar, on whatever is stdout as they are printed."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print one human line, as it is: no markup, no wrapping."""
    if not is_hushed():
        console.print(text, markup=False)


_hushed: ContextVar[bool] = ContextVar("hushed", default=False)


def is_hushed() -> bool:
    """Whether human lines are held back; bars then leave no trace either. Of torchrun's processes the first speaks."""
    return _hushed.get() or os.environ.get("RANK", "0") != "0"


@contextmanager
def hush() -> Iterator[None]:
    """Hold back human lines: for a step of something larger, which tells the outcome itself."""
    token = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(token)


class _Rate(TextColumn):
    def __init__(self, unit: str):
        super().__init__("")
        self.unit = unit

    def render(self, task):  # type: ignore[override]
        from rich.text import Text

        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self.unit}/s")


def bar() -> BarColumn:
    """A short one on a narrow terminal, where the rest of the line would lose its end."""
    return BarColumn(40 if console.width >= 160 else 10)


@contextmanager
def progress(description: str, total: float | None, unit: str = "images") -> Iterator[Callable[[float], None]]:
    """Show a bar with rate and time left; yields `advance(n)`."""
    columns = (TextColumn("{task.description}"), bar(), TaskProgressColumn(), MofNCompleteColumn())
    with Progress(*columns, _Rate(unit), TimeRemainingColumn(), console=console, transient=True) as shown:
        task = shown.add_task(description, total=total)
        yield lambda n: shown.advance(task, n)
