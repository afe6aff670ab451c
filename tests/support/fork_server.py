"""A process that has imported everything and forks once for each command line it reads: imports are paid once.

Each line of stdin is JSON: `words`, `folder` for stdout, stderr, pid and rc, `env`, and `patch`, Python to run before.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mae_kit.cli import main as cli
from mae_kit.cli import parser as signature


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for verb in ("pretrain", "finetune", "predict", "reconstruct"):
        signature.build_parser(cli.load(verb), verb, cli.VERBS[verb].recipes)
    for line in sys.stdin:
        job = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            watch(job)


def watch(job: dict[str, Any]) -> None:
    """Run the command line in a child and record how it ended."""
    folder = Path(job["folder"])
    pid = os.fork()
    if pid == 0:
        run(job, folder)
    write(folder / "pid", pid)
    _, status = os.waitpid(pid, 0)
    write(folder / "rc", os.waitstatus_to_exitcode(status))
    os._exit(0)


def run(job: dict[str, Any], folder: Path) -> None:
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(job["env"])
    exec(job["patch"], {})
    sys.exit(cli.main(job["words"]))


def write(path: Path, number: int) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(str(number))
    draft.rename(path)


if __name__ == "__main__":
    main()
