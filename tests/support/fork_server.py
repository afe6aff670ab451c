"""A process that has imported everything and forks once for each program it is asked for: imports are paid once.

The command line names a socket, and what stands for `sys.executable`, so that children of these programs are forked,
too. A client connects, sends its stdin, stdout and stderr, then one line of JSON: `words` (the arguments of Python: `-m
MODULE WORDS`, `-c CODE WORDS` or `SCRIPT WORDS`), `folder`, `env`, `patch`, Python to run before, and `key`, the file
for the key of the user's mistake that mae_kit ends with. It receives a line with the process id, and one with the exit
code. A client that leaves kills its program.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from mae_kit.cli import main as cli
from mae_kit.cli.launch import PARENT
from mae_kit.console import console, is_main_process


def main(address: str, python: str) -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for verb in ("pretrain", "finetune", "predict", "reconstruct", "evaluate"):
        cli.load(verb)
    importlib.import_module("mae_kit.cli.parser")
    importlib.import_module("pages").undraw()
    sys.executable = python
    gc.freeze()  # else the garbage collection of each child copies the memory of all of these modules
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{address}.new")
        door.listen()
        os.rename(f"{address}.new", address)  # whoever sees it can connect
        while sys.stdin not in select.select([sys.stdin, door], [], [])[0]:
            client, _ = door.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where `nohup` has started the tests
                watch(client)
            client.close()


def watch(client: socket.socket) -> None:
    """Run the program in a child and report how it ends."""
    _, streams, *_ = socket.recv_fds(client, 1, 3)
    job = json.loads(client.makefile(encoding="utf-8").readline())
    pid = os.fork()
    if pid == 0:
        client.close()
        run(job, streams)
    for stream in streams:
        os.close(stream)
    client.sendall(f"{pid}\n".encode())
    Thread(target=kill_once_alone, args=(client, pid), daemon=True).start()
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def kill_once_alone(client: socket.socket, pid: int) -> None:
    with suppress(ProcessLookupError):
        if not client.recv(1):
            os.kill(pid, signal.SIGKILL)


def run(job: dict[str, Any], streams: list[int]) -> None:
    os.setsid()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(streams[number], number)
        os.close(streams[number])
        mode = "w" if number else "r"
        setattr(sys, name, os.fdopen(number, mode, buffering=1, errors="backslashreplace", closefd=False))
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["env"])
    console.quiet = not is_main_process()  # as was decided when it was imported
    if PARENT in os.environ:  # the client follows that process, and the program follows the client
        os.environ[PARENT] = str(os.getppid())
    code = exit_code(job)
    atexit._run_exitfuncs()
    with suppress(OSError):  # a full disk: the command has said so
        sys.stdout.flush()
    os._exit(code)  # taking all modules apart takes longer than many a command


def exit_code(job: dict[str, Any]) -> int:
    """Run the program."""
    try:
        exec(job["patch"], {})
        return run_python(job["words"][job["words"][0] == "-u" :], job["key"])
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1


def run_python(words: list[str], key: str) -> int:
    """Run a module, a line of code or a script, as Python does."""
    sys.argv[1:] = words[2:] if words[0] in ("-c", "-m") else words[1:]
    if words[:2] == ["-m", "mae_kit"]:
        if key:
            note_key(Path(key))
        return cli.main()
    if words[0] == "-c":
        exec(words[1], {"__name__": "__main__"})
    elif words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")
    return 0


def note_key(file: Path) -> None:
    """Write the key of a `UserError` that the command line reports."""
    complain = cli._complain

    def noting(error: Exception) -> int:
        file.write_text(getattr(error, "key", ""))
        return complain(error)

    cli._complain = noting


if __name__ == "__main__":
    main(*sys.argv[1:])
