"""Freed memory stays: the second tensor of a size costs no page faults."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, numpy as np
from mae_kit.training.memory import keep_freed_memory
{call}
np.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES_OF_ONE = 8 * 8_000_000 // 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly")
@pytest.mark.parametrize("call, kept", [("keep_freed_memory()", True), ("", False)])
def test_page_faults(call: str, kept: bool):
    words = [sys.executable, "-c", PROGRAM.format(call=call)]
    # numpy asks for huge pages, of which a fault brings 512
    faults = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert (faults < PAGES_OF_ONE / 1000) == kept
