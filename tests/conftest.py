"""What tests share: the folder of real data beside the project, and one tiny set of shards."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data that lies beside a developer's checkout; the project does not depend on it."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("no shared data folder beside the project")
    return path
