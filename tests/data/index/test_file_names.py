"""The file that each sample was, from packing to what is reported."""

import logging
import pickle
from pathlib import Path

import pytest
from support.photo_shards import jpeg

from mae_kit.commands.shard import shard
from mae_kit.data.index.file_names import FILE, read_file_names
from mae_kit.data.index.open import open_index
from mae_kit.data.loading.images import read_images
from mae_kit.data.loading.loader import quarantine_line
from mae_kit.duplicates.findings import Findings
from mae_kit.errors import BadImage

NAMES = ["cat/a, b.jpg", "cat/é.jpg", "dog/1.jpg", "dog/2.jpg"]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(jpeg(number))
    shard(str(tmp_path / "photos"), tmp_path / "shards", workers=1)
    return tmp_path / "shards"


def test_a_sample_has_the_name_of_its_file(shards: Path, tmp_path: Path):
    index = open_index(shards / "train-*.tar")
    assert sorted(index.file(row) for row in range(4)) == NAMES
    for row in range(4):
        assert index.read(row) == (tmp_path / "photos" / index.file(row)).read_bytes()
    assert sorted(name for _, name in read_images(shards, (32, 32), 3)) == NAMES
    assert f'"file": "{index.file(2)}"' in quarantine_line(index, 2, BadImage("cut"))
    assert "files" not in vars(pickle.loads(pickle.dumps(index)))


def test_duplicates_are_named(shards: Path):
    index = open_index(shards)
    found = object.__new__(Findings)
    vars(found).update(index=index, evaluation=None)
    assert found.place(1) == {"shard": "train-000000.tar", "key": index.keys[1], "file": index.file(1)}


@pytest.mark.parametrize("text", ["", "shard,key\n", "shard,key,file\na,b\n", "\udcff"])
def test_a_damaged_list_is_not_used(shards: Path, text: str, caplog: pytest.LogCaptureFixture):
    (shards / FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with caplog.at_level(logging.WARNING):
        assert read_file_names(shards) == {}
    assert "is not used" in caplog.text
    (shards / FILE).unlink()
    index = open_index(shards)
    assert index.file(0) == "" and sorted(name for _, name in read_images(shards, (32, 32), 3)) == sorted(index.keys)
