"""What holds for every engine: each task once, all steps counted, the first error ends the others."""
# Also tests parallel/processes.py.

import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import toy_tasks
from support.errors import raises

from mae_kit.errors import UserError
from mae_kit.parallel import Engine, processes, run_tasks

TASKS = [f"task {number}" for number in range(10)]


@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.long)])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_and_every_step_counted(tmp_path: Path, engine: Engine, workers: int):
    advanced: list[float] = []
    run_tasks(partial(toy_tasks.note, tmp_path), TASKS, advanced.append, workers, engine)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {task: f"{task}\n" for task in TASKS}
    assert sum(advanced) == len(TASKS) * toy_tasks.STEPS


def test_workers_are_started_anew_where_no_server_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "get_all_start_methods", lambda: ["spawn"])  # as on Windows
    monkeypatch.delattr(processes, "_start_server")
    run_tasks(partial(toy_tasks.note, tmp_path), TASKS[:2], lambda steps: None, 2, "processes")
    assert sorted(path.name for path in tmp_path.iterdir()) == TASKS[:2]


def test_one_worker_does_one_task_at_a_time(tmp_path: Path, engine: Engine):
    run_tasks(partial(toy_tasks.alone, tmp_path), TASKS[:4], lambda steps: None, 1, engine)
    assert sorted(path.name for path in tmp_path.iterdir()) == TASKS[:4]


def test_a_negative_number_of_workers_is_refused_with_nothing_to_do_as_well(engine: Engine):
    for tasks in (TASKS, []):
        with raises("workers"):
            run_tasks(print, tasks, lambda steps: None, -1, engine)


def test_relative_paths_count_from_here(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run_tasks(partial(toy_tasks.note, Path()), TASKS, lambda steps: None, 1, engine)
    assert len(list(tmp_path.iterdir())) == len(TASKS)


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_is_the_tasks_own_and_the_others_have_ended(tmp_path: Path, engine: Engine, bad: int):
    tasks = ["good", "bad", "never", "never either"] if bad else ["bad", "good", "never", "never either"]
    with pytest.raises(UserError) as error:
        run_tasks(partial(toy_tasks.fail, tmp_path), tasks, lambda steps: None, 2, engine)
    assert type(error.value) is UserError and error.value.args == ("toy.bad", "this is bad", "give a good one")
    begun = {path.stem for path in tmp_path.glob("*.begun")}
    assert begun == {path.stem for path in tmp_path.glob("*.ended")} and "good" in begun


def test_a_killed_worker(tmp_path: Path, engine: Engine):
    """Processes give up, since on this machine memory is short for the next attempt too; Ray tries again."""
    job = partial(toy_tasks.die, tmp_path)
    if engine == "processes":
        with raises("workers.killed"):
            run_tasks(job, ["bad", "good"], lambda steps: None, 2, engine)
    advanced: list[float] = []
    run_tasks(job, ["bad", "good"], advanced.append, 2, engine)
    assert (tmp_path / "bad").read_text() == "bad\n" and (tmp_path / "good").exists()
    assert sum(advanced) == 2 * toy_tasks.STEPS


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_no_tasks_need_no_engine(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray", reason="mae_kit[ray] is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    run_tasks(partial(toy_tasks.note, tmp_path), [], lambda steps: None, engine=engine)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux shows which signals a process blocks")
def test_the_server_of_workers_never_sees_ctrl_c():
    code = (
        "from multiprocessing import forkserver\nfrom mae_kit.parallel import processes\nprocesses._start_server([])\n"
    )
    code += "print(open(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read())"
    status = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    assert int(blocked, 16) >> (signal.SIGINT - 1) & 1


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from mae_kit.errors import UserError\nfrom mae_kit.parallel.processes import run_in_processes\n"
        "try:\n    run_in_processes(print, [1, 2], print, 2)\nexcept UserError as error:\n    print(error.key)\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert (ended.stdout.splitlines()[-1], ended.stderr) == ("workers.main", "")


def test_ctrl_c_while_workers_start_waits_until_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    submit = processes.ProcessPoolExecutor.submit

    def interrupted(*words: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return submit(*words)

    monkeypatch.setattr(processes.ProcessPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_tasks(partial(toy_tasks.note, tmp_path), TASKS, lambda steps: None, 2, "processes")
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class _Ended:
    """A pool whose worker has ended before it has read what it is to do."""

    def submit(self, *_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_worker_that_ends_while_it_starts_is_a_broken_pool():
    with pytest.raises(BrokenProcessPool):
        processes._submitted(_Ended(), [1])
