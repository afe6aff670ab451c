"""Messages: silent from Python, plain lines on the terminal of a command."""

import contextlib
import logging
import sys

import pytest

from mae_kit.console import console, messages, progress, warnings_only
from mae_kit.errors import OutputLost
from mae_kit.inert import inert

log = logging.getLogger("mae_kit.test")


def test_a_command_shows_messages_and_python_does_not(capsys: pytest.CaptureFixture[str]):
    log.info("before")
    with messages():
        log.info("during")
        with warnings_only():
            log.info("hidden")
            log.warning("careful")
    log.info("after")
    assert capsys.readouterr().out == "during\ncareful\n"


def test_names_are_shown_without_markup_and_without_escapes(capsys: pytest.CaptureFixture[str]):
    with messages():
        log.info("[bold]cat[/bold]\x1b[2J\x9b.jpg 100%")
    assert capsys.readouterr().out == "[bold]cat[/bold]\\x1b[2J\\x9b.jpg 100%\n"
    assert inert("two\nlines\tand tab") == "two\nlines\tand tab"


def test_long_lines_are_not_wrapped(capsys: pytest.CaptureFixture[str]):
    with messages():
        log.info("x" * (console.width + 50))
    assert capsys.readouterr().out == "x" * (console.width + 50) + "\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_command_outlives_what_it_prints():
    """On a full disk: messages, a progress bar, a table; it fails at its end alone."""
    done: list[str] = []
    with contextlib.suppress(OSError), open("/dev/full", "w", buffering=1) as full, contextlib.redirect_stdout(full):
        with pytest.raises(OutputLost), messages():
            log.info("begins")
            with progress("works", 2) as advance:
                advance(1)
            console.print("a table")
            done.append("everything")
        with messages():
            done.append("again")
    assert done == ["everything", "again"]
