"""Files of other programs: only tensors are read, whatever else they hold, and a bad one is named in a line."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.errors import raises

from mae_kit.errors import UserError
from mae_kit.weights.files import read_raw

TENSORS = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


def test_settings_come_as_plain_values(tmp_path: Path):
    args = argparse.Namespace(model="mae_vit_base_patch16", norm_pix_loss=True)
    torch.save({"model": TENSORS, "args": args, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "a.pth")
    raw = read_raw(tmp_path / "a.pth")
    assert raw.tensors.keys() == TENSORS.keys() and torch.equal(raw.tensors["a"], TENSORS["a"])
    assert raw.config == raw.preprocessor == {}
    with pytest.raises(Exception, match="Namespace"):  # nobody else in this process reads them now
        torch.load(tmp_path / "a.pth", weights_only=True)


def test_a_settings_object_tells_what_it_holds(tmp_path: Path):
    torch.save({"model": TENSORS, "args": argparse.Namespace(norm_pix_loss=True)}, tmp_path / "a.pth")
    assert read_raw(tmp_path / "a.pth").settings == {"norm_pix_loss": True}


@pytest.mark.parametrize("shape", ["bare", "model", "state_dict", "both"])
def test_wherever_the_weights_are(tmp_path: Path, shape: str):
    content = {"bare": TENSORS, "both": {"model": {"state_dict": TENSORS}}}.get(shape, {shape: TENSORS})
    torch.save(content, tmp_path / "a.bin")
    assert read_raw(tmp_path / "a.bin").tensors.keys() == TENSORS.keys()


def test_a_folder_in_parts(tmp_path: Path):
    for i, name in enumerate(TENSORS):
        save_file({name: TENSORS[name]}, tmp_path / f"model-{i}.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    raw = read_raw(tmp_path)
    assert raw.tensors.keys() == TENSORS.keys() and raw.config == {"model_type": "vit"}


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["model", "args", "beside"])
def test_code_is_refused_and_does_not_run(tmp_path: Path, where: str):
    evil = Evil(f"touch {tmp_path}/ran")
    if where == "args":
        evil = argparse.Namespace(model=evil)
    torch.save({"model": TENSORS} | {where: evil}, tmp_path / "a.pth")
    with pytest.raises(
        UserError, match=r"a.pth is refused: beside tensors it wants (posix|nt).system: give a"
    ) as error:
        read_raw(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists() and "\n" not in str(error.value)


def test_a_module_is_refused(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with raises("weights.damaged"):
        read_raw(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.pth", b"no weights", "is (no checkpoint|refused)"),
        ("a.safetensors", b"no weights", "is not a safetensors file"),
        ("b.pth", None, "no file .*b.pth"),
        ("", None, "holds no weights"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, name: str, content: bytes | None, complaint: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=complaint) as error:
        read_raw(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_without_tensors_and_a_config_that_is_none(tmp_path: Path):
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with raises("weights.damaged"):
        read_raw(tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "a.pth")
    with raises("weights.damaged"):
        read_raw(tmp_path / "a.pth")
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("no json")
    with raises("weights.damaged"):
        read_raw(tmp_path)
