"""How many threads a command takes: those of the cores that other programs leave free."""

import logging
from dataclasses import replace

import psutil
import torch

from mae_kit.parallel.processes import cores
from mae_kit.training.config import Machine

log = logging.getLogger(__name__)

SECONDS = 0.5
FREE = 0.5  # of a core's time, without that of low-priority programs, which make way


def with_free_threads(machine: Machine) -> Machine:
    """Choose the number of threads where it is left open and other programs keep the cores busy.

    Threads that wait for each other lose more to a busy neighbor than one thread less. The number rounds differently,
    so it is chosen once: config.yaml has it, and a run that resumes keeps it.
    """
    most = torch.get_num_threads()
    if machine.threads or most == 1 or torch.cuda.is_available() or psutil.getloadavg()[0] <= cores():
        return machine
    threads = min(most, max(1, _free_cores()))
    if threads == most:
        return machine
    log.info(
        f"other programs keep this machine busy: training with {threads} of {most} threads "
        f"(--machine.threads {most} uses all)"
    )
    return replace(machine, threads=threads)


def _free_cores() -> int:
    times = psutil.cpu_times_percent(SECONDS, percpu=True)
    free = [one.idle + getattr(one, "nice", 0) + getattr(one, "iowait", 0) for one in times]
    return sum(percent >= 100 * FREE for percent in free)
