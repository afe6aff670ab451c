"""What the C library does with the memory of a step's tensors between two steps."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let the process keep what it frees: glibc gives large blocks back, and gets them anew page by page, zeroed.

    On processors that is a seventh of a step (recipes/LOG.md, 2026-11-21). Memory that lies free is then never
    returned before the process ends; the peak is what it would be anyway. Elsewhere than on glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # every block from the heap
        mallopt(_M_TRIM_THRESHOLD, -1)  # which is never cut back
