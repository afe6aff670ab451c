"""What verbs that look are pointed at."""

from pathlib import Path

import pytest
from support.photo_shards import photo
from support.untrained_run import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and an encoder, untrained."""
    return write_run(tmp_path_factory.mktemp("model"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate([(32, 32), (500, 40), (1, 1), (33, 90)]):
        photo(number).resize(size).save(folder / f"{number}.png")
    return folder
