"""What is said before a training: that one thread may be faster where other programs are busy."""

import psutil
import pytest
import torch
from torch import nn

from mae_kit.training import fit
from mae_kit.training.config import Machine


@pytest.mark.parametrize(("load", "threads", "said"), [(1e6, 0, True), (1e6, 1, False), (0.0, 0, False)])
def test_one_thread_is_suggested_on_a_busy_machine(
    load: float, threads: int, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    fit.prepare_machine(nn.Identity(), Machine(precision="fp32", threads=threads))
    assert ("--machine.threads 1" in caplog.text) == said
