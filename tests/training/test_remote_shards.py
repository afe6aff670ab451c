"""Training from a web server as real processes: the run must not be able to tell it from a folder."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.photo_shards import write_shard
from support.processes import Programs
from support.runs import SLOW, Words, audited, same, steps
from support.webserver import WebServer

from mae_kit.data.index.open import open_index
from mae_kit.data.index.statistics import FILE

pytestmark = pytest.mark.long

SHORT_PAUSES = "from mae_kit.data.remote import filesystem\nfilesystem.PAUSES = [0.01, 0.01, 0.01]\n"
ONE_AT_A_TIME = ["--data.mix_shards", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 images in six shards of different sizes, indexed and measured; to be left as it is."""
    folder = tmp_path_factory.mktemp("shards")
    borders = [0, 10, 26, 42, 60, 75, 96]
    for number in range(6):
        write_shard(folder / f"{number}.tar", range(borders[number], borders[number + 1]))
    open_index(folder)
    (folder / FILE).write_text(json.dumps({"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}))
    return folder


@pytest.fixture(scope="module")
def local(programs: Programs, recipes: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on the folder itself, a shard at a time."""
    run = tmp_path_factory.mktemp("local") / "run"
    words: Words = ["pretrain", "--config", recipes / "pretrain.yaml", "--data.path", folder, *ONE_AT_A_TIME]
    ended = programs.run(*words, "--run", run)
    assert ended.code == 0, ended.err
    return run


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[WebServer]:
    shutil.copytree(folder, tmp_path / "web")
    server = WebServer(tmp_path / "web")
    yield server
    server.stop()


@pytest.fixture
def room(folder: Path) -> int:
    """Bytes of a cache that holds three of the six shards."""
    sizes = [path.stat().st_size for path in folder.glob("*.tar")]
    assert 3 * max(sizes) < 0.7 * sum(sizes)
    return 3 * max(sizes)


@pytest.fixture
def words(recipes: Path, server: WebServer, tmp_path: Path, room: int) -> Words:
    cache: Words = ["--machine.cache", tmp_path / "cache", "--machine.cache_size", str(room / 1e9)]
    return ["pretrain", "--config", recipes / "pretrain.yaml", "--data.path", server.url, *cache]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_from_a_bad_web_server_through_a_small_cache(
    programs: Programs, words: Words, server: WebServer, local: Path, tmp_path: Path, room: int, workers: str
):
    for number, faults in enumerate((["drop"], ["wrong"], ["short", "busy"], ["busy", "drop"], [], ["wrong", "drop"])):
        server.fail(f"{number}.tar", faults)
    more = [*ONE_AT_A_TIME, "--machine.num_workers", workers, "--run", tmp_path / "run"]
    running, most = programs.start(*words, *more, patch=SHORT_PAUSES), 0
    while running.alive():
        files = [path for path in (tmp_path / "cache").glob("*") if not path.name.startswith(".")]
        most = max(most, sum(int(path.name.rpartition("-")[2]) for path in files))
    ended = running.wait()
    assert ended.code == 0, ended.err
    assert same(tmp_path / "run", local) and audited(local) == [0, 1, 2]
    assert 0 < most <= room
    assert min(server.asked[f"{number}.tar"] for number in range(6)) >= 2, "it did not all fit"


def test_a_server_that_goes_ends_the_run_until_it_is_back(
    programs: Programs, words: Words, server: WebServer, local: Path, tmp_path: Path
):
    run = tmp_path / "run"
    more = [*ONE_AT_A_TIME, "--machine.num_workers", "1", "--run", run]
    running = programs.start(*words, *more, patch=SHORT_PAUSES + SLOW)
    running.wait_until(lambda: bool(steps(run)))
    server.stop()
    ended = running.wait()
    assert ended.code == 2 and ended.key in ("loader.failed", "data.url.unreachable"), ended
    (line,) = ended.err.splitlines()
    assert line.startswith(f"mae-kit: error: {server.url}/")
    again = programs.run("pretrain", "--resume", run, patch=SHORT_PAUSES)
    assert (again.code, again.key) == (2, "data.url.unreachable")
    server.start()
    again = programs.run("pretrain", "--resume", run, patch=SHORT_PAUSES)
    assert again.code == 0, again.err
    assert "resuming after step" in again.out and same(run, local)


def test_what_does_not_fit_is_refused_and_another_order_is_another_run(
    programs: Programs, words: Words, local: Path, tmp_path: Path
):
    refused = programs.run(*words, "--run", tmp_path / "run")
    assert (refused.code, refused.key) == (2, "data.mix_shards.too_many")
    assert not (tmp_path / "run").exists()
    copy = shutil.copytree(local, tmp_path / "copy")
    other = programs.run("pretrain", "--resume", copy, "--data.mix_shards", "2", "--optimization.epochs", "4")
    assert (other.code, other.key) == (2, "resume.settings")
