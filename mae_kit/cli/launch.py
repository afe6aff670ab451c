"""Several processes on this machine, without torchrun: the same command once for each device."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO

from mae_kit.errors import UserError
from mae_kit.parallel.processes import cores

PARENT = "MAE_KIT_PARENT"  # in the environment of a command that another one has started: its process
GRACE = 30.0  # seconds between SIGTERM and SIGKILL
POLL = 0.2


def device_count(devices: str) -> int:
    """How many processes `--devices` asks for: a number, or auto for one on each GPU.

    Without a GPU auto is one on each core, of which it takes a power of two, since it has to divide the batch: faster
    than threads that wait for each other (tests/benchmarks/devices.py).

    Raises:
        UserError: It is neither.
    """
    if devices in ("auto", "true"):
        import torch

        return torch.cuda.device_count() or 1 << (cores().bit_length() - 1)
    if not devices.isdecimal() or int(devices) < 1:
        raise UserError("devices", f"devices is {devices!r}", "give a number, or auto for one on each GPU or core")
    return int(devices)


def is_launched() -> bool:
    """Whether torchrun, SLURM or this module has started this process as one of several."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1


def follow_parent() -> None:
    """End this command, as by SIGTERM, once the one that has started it is gone: a kill is not passed on."""
    if parent := os.environ.pop(PARENT, ""):
        threading.Thread(target=_end_after, args=(int(parent),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)


def launch(words: Sequence[str], count: int) -> int:
    """Run `mae-kit` with these words in `count` processes, under the environment that torchrun sets.

    The first speaks; what another one complained about is printed where the first had no reason to stop.

    Returns:
        0 if all succeed, else the exit code of the first that fails; the others are then stopped.
    """
    with tempfile.TemporaryFile() as complaints:
        processes = _start(words, count, complaints)
        before = {one: signal.signal(one, _forward(processes)) for one in _ending()}
        try:
            rank, code = _wait(processes)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if rank and code:
            complaints.seek(0)
            sys.stderr.write(complaints.read().decode(errors="replace"))
    return code


def _start(words: Sequence[str], count: int, complaints: IO[bytes]) -> list[subprocess.Popen[bytes]]:
    import torch

    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    shared = threads | os.environ | {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {PARENT: str(os.getpid()), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "mae_kit", *words],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=complaints if rank else None,
        )
        for rank in range(count)
    ]


def _ending() -> list[int]:
    """The signals that end a run; not that of a closed terminal where `nohup` has it ignored."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
    return [number for number in numbers if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN]


def _forward(processes: list[subprocess.Popen[bytes]]):
    def handler(number: int, _: object) -> None:
        for process in processes:
            process.send_signal(number)

    return handler


def _wait(processes: list[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Rank and exit code of the first that fails, 0 and 0 if none does."""
    failed = None
    while failed is None and any(process.poll() is None for process in processes):
        time.sleep(POLL)
        failed = next((rank for rank, process in enumerate(processes) if process.poll()), None)
    failed = next((rank for rank, process in enumerate(processes) if process.poll()), failed)
    if failed is None:
        return 0, 0
    _stop(processes)
    code = processes[failed].returncode
    return failed, code if code > 0 else 128 - code


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    end = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
