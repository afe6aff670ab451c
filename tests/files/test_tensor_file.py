"""Safetensors files: a full disk is reported as the system does, and leaves nothing behind; none of a stopped run."""

import errno
import os
import sys
from pathlib import Path

import pytest
import torch
from support.errors import raises

from mae_kit.files.tensor_file import CLASSIFIER, ENCODER, TOKENIZER, Kind, read_kind, save_tensors


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


@pytest.mark.parametrize(
    ("kind", "recipe", "command"),
    [
        (ENCODER, "objective: {}", "pretrain"),
        (ENCODER, "augmentation: {}", "finetune"),
        (CLASSIFIER, "augmentation: {}", "finetune"),
        (TOKENIZER, "relaxation: {}", "tokenizer"),
    ],
)
def test_of_a_stopped_run_the_command_that_resumes_it_is_named(tmp_path: Path, kind: Kind, recipe: str, command: str):
    (tmp_path / "config.yaml").write_text(recipe)
    with raises(f"{kind.name}.unfinished") as stopped:
        read_kind(tmp_path, kind, dict)
    assert f"mae-kit {command} --resume {tmp_path}" in stopped.value.fix
    (tmp_path / "classifier.safetensors").touch()
    if kind is not CLASSIFIER:
        with raises(f"{kind.name}.missing") as ended:
            read_kind(tmp_path, kind, dict)
        assert "--resume" not in ended.value.fix
