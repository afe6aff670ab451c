"""Open files that many threads read at offsets of their own."""

import os
import sys
import threading


class Descriptor:
    """An open file; closed when the last reader lets go of it."""

    def __init__(self, number: int):
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


if sys.platform == "win32":
    _one_reader = threading.Lock()

    def read_at(file: Descriptor, size: int, offset: int) -> bytes:
        with _one_reader:
            os.lseek(file.number, offset, os.SEEK_SET)
            return os.read(file.number, size)
else:

    def read_at(file: Descriptor, size: int, offset: int) -> bytes:
        return os.pread(file.number, size, offset)
