"""Shards behind a URL: the same samples as in a folder, from a cache, with read-ahead, in spite of faults."""

import json
import multiprocessing
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from support.bent_indexes import CHANGES, bend
from support.errors import raises
from support.photo_shards import write_shard
from support.webserver import WebServer

from mae_kit.commands.index import index
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.statistics import channel_statistics
from mae_kit.data.loading.images import load_images, read_images
from mae_kit.data.loading.loader import EvaluationBatches, Loader, TrainBatches
from mae_kit.data.remote import filesystem as remote
from mae_kit.data.remote import store
from mae_kit.data.remote.cache import Cache
from mae_kit.data.scale import Scale

TRAIN = ["train-0.tar", "train-1.tar", "train-2.tar"]


@pytest.fixture
def server(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Serves indexed shards; clients make short pauses."""
    monkeypatch.setattr(remote, "PAUSES", [0.001] * 4)
    open_index(photos)
    shutil.copytree(photos, tmp_path / "web")
    server = WebServer(tmp_path / "web")
    yield server
    server.stop()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def batches(index: Index, mix: int = 0) -> TrainBatches:
    return TrainBatches(index, np.arange(len(index)), 16, (24, 32), mix_shards=mix)


def wait_until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def shards_in(cache: Cache) -> int:
    return len([path for path in cache.folder.glob("*") if not path.name.startswith(".")])


def test_a_url_has_the_samples_of_its_folder(server: WebServer, cache: Cache):
    here = open_index(server.folder / "train-*.tar")
    there = open_index(f"{server.url}/train-*.tar", cache=cache)
    assert (there.fingerprint, there.contents, there.classes) == (here.fingerprint, here.contents, here.classes)
    assert [there.read(row) for row in range(96)] == [here.read(row) for row in range(96)]
    assert [server.asked[name] for name in TRAIN] == [1, 1, 1]


@pytest.mark.parametrize(("place", "samples"), [("", 128), ("/", 128), ("/val-0.tar", 32), ("/train-[01].tar", 64)])
def test_a_url_is_a_folder_a_tar_or_a_pattern(server: WebServer, cache: Cache, place: str, samples: int):
    assert len(open_index(server.url + place, cache=cache)) == samples


def test_an_index_is_downloaded_again_when_it_changed(server: WebServer, cache: Cache):
    for _ in range(3):
        assert len(open_index(server.url, cache=cache)) == 128
    assert server.asked["index.safetensors"] == 1
    (server.folder / "train-1.tar").unlink()
    open_index(server.folder)
    assert len(open_index(server.url, cache=cache)) == 96
    assert server.asked["index.safetensors"] == 2


def test_mistakes(server: WebServer, cache: Cache, tmp_path: Path):
    with raises("shards.remote_index"):
        open_index(f"{server.url}/test-*", cache=cache)
    with raises("index.url"):
        index(f"{server.url}/train-*.tar")
    (server.folder / "index.safetensors").write_bytes(b"something else")
    with raises("shards.remote_index"):
        open_index(server.url, cache=cache)
    (server.folder / "index.safetensors").unlink()
    with raises("shards.remote_index"):
        open_index(server.url, cache=cache)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_served_index_that_contradicts_itself_is_refused(server: WebServer, cache: Cache, change: Any):
    bend(server.folder / "index.safetensors", change)
    with raises("shards.remote_index.outdated"):
        open_index(server.url, cache=cache)


def test_an_index_without_end(server: WebServer, cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "LARGEST_BESIDE", 100_000)
    server.fail("index.safetensors", repeat("endless"))
    with raises("shards.remote_index.outdated"):
        open_index(server.url, cache=cache)


SCALE = Scale("uint16", "given", [0.0], [4095.0], [2000.0])


def test_statistics_and_scale_come_with_the_shards(server: WebServer, cache: Cache):
    assert channel_statistics(open_index(server.url, cache=cache)) is None
    stats = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2], "scale": asdict(SCALE)}
    (server.folder / "stats.json").write_text(json.dumps(stats))
    there = open_index(server.url, cache=cache)
    assert channel_statistics(there) == (stats["mean"], stats["std"]) and there.scale == SCALE
    (server.folder / "stats.json").write_text("[" * 5000)
    with raises("stats.damaged"):
        assert open_index(server.url, cache=cache).scale
    (server.folder / "stats.json").write_text(json.dumps(stats | {"scale": {"uint16": [0, 4095]}}))
    with raises("stats.damaged.scale"):
        assert open_index(server.url, cache=cache).scale


@pytest.mark.parametrize("faults", [["drop"], ["wrong"], ["short", "wrong"], ["busy", "drop", "short"]])
def test_a_shard_arrives_whole_in_spite_of_faults(server: WebServer, cache: Cache, faults: list[str]):
    there = open_index(f"{server.url}/train-0.tar", cache=cache)
    server.fail("train-0.tar", faults)
    assert not batches(there)[0].bad and not batches(there)[1].bad


@pytest.mark.parametrize("fault", ["wrong", "short", "page", "missing"])
def test_a_shard_that_stays_another_ends_the_run_until_it_is_right(server: WebServer, cache: Cache, fault: str):
    """Other images in place of its samples would be another training."""
    there = open_index(f"{server.url}/train-*.tar", cache=cache)
    server.fail("train-1.tar", repeat(fault))
    with raises("data.url"):
        [batches(there)[step] for step in range(6)]
    assert server.asked["train-1.tar"] in (5, 10, 15), "five times by the reader and by each that reads ahead"
    server.fail("train-1.tar", [])
    assert not any(batches(there)[step].bad for step in range(6))


@pytest.mark.parametrize("fault", ["page", "missing", "endless"])
def test_a_server_that_lies_now_and_then_changes_nothing(server: WebServer, cache: Cache, fault: str):
    there = open_index(f"{server.url}/train-0.tar", cache=cache)
    server.fail("train-0.tar", [fault] * 3)
    assert not batches(there)[0].bad
    assert server.asked["train-0.tar"] <= 4


def test_a_cached_shard_that_the_disk_has_changed_is_fetched_again(server: WebServer, cache: Cache):
    there = open_index(f"{server.url}/train-0.tar", cache=cache)
    right = there.read(3)
    (file,) = (path for path in cache.folder.glob("*") if not path.name.startswith("."))
    file.write_bytes(bytes(file.stat().st_size))
    assert there.read(3) == right and server.asked["train-0.tar"] == 2


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_a_server_that_is_gone_is_one_line(server: WebServer, cache: Cache, workers: int):
    data = batches(open_index(f"{server.url}/train-*.tar", cache=cache))
    server.stop()
    loader = Loader(data, 0, 3, workers)
    with raises("data.url", "loader.failed") as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value) and "/train-" in caught.value.problem
    server.start()
    loader = Loader(data, 0, 3, workers)
    assert not next(iter(loader)).bad
    loader.close()


def test_what_comes_next_is_fetched_before_it_is_read(server: WebServer, cache: Cache):
    there = open_index(f"{server.url}/train-*.tar", cache=cache)
    data = batches(there, mix=1)
    first, second = data.order.shards_from(0)
    data[0]
    wait_until(lambda: shards_in(cache) == 2)
    assert server.asked[TRAIN[first]] == server.asked[TRAIN[second]] == 1
    assert shards_in(cache) == 2, "and no more than that"
    data[2]
    wait_until(lambda: shards_in(cache) == 3)
    for step in range(12):
        data[step]
    assert [server.asked[name] for name in TRAIN] == [1, 1, 1]


def test_scoring_reads_ahead_too(server: WebServer, cache: Cache):
    there = open_index(f"{server.url}/train-*.tar", cache=cache)
    scoring = EvaluationBatches(there, np.arange(96), 20, (24, 32))
    scoring[0]
    wait_until(lambda: shards_in(cache) == 2)
    assert [server.asked[name] for name in TRAIN] == [1, 1, 0]
    assert sum(len(batch.ids) for batch in scoring) == 96  # type: ignore[attr-defined]


@pytest.mark.parametrize("mix", [1, 2])
def test_a_cache_smaller_than_the_data(server: WebServer, cache: Cache, mix: int):
    here = open_index(server.folder / "train-*.tar")
    size = max((server.folder / name).stat().st_size for name in TRAIN)
    small = Cache(cache.folder, int(2.5 * size))
    there = open_index(f"{server.url}/train-*.tar", cache=small)
    for step in range(8):
        one, other = batches(here, mix)[step], batches(there, mix)[step]
        assert torch.equal(one.images, other.images) and torch.equal(one.ids, other.ids) and not other.bad
        assert shards_in(small) <= 2


def test_what_cannot_fit_is_refused_with_what_can(server: WebServer, tmp_path: Path):
    for number in range(3, 9):
        write_shard(server.folder / f"train-{number}.tar", range(number * 32, number * 32 + 32))
    open_index(server.folder)
    total = sum(path.stat().st_size for path in server.folder.glob("train-*.tar"))

    def opened(share: float) -> Index:
        return open_index(f"{server.url}/train-*.tar", cache=Cache(tmp_path / "cache", int(share * total)))

    for mix in (0, 1, 5, 100):
        opened(1).check_mix_shards(mix)
    opened(0.8).check_mix_shards(2)
    for mix in (0, 3, 100):
        with raises("data.mix_shards"):
            opened(0.8).check_mix_shards(mix)
    with raises("data.mix_shards"):
        opened(0.2).check_mix_shards(1)
    open_index(server.folder).check_mix_shards(0)


def test_an_index_of_remote_shards_travels(server: WebServer, cache: Cache):
    there = open_index(f"{server.url}/train-*.tar", cache=cache)
    there.ahead([0, 1])
    other = pickle.loads(pickle.dumps(there))
    assert other.read(95) == open_index(server.folder / "train-*.tar").read(95)
    assert other.within({"train-0.tar"}).read(0) == there.read(0)


def test_an_object_store(server: WebServer, cache: Cache):
    """One in memory."""
    store = fsspec.filesystem("memory")
    for path in filter(Path.is_file, server.folder.iterdir()):
        store.pipe(f"/bucket/shards/{path.name}", path.read_bytes())
    there = open_index("memory://bucket/shards/val-*.tar", cache=cache)
    assert there.read(5) == open_index(server.folder / "val-0.tar").read(5)
    with raises("shards.remote_index"):
        open_index("memory://bucket/nowhere", cache=cache)
    store.rm("/bucket/shards/train-1.tar")
    with raises("data.url"):
        open_index("memory://bucket/shards/train-1.tar", cache=cache).read(0)


def test_images_to_look_at(server: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pixels, names = load_images(f"{server.url}/val-*.tar", (16, 16), 3, limit=3)
    first = islice(read_images(server.folder / "val-0.tar", (16, 16), 3), 3)
    assert torch.equal(pixels, torch.stack([each for each, _ in first])) and names == ["1000", "1001", "1002"]
    assert (tmp_path / "cache" / "mae_kit" / "shards").is_dir()


def read_all(url: str, cache: Cache) -> None:
    there = open_index(url, cache=cache)
    loader = batches(there, mix=1)  # all samples: what is read ahead only, a process that ends leaves to the others
    assert not any(loader[step].bad for step in range(len(there) // 16))


def test_processes_share_the_downloads(server: WebServer, cache: Cache):
    server.speed = 2e6  # slow enough to meet
    processes = [multiprocessing.get_context("fork").Process(target=read_all, args=(server.url, cache)) for _ in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert dict(server.asked) == dict.fromkeys([*TRAIN, "val-0.tar", "index.safetensors"], 1)
