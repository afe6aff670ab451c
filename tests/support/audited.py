"""Read many bent and hostile files in a process that notes what it is made to do: TARGET FOLDER TIMES.

Prints a JSON object: how many were read, and of each kind of trespass or untyped error an example.
"""

import json
import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.hostile_targets import EVIL, targets
from support.mutations import mutate

STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")
REACHES = ("socket.connect", "socket.getaddrinfo", "urllib.Request", "webbrowser.open", "ctypes.dlopen")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree")
FOREIGN = {"evilmod", "antigravity"}


def watch(inside: str, seen: dict[str, str]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook; what it finds goes into `seen`."""

    def outside(path: Any) -> bool:
        return isinstance(path, str | bytes) and not os.path.abspath(os.fsdecode(path)).startswith((inside, "/dev/"))

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event in STARTS or event in REACHES:
            seen.setdefault(event, repr(args)[:200])
        elif event == "import" and str(args[0]).split(".")[0] in FOREIGN:
            seen.setdefault(f"import {args[0]}", "")
        elif event == "open" and args[2] is not None and args[2] & (os.O_WRONLY | os.O_RDWR) and outside(args[0]):
            seen.setdefault("a write outside", repr(args)[:200])
        elif (
            event in CHANGES and outside(args[0]) and args[-1] in (-1, None)
        ):  # else below a folder that is being removed
            seen.setdefault(event, repr(args)[:200])

    return note


def main(name: str, place: str, times: str) -> None:
    folder, dice = Path(place), random.Random(name)
    (folder / "evilmod.py").write_text(EVIL)
    os.environ["XDG_DATA_HOME"] = os.environ["XDG_CACHE_HOME"] = str(folder)
    make, read = targets()[name](folder)
    seen: dict[str, str] = {}
    read(make(None))
    os.chdir("/")
    sys.addaudithook(watch(str(folder), seen))
    for _ in range(int(times)):
        content = make(dice)
        data = mutate(content, dice) if dice.random() < 0.3 else content
        try:
            read(data)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            seen.setdefault(kind, f"{error} <- {data[:300]!r}"[:600])
    owned = [str(path) for path in (Path("OWNED"), folder / "OWNED") if path.exists()]
    print(json.dumps({"read": int(times), "seen": seen, "owned": owned}))
