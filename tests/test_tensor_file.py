"""Safetensors files: a full disk is told as the system tells it, and leaves nothing behind."""

import errno
import os
import sys
from pathlib import Path

import pytest
import torch

from mae_kit.tensor_file import save_tensors


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_a_disk_that_takes_no_more(tmp_path: Path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError) as error:
            save_tensors(tmp_path / "encoder.safetensors", {"weight": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(tmp_path / "encoder.safetensors"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="has no modes")
def test_everybody_reads_what_the_umask_lets_them(tmp_path: Path):
    before = os.umask(0o022)
    try:
        save_tensors(tmp_path / "encoder.safetensors", {"weight": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "encoder.safetensors").stat().st_mode & 0o777 == 0o644
