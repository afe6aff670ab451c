import pytest
from support import toy_commands

import mae_kit
from mae_kit.cli import main as cli


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the commands of the toys."""
    monkeypatch.setattr(cli, "COMMANDS", {**cli.COMMANDS, **toy_commands.COMMANDS})
    for command in toy_commands.COMMANDS:
        monkeypatch.setattr(mae_kit, command, getattr(toy_commands, command), raising=False)
