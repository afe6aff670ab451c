"""What stands for `sys.executable`: has the fork server run the program, forwards signals, ends as it ends."""

import json
import os
import signal
import socket
import sys
import threading
import time


def follow(parent: int) -> None:
    """Leave once the process that started this one is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def main(address: str) -> None:
    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [b"\0"], [0, 1, 2])
        job = {"words": sys.argv[1:], "folder": os.getcwd(), "env": dict(os.environ), "patch": "", "key": ""}
        server.sendall(f"{json.dumps(job)}\n".encode())
        replies = server.makefile()
        pid = int(replies.readline())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        code = int(replies.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
