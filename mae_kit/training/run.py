"""A run is a folder: config.yaml, metrics.jsonl, tensorboard/, checkpoints/, encoder and model files, pictures."""

import json
import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import yaml

from mae_kit.classes.configured import Configured
from mae_kit.errors import UserError
from mae_kit.files.durable import MAKING, replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.training.best import Best, is_over
from mae_kit.training.checkpoint import State, load_latest
from mae_kit.training.lock import LOCK, alone
from mae_kit.training.metrics import json_lines, json_object, read_metrics

ONCE = ("resume", "allow_data_change", "dry_run", "minutes")  # arguments of one call, not part of the recipe


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice: recipes are read without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class Run(RunFolder):
    """The folder of one training run; `start` makes it, so that a run that cannot work leaves nothing behind.

    Within a `with` it is this process's alone: from there on what is resumed, from its start on what is new.

    Args:
        path: The folder.
        resume: Continue what is there. Otherwise the folder must not hold a run.
        rank: Of this process; what the first one has found good, the others take.

    Raises:
        UserError: It holds a run already, or holds none to resume.
    """

    def __init__(self, path: Path, resume: bool = False, rank: int = 0):
        super().__init__(path)
        self.resume, self.rank = resume, rank
        self._held = ExitStack()
        if rank:
            return
        if not resume:
            self._check_new()
        elif not self.config.exists():
            raise UserError(
                "run.missing", f"no run to resume in {self.path}", "give the folder of a run: it holds a config.yaml"
            )

    def __enter__(self) -> "Run":
        """Raises UserError where another process is at work."""
        if self.resume and not self.rank:
            self._held.enter_context(alone(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _check_new(self) -> None:
        if self.config.exists():
            fix = f"continue it with --resume {self.path}, or choose another --run"
            raise UserError("run.exists", f"{self.path} holds a run already", fix)

    def start(self, arguments: dict[str, Any], step: int, needed: int = 0) -> None:
        """Make the folder, with the arguments of the verb as a recipe that `--config RUN/config.yaml` runs again.

        What a killed process left half-written is cleared away, and metrics after `step`: they are written again.

        Args:
            arguments: Of the verb.
            step: The run goes on after this one.
            needed: Bytes that the run will have written, those included that are there from before.

        Raises:
            UserError: The folder cannot be written, its disk has too little room, or another process has started it.
        """
        if self.rank:
            return
        plain = recipe_of(arguments)
        self.check_disk(needed)
        missing = [folder for folder in (self.checkpoints, self.path) if not folder.exists()]
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if not self.resume:
                self._held.enter_context(alone(self.path))
                self._check_new()  # asked again: another process may have started it, and ended
            for unfinished in self.checkpoints.glob(".making-*"):
                shutil.rmtree(unfinished)
            for folder in (self.path, *filter(Path.is_dir, self.path.iterdir())):
                for unfinished in folder.glob(MAKING):
                    unfinished.unlink()
            self._keep_metrics_until(step if self.resume else -1)
            replace_text(self.config, yaml.dump(plain, Dumper=_Dumper, sort_keys=False))
            self.resume = True  # from now on there is one: what precedes the first step may start it
        except OSError as error:
            self._held.close()  # some systems remove no file that is open
            for folder in missing:
                _remove_empty(folder)
            raise UserError(
                "run.start", f"cannot write to {self.path} ({error.strerror})", "choose another --run folder"
            ) from error

    def check_writable(self) -> None:
        """Check that the folder could be made or written to; `start` asks the system itself.

        Raises:
            UserError: It could not.
        """
        there = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            raise UserError("run.start.access", f"cannot write to {self.path}", "choose another --run folder")

    def check_disk(self, needed: int) -> None:
        """Check that the disk has room; writes nothing.

        Args:
            needed: Bytes that the run will have written, those included that are there from before.

        Raises:
            UserError: It has not.
        """
        there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.is_dir())
        written = sum(file.stat().st_size for file in self.checkpoints.rglob("*") if file.is_file())
        disk = shutil.disk_usage(there)
        missing = needed - written - disk.free
        if missing > 0 and disk.total:  # a file system that does not say how large it is has 0
            raise UserError(
                "run.disk",
                f"{self.path} needs {needed / 1e9:.2g} GB, {missing / 1e9:.2g} GB more than its disk has free",
                "free some space, or choose another --run folder",
            )

    def finish(self, steps: int) -> None:
        """Mark the run as complete after so many steps, once all of its files are written."""
        if not self.rank:
            replace_text(self.complete, json.dumps({"steps": steps}))

    def is_complete(self, steps: int, *files: Path) -> bool:
        """Whether a training of so many steps has been finished, and these files are still there."""
        marked = any(row.get("steps") == steps for row in json_lines(self.complete))
        return marked and all(file.is_file() for file in files)

    def left_off(self, steps: int, *files: Path, best: Best | None = None) -> State | None:
        """The checkpoint to resume a training of so many steps from; None where there is none.

        One that was killed after its last step and before it was finished does its last steps again: their score and
        plots may be missing. So does one without one of `files`, which only its end can write.
        """
        state = load_latest(self.checkpoints)
        if state is None or not is_over(step := state["global_step"], steps, best) or self.is_complete(step, *files):
            return state
        return load_latest(self.checkpoints, before=step)

    def last_metrics(self) -> dict[str, Any]:
        """The newest value of everything in metrics.jsonl; None for one that was not finite."""
        merged: dict[str, Any] = {}
        for row in read_metrics(self.path):
            merged |= row
        return merged

    def has_metric(self, step: int, name: str) -> bool:
        """Whether metrics.jsonl holds that value at that step."""
        return any(row["step"] == step and name in row for row in read_metrics(self.path))

    def _keep_metrics_until(self, step: int) -> None:
        """Drop the lines after `step`, and a torn last one."""
        if not self.metrics.exists():
            return
        kept = [line + b"\n" for line in self.metrics.read_bytes().splitlines() if _step_of(line) <= step]
        replace_text(self.metrics, b"".join(kept).decode("utf-8", errors="replace"))


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


def recipe_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a command as plain values, without those of one call."""
    return {name: _plain(value) for name, value in arguments.items() if name not in ONCE}


def _plain(value: Any) -> Any:
    if isinstance(value, Configured):
        return value.config
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(part) for name, part in vars(value).items()}
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def _step_of(line: bytes) -> float:
    step = json_object(line).get("step")
    return step if isinstance(step, int) else float("inf")
