"""What tests of pages share."""

import pytest
from support.pages import DRAW


@pytest.fixture(autouse=True)
def pages_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make charts into SVG, which takes nearly all of a page's time."""
    monkeypatch.setenv(DRAW, "1")


@pytest.fixture
def undrawn(pages_are_drawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave charts at their lines."""
    monkeypatch.delenv(DRAW)
