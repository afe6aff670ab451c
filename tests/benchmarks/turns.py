"""Several ways of doing the same, measured in alternation, so that a busy machine slows all of them equally.

Each way lives in a process of its own, with its own threads, memory and loader workers. While another has its turn it
waits for a message and its workers are suspended: nobody decodes ahead, or takes a core away, in another's time.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import psutil

Turn = Callable[[], object]
WARM_UP = 2


@dataclass
class Way:
    """One of the ways.

    Attributes:
        name: What the table calls it.
        make: Called in the new process; what it returns does `images` images. To be pickled.
        images: Images of a turn.
        seconds: Wall-clock time of each measured turn.
        core_seconds: Processor time of each, of its process and of its workers.
    """

    name: str
    make: Callable[[], Turn]
    images: int
    seconds: list[float] = field(default_factory=list)
    core_seconds: list[float] = field(default_factory=list)


def take_turns(ways: Sequence[Way], rounds: int) -> None:
    """Measure every way `rounds` times; who begins changes from round to round."""
    doors: list[Connection] = []
    try:
        for way in ways:
            doors.append(_start(way))
        for number in range(rounds):
            for place in range(len(ways)):
                chosen = (number + place) % len(ways)
                doors[chosen].send("your turn")
                seconds, core_seconds = doors[chosen].recv()
                ways[chosen].seconds.append(seconds)
                ways[chosen].core_seconds.append(core_seconds)
    finally:
        for door in doors:
            door.close()


def _start(way: Way) -> Connection:
    """Start the process and wait until it is warm; it ends with this one, or when its door is closed."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_live, args=(way.make, theirs), daemon=False).start()
    theirs.close()
    ours.recv()
    return ours


def _live(make: Callable[[], Turn], door: Connection) -> None:
    turn = make()
    for _ in range(WARM_UP):  # starts the workers, fills what they fetch ahead
        turn()
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    try:
        _suspend(family)
        door.send("ready")
        while True:
            door.recv()
            door.send(_measure(turn, family))
    except EOFError:
        pass
    finally:
        for worker in family[1:]:
            worker.kill()
        os._exit(0)  # without the farewells of data loaders, whose workers are gone


def _measure(turn: Turn, family: list[psutil.Process]) -> tuple[float, float]:
    for worker in family[1:]:
        worker.resume()
    cores, started = _core_seconds(family), time.perf_counter()
    turn()
    seconds = time.perf_counter() - started
    _suspend(family)
    return seconds, _core_seconds(family) - cores


def _suspend(family: list[psutil.Process]) -> None:
    for worker in family[1:]:
        worker.suspend()


def _core_seconds(family: list[psutil.Process]) -> float:
    """Of this process to the microsecond, of its workers to a tick of the system."""
    return time.process_time() + sum(sum(worker.cpu_times()[:2]) for worker in family[1:])


def table(ways: Sequence[Way]) -> list[dict[str, Any]]:
    """Print and return one row per way; the first one is the reference.

    The ratio is the median over the rounds of (its seconds / seconds of the first), with quartiles: how many times the
    speed of this way the first one has.
    """
    rows = [_row(way, ways[0]) for way in ways]
    width = max(len(way.name) for way in ways)
    print(f"{'':{width}}  images/s (quartiles)       per core-second  the first is faster by  in core-seconds by")
    for row in rows:
        (low, pace, high), (least, ratio, most) = row["images_per_second"], row["ratio"]
        spread, ratios = f"({low:.1f} to {high:.1f})", f"{ratio:.2f} ({least:.2f} to {most:.2f})"
        cores = f"{row['images_per_core_second'][1]:12.1f}     {ratios:24}{row['core_ratio'][1]:.2f}"
        print(f"{row['name']:{width}}  {pace:7.1f} {spread:20}{cores}")
    return rows


def _row(way: Way, first: Way) -> dict[str, Any]:
    return {
        "name": way.name,
        "images_per_second": _quartiles([way.images / s for s in way.seconds]),
        "images_per_core_second": _quartiles([way.images / s for s in way.core_seconds]),
        "ratio": _quartiles([b / a for a, b in zip(first.seconds, way.seconds, strict=True)]),
        "core_ratio": _quartiles([b / a for a, b in zip(first.core_seconds, way.core_seconds, strict=True)]),
    }


def _quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
