"""The sbatch file, with stand-ins for srun and scontrol: two tasks, a SIGUSR1 to each, requeued, and on to the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.processes import SECONDS, Programs
from support.runs import SLOW, audited, curve, free_port

ROOT = Path(__file__).parents[2]

SRUN = """#!/bin/bash
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NODEID=0 SLURM_NTASKS=2 "$@" & pids="$pids $!"; done
code=0
for pid in $pids; do wait $pid; ended=$?; if [ $ended -gt $code ]; then code=$ended; fi; done
exit $code
"""
SCONTROL = '#!/bin/bash\nif [ $1 = show ]; then echo 127.0.0.1; else echo "$@" >> {asked}; fi\n'
MAE_KIT = """#!/bin/bash
exec {python} -c '{patch}
import sys
from mae_kit.cli.main import main
sys.exit(main())' "$@"
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.long
@pytest.mark.gate("R8")
@pytest.mark.skipif(os.name == "nt", reason="SLURM knows no Windows")
def test_a_preempted_job_requeues_itself_and_goes_on(
    programs: Programs, trained: Path, photos: Path, recipes: Path, tmp_path: Path
):
    write_program(tmp_path / "bin" / "srun", SRUN)
    write_program(tmp_path / "bin" / "scontrol", SCONTROL.format(asked=tmp_path / "asked"))
    write_program(tmp_path / "bin" / "mae-kit", MAE_KIT.format(python=programs.python, patch=SLOW))
    run = tmp_path / "run"
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "1",
        "MASTER_PORT": str(free_port()),
        "RUN": str(run),
        "FIRST": f"--config {recipes / 'pretrain.yaml'} --data.path {photos}/train-*.tar --run {run}",
    }
    job = ["bash", str(ROOT / "recipes" / "on" / "slurm.sbatch")]

    first = subprocess.Popen(job, env=environment)
    while first.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.01)
    for task in psutil.Process(first.pid).children(recursive=True):
        if "pretrain" in task.cmdline() and task.exe() == str(Path(sys.executable).resolve()):
            task.send_signal(signal.SIGUSR1)
    assert first.wait(SECONDS) == 143
    assert (tmp_path / "asked").read_text() == "requeue 42\n"

    assert subprocess.run(job, env=environment, timeout=SECONDS, check=False).returncode == 0
    assert [line[0] for line in curve(run)] == [line[0] for line in curve(trained)]
    assert audited(run) == [0, 1, 2]
    assert (tmp_path / "asked").read_text() == "requeue 42\n"
