"""Processes that torchrun's agent restarts find each other, not the addresses of those before."""

from pathlib import Path

import pytest
from support.processes import Programs
from support.runs import free_port

SCRIPT = """
import os, sys, time
import pytorch_lightning as pl
import torch
from mae_kit.training.process_group import RestartableDDP

attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
strategy = pl.Trainer(accelerator="cpu", devices=2, strategy=RestartableDDP(), logger=False).strategy
if (attempt, rank) == ("1", "1"):
    time.sleep(3)  # meanwhile its address in the store is the one before
strategy.setup_environment()
total = strategy.reduce(torch.tensor(float(rank)), reduce_op="sum")
print(f"{attempt} {rank} {total:g}", flush=True)
strategy.barrier()
sys.exit(attempt == "0")
"""


@pytest.mark.long
def test_a_restarted_process_waits_for_its_peers_new_address(programs: Programs, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    agent = ["--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "0.2"]
    ended = programs.run(*agent, "--master-port", str(free_port()), script, module="torch.distributed.run")
    assert ended.code == 0, ended.err
    assert sorted(ended.out.split("\n")[:-1]) == ["0 0 1", "0 1 1", "1 0 1", "1 1 1"]
