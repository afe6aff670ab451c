"""The cache of a machine: whole files, one download each, never larger than its bound, whoever is killed."""

import contextlib
import errno
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.errors import raises

from mae_kit.data.remote.cache import Cache
from mae_kit.errors import UserError

KILO = 1000


def name(number: int, size: int = KILO) -> str:
    return f"{number * 7919 % 2**16:04x}" * 4 + f"-{size}"


def contents(number: int, size: int = KILO) -> bytes:
    return bytes([number % 256]) * size


def writing(number: int, size: int = KILO) -> Callable[[Path], None]:
    def fetch(path: Path) -> None:
        path.write_bytes(contents(number, size))

    return fetch


def forbidden(path: Path) -> None:
    raise AssertionError("it is there already")


def read(cache: Cache, number: int, fetch: Callable[[Path], None], size: int = KILO) -> bytes:
    descriptor = cache.open(name(number, size), fetch)
    try:
        return os.read(descriptor, 2 * size)
    finally:
        os.close(descriptor)


def held(cache: Cache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if not path.name.endswith(".lock")}


def test_a_file_is_fetched_once(tmp_path: Path):
    cache = Cache(tmp_path / "deep" / "cache", 10 * KILO)
    assert read(cache, 1, writing(1)) == contents(1)
    assert read(cache, 1, forbidden) == contents(1)
    assert read(Cache(cache.folder, 10 * KILO), 1, forbidden) == contents(1)


def test_what_was_used_longest_ago_makes_room(tmp_path: Path):
    cache = Cache(tmp_path, 3 * KILO)
    for number in (1, 2, 3, 1, 4):  # 2 is the oldest when 4 needs room
        read(cache, number, writing(number))
        time.sleep(0.01)  # the clock of file systems ticks slowly
    assert held(cache) == {name(number) for number in (1, 3, 4)}
    read(cache, 5, writing(5, 2 * KILO), 2 * KILO)
    assert held(cache) == {name(4), name(5, 2 * KILO)}, "as many as are needed, no more"


def test_what_somebody_else_keeps_there_stays_and_does_not_count(tmp_path: Path):
    own = ["holiday-2020", "thesis-9", "notes.txt", ".notes.txt.making", "abcdef-2", ".a-7.making"]
    for file in own:
        (tmp_path / file).write_text("mine")
    cache = Cache(tmp_path, KILO)
    for number in (1, 2):
        read(cache, number, writing(number))
    assert held(cache) == {name(2), *own}
    assert {(tmp_path / file).read_text() for file in own} == {"mine"}


def test_what_is_being_read_stays_readable(tmp_path: Path):
    cache = Cache(tmp_path, KILO)
    descriptor = cache.open(name(1), writing(1))
    read(cache, 2, writing(2))
    assert held(cache) == {name(2)} and os.read(descriptor, KILO) == contents(1)
    os.close(descriptor)


def test_a_download_that_fails_leaves_nothing(tmp_path: Path):
    cache = Cache(tmp_path, KILO)

    def failing(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise UserError("toy.server", "the server", "is gone")

    with raises("toy.server"):
        read(cache, 1, failing)
    assert held(cache) == set()
    assert read(cache, 1, writing(1)) == contents(1)


def test_a_file_larger_than_the_cache(tmp_path: Path):
    with raises("machine.cache"):
        read(Cache(tmp_path, KILO), 1, forbidden, 2 * KILO)


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with raises("machine.cache"):
        read(Cache(tmp_path / "file" / "cache", KILO), 1, forbidden)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with raises("machine.cache"):
        read(Cache(tmp_path / "cache", KILO), 1, full)


def test_nobody_waits_who_need_not(tmp_path: Path):
    cache, begun, end = Cache(tmp_path, 9 * KILO), threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        begun.set()
        end.wait()
        path.write_bytes(contents(1))

    thread = threading.Thread(target=cache.fetch, args=(name(1), slow))
    thread.start()
    begun.wait()
    cache.fetch(name(1), forbidden, wait=False)
    assert not (tmp_path / name(1)).exists()
    end.set()
    thread.join()
    assert read(cache, 1, forbidden) == contents(1)


# Several processes


@pytest.fixture
def processes() -> Iterator[list[multiprocessing.Process]]:
    started: list[multiprocessing.Process] = []
    yield started
    for process in started:
        process.kill()
        process.join()


def start(processes: list[multiprocessing.Process], work: Callable[..., None], *arguments: object) -> None:
    processes.append(multiprocessing.get_context("fork").Process(target=work, args=arguments))  # type: ignore[arg-type]
    processes[-1].start()


def read_many(cache: Cache, log: Path, seed: int) -> None:
    """Read files at random, of several sizes, and check each; note every download."""
    dice = random.Random(seed)
    for _ in range(25):
        number = dice.randrange(12)
        size = (1 + number % 3) * KILO

        def fetch(path: Path, number: int = number, size: int = size) -> None:
            with open(log, "a") as file:
                file.write(f"{number}\n")
            path.write_bytes(contents(number, size)[: size // 2])
            time.sleep(0.002)
            path.write_bytes(contents(number, size))

        assert read(cache, number, fetch, size) == contents(number, size)


@pytest.mark.parametrize("room", [10, 24])
def test_processes_share_it_within_its_bound(processes: list[multiprocessing.Process], tmp_path: Path, room: int):
    cache, log = Cache(tmp_path / "cache", room * KILO), tmp_path / "log"
    for seed in range(4):
        start(processes, read_many, cache, log, seed)
    most = 0
    while any(process.is_alive() for process in processes):
        most = max(most, used(cache.folder))
    assert [process.exitcode for process in processes] == [0] * 4
    assert 0 < most <= room * KILO
    downloads = log.read_text().split()
    if room == 24:  # all of them fit
        assert sorted(map(int, downloads)) == list(range(12))
    else:
        assert len(downloads) > 12


def used(folder: Path) -> int:
    """Bytes in the folder; a file that is renamed meanwhile counts once."""
    found = {}
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found[status.st_ino] = status.st_size
    return sum(found.values())


def hang(cache: Cache, ready: Path) -> None:
    def half(path: Path) -> None:
        path.write_bytes(contents(1)[:400])
        ready.touch()
        time.sleep(1000)

    cache.fetch(name(1), half)


def test_what_a_killed_process_left_is_cleared_away(processes: list[multiprocessing.Process], tmp_path: Path):
    cache = Cache(tmp_path / "cache", KILO)
    start(processes, hang, cache, tmp_path / "ready")
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    (leftover,) = cache.folder.glob(".*.making")
    waiting = threading.Thread(target=read, args=(cache, 2, writing(2)))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive() and leftover.exists(), "room that is being filled is not taken away"
    os.kill(processes[0].pid or 0, signal.SIGKILL)
    waiting.join()
    assert held(cache) == {name(2)}
    assert read(cache, 1, writing(1)) == contents(1)
