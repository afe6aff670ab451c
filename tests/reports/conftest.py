"""What tests of pages share."""

import pytest

from mae_kit.reports import drawing


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts have their lines but are not made into SVG, which takes nearly all of a page's time."""
    monkeypatch.setattr(drawing, "_svg", lambda figure, prefix: "<svg></svg>")
