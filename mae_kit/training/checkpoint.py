"""Checkpoints to resume from: tensors and JSON, durable before the old one goes, verified when read.

A checkpoint is a folder `step-00000500` with `state.pt` and, written last, `manifest.json` with the file's
sha256. It is made under a hidden name in the same folder, flushed to the disk, and renamed.
"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from mae_kit.errors import UserError
from mae_kit.files.durable import replace_text, sync, sync_folder
from mae_kit.files.json_file import parse_json
from mae_kit.files.run_folder import CheckpointFolder
from mae_kit.files.safe_pickle import load_tensors

log = logging.getLogger(__name__)

State = dict[str, Any]
FORMAT = 2  # of what callbacks put into a checkpoint: another number, another version's
_NAME = re.compile(r"step-[0-9]{8,}")


class DurableCheckpointIO(CheckpointIO):
    """Writes a checkpoint so that a kill at any moment leaves the previous one or this one, whole.

    Attributes:
        writing: Whether it is at it; other processes are waited for before and afterwards.
    """

    writing = False

    def save_checkpoint(self, checkpoint: State, path: str | os.PathLike, storage_options: Any = None) -> None:
        final = Path(path)
        making = final.with_name(f".making-{final.name}-{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        self.writing = True
        try:
            making.mkdir(parents=True)
            _write_state(checkpoint, making)
            if final.exists():
                shutil.rmtree(final)
            os.replace(making, final)
            sync_folder(final.parent)
        finally:
            self.writing = False
            shutil.rmtree(making, ignore_errors=True)

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> State:
        """Read and verify.

        Raises:
            ValueError: The checkpoint is damaged, or holds code; the message says how.
            UserError: It is of another format.
        """
        folder, files = Path(path), CheckpointFolder(Path(path))
        try:
            manifest = parse_json(files.manifest.read_bytes())
            written, format = manifest["sha256"], manifest.get("format")
            digest = _sha256(files.state)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder.name} is not whole ({error})") from error
        if digest != written:
            raise ValueError(f"{folder.name}/state.pt is not what was written: its sha256 differs")
        if format != FORMAT:
            what = f"{folder} was written by another version of mae_kit: its format is {format}, not {FORMAT}"
            raise UserError("checkpoint.format.file", what, "resume with that version, or start a new run")
        try:
            state = load_tensors(files.state, map_location)
        except ValueError as error:
            raise ValueError(f"{folder.name}/{error}") from error
        if not (isinstance(state, dict) and isinstance(state.get("global_step"), int)):
            raise ValueError(f"{folder.name}/state.pt holds no state")
        return state

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        shutil.rmtree(path)


def _write_state(state: State, folder: Path) -> None:
    files = CheckpointFolder(folder)
    with open(files.state, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # the archive's, over the system's: it could not be closed after a failed write
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    sync(files.state)
    manifest = {"sha256": _sha256(files.state), "step": state["global_step"], "format": FORMAT}
    replace_text(files.manifest, json.dumps(manifest))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def load_latest(folder: Path, before: float = math.inf) -> State | None:
    """The newest checkpoint that is whole, or None if there is none at all; a damaged one is named and passed over.

    Args:
        folder: Of the checkpoints.
        before: Of an earlier step than this.

    Raises:
        UserError: There are checkpoints, and every one is damaged.
    """
    candidates = [path for path in checkpoints_in(folder) if CheckpointFolder(path).step < before]
    for candidate in reversed(candidates):
        try:
            return DurableCheckpointIO().load_checkpoint(candidate)
        except ValueError as error:
            log.warning(f"checkpoint {error}; trying the one before")
    if candidates:
        raise UserError(
            "checkpoint.damaged",
            f"every checkpoint in {folder} is damaged",
            "start a new run, with --init if this one has a model.safetensors",
        )
    return None


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder by step; what else is there is the user's."""
    found = (path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir())
    return sorted(found, key=lambda path: CheckpointFolder(path).step)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"
