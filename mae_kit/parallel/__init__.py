"""Run independent tasks: shard in, shard out.

A task is repeatable: it writes its result durably, under a name of its own, and whoever plans the tasks leaves out
those whose result is there. So an engine keeps no state, and a job that was stopped anywhere is simply started again.
"""

from collections.abc import Sequence
from typing import Literal

from mae_kit.errors import UserError
from mae_kit.parallel.processes import Advance, T, Work, run_in_processes

__all__ = ["Advance", "Engine", "Work", "run_tasks"]

Engine = Literal["processes", "ray"]


def run_tasks(
    work: Work[T],
    tasks: Sequence[T],
    advance: Advance,
    workers: int = 0,
    engine: Engine = "processes",
    preload: Sequence[str] = (),
) -> None:
    """Call `work(task, tick)` for every task, in any order.

    Args:
        work: A module's function, or a partial of one; it calls `tick()` at each step of a task, which may end the task
            with an exception.
        tasks: Each is picklable and done on its own.
        advance: Receives the number of steps done.
        workers: Tasks at once; 0 = one per core, of all nodes with Ray; 1 runs in this process.
        engine: processes = of this machine; ray = of the nodes of a Ray cluster, see `on_ray`.
        preload: Modules that a worker process will import, worth doing once; Ray keeps its workers.

    Raises:
        UserError: A negative number of workers; a worker process was killed; with Ray: no Ray, no answer, a task lost
            with its node too often.
        Exception: Whatever a task raised first; the other tasks have ended by then.
    """
    if workers < 0:
        raise UserError("workers", f"workers is {workers}", "give 0 (one per core) or more")
    if engine == "ray":
        from mae_kit.parallel.on_ray import run_on_ray

        run_on_ray(work, tasks, advance, workers)
    else:
        run_in_processes(work, tasks, advance, workers, preload)
