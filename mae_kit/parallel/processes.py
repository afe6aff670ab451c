"""Processes of this machine with one progress count; none outlives an error, Ctrl-C or a kill of the parent."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import (
    current_process,
    forkserver,
    get_all_start_methods,
    get_context,
    parent_process,
    resource_tracker,
)
from typing import Any, TypeVar

from mae_kit.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MOST_FILES = 4096
_UNGUARDED = 78  # exit code of a worker whose start has run the script again that started it

T = TypeVar("T")
Work = Callable[[T, Callable[[], None]], None]
Advance = Callable[[float], None]

# Set in each worker by `_begin`; shared memory without locks, because a killed process would never give one back.
_work: Any = None
_done: Any = None
_stop: Any = None
_busy = threading.Lock()


class StoppedError(Exception):
    """The parent gave up; raised inside the worker's task, which cleans up as on any error."""


def run_in_processes(
    work: Work[T], tasks: Sequence[T], advance: Advance, workers: int = 0, preload: Sequence[str] = ()
) -> None:
    """Call `work(task, tick)` for every task, in any order; `tick` counts one step and ends a task that is to stop.

    Workers are started by a server process (on Windows, which has none, one by one), not forked from this one: its
    threads (progress bar, OpenMP) make a fork unsafe. A script that ends up here keeps its main part under
    `if __name__ == "__main__"`.

    Raises:
        UserError: A worker was killed, or runs a script again that has no such guard.
        Exception: Whatever a task raised first; the other tasks have ended by then.
    """
    leave_unguarded_script()
    workers = min(workers or cores(), max(len(tasks), 1))
    if workers == 1:
        for task in tasks:
            work(task, lambda: advance(1))
        return
    served = "forkserver" in get_all_start_methods()
    context = get_context("forkserver" if served else "spawn")
    if served:
        _start_server(preload)
    done, stop = context.RawArray("q", len(tasks)), context.RawValue("b", 0)
    pool = ProcessPoolExecutor(workers, context, _begin, (work, done, stop))
    try:
        with _without_ctrl_c():  # a worker whose start is broken off prints a traceback
            futures = _submitted(pool, tasks)
        _await(futures, done, advance)
    except BrokenProcessPool as error:
        if any(worker.exitcode == _UNGUARDED for worker in (pool._processes or {}).values()):
            what = "each worker process runs the script that starts it"
            fix = 'put what the script does under `if __name__ == "__main__":`'
            raise UserError("workers.main", what, fix) from None
        fix = "repeat the command with fewer --workers (is memory short?): finished work is kept"
        raise UserError("workers.killed", "a worker process was killed", fix) from error
    finally:
        stop.value = 1
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: Any, tasks: Sequence[Any]) -> list[Future[None]]:
    try:
        return [pool.submit(_do, number, task) for number, task in enumerate(tasks)]
    except BrokenPipeError as error:  # a worker has ended before it was told what to do
        raise BrokenProcessPool(str(error)) from error


def leave_unguarded_script() -> None:
    """End a worker that runs the script again which has started it, as its start imports it."""
    if getattr(current_process(), "_inheriting", False):
        os._exit(_UNGUARDED)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def descriptors() -> int:
    """How many files this process may hold open, after raising its soft limit."""
    if resource is None:
        return _MOST_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # macOS has a limit that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
        return soft
    return most


def _start_server(preload: Sequence[str]) -> None:
    """With Ctrl-C blocked, which the server and its workers inherit: the terminal signals all, the parent decides."""
    resource_tracker.ensure_running()  # first, for its start unblocks Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.set_forkserver_preload(list(preload))
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Answer Ctrl-C, of which the main thread learns, at the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, Any]] = []
    before = signal.signal(signal.SIGINT, lambda *signaled: came.append(signaled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


def _await(futures: list[Future[None]], done: Any, advance: Advance) -> None:
    pending, seen = set(futures), 0
    while pending:
        finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        total = sum(done)
        advance(float(total - seen))
        seen = total
        for future in finished:
            future.result()


# In the worker


def _begin(work: Any, done: Any, stop: Any) -> None:
    global _work, _done, _stop
    _work, _done, _stop = work, done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a server that somebody else has started
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        _stop.value = 1
        _busy.acquire()
        os._exit(1)


def _do(number: int, task: Any) -> None:
    def tick() -> None:
        _done[number] += 1
        if _stop.value:
            raise StoppedError

    with _busy:
        _work(task, tick)
