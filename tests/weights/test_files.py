"""Files of other programs: only tensors are read, whatever else they hold, and a bad one is named in a line."""
# Also tests files/safe_pickle.py.

import argparse
import json
import os
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.data import AttributeDict
from safetensors.torch import save_file
from support.errors import raises

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


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of two parts, as their index lists them, with an average beside that it does not list."""
    for i, name in enumerate(TENSORS):
        save_file({name: TENSORS[name]}, tmp_path / f"model-{i}.safetensors")
    listed = {name: f"model-{i}.safetensors" for i, name in enumerate(TENSORS)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    save_file({name: 2 * tensor for name, tensor in TENSORS.items()}, tmp_path / "model_ema.safetensors")
    return tmp_path


def test_of_a_folder_in_parts_what_its_index_lists(parts: Path):
    raw = read_raw(parts)
    assert raw.tensors.keys() == TENSORS.keys() and raw.config == {"model_type": "vit"}
    assert all(torch.equal(raw.tensors[name], TENSORS[name]) for name in TENSORS)
    (parts / "model-1.safetensors").unlink()
    with raises("weights.part"):
        read_raw(parts)


def test_a_folder_of_several_files_does_not_say_which(parts: Path):
    (parts / "model.safetensors.index.json").unlink()
    with raises("weights.several"):
        read_raw(parts)
    save_file(TENSORS, parts / "model.safetensors")
    assert torch.equal(read_raw(parts).tensors["a"], TENSORS["a"])


@pytest.mark.parametrize(
    "listed", [{"a": "../a.safetensors"}, {"a": "/etc/passwd"}, [], "x", {}, {"a": 5}], ids=lambda each: str(each)
)
def test_an_index_lists_files_of_its_folder(tmp_path: Path, listed: Any):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    with raises("weights.damaged", "weights.part"):
        read_raw(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("student", "teacher"),
        ("state_dict", "ema_model"),
        ("model_state_dict", "averaged_model"),
        ("net", "params_ema"),
    ],
)
def test_of_weights_and_their_average_the_user_says_which(tmp_path: Path, names: tuple[str, str]):
    average = {name: 2 * tensor for name, tensor in TENSORS.items()}
    torch.save(dict(zip(names, (TENSORS, average), strict=True)), tmp_path / "a.pth")
    with raises("average"):
        read_raw(tmp_path / "a.pth")
    for chosen, expected in ((True, average), (False, TENSORS)):
        assert torch.equal(read_raw(tmp_path / "a.pth", chosen).tensors["a"], expected["a"])
    torch.save({names[1]: average}, tmp_path / "b.pth")
    assert torch.equal(read_raw(tmp_path / "b.pth").tensors["a"], average["a"])


def test_an_average_without_names_is_one(tmp_path: Path):
    """As torch_ema saves it: a list in the order of the parameters."""
    torch.save({"model": TENSORS, "ema": {"shadow_params": [*TENSORS.values()], "decay": 0.9}}, tmp_path / "a.pth")
    with raises("average"):
        read_raw(tmp_path / "a.pth")
    assert torch.equal(read_raw(tmp_path / "a.pth", average=False).tensors["a"], TENSORS["a"])
    with raises("weights.damaged"):
        read_raw(tmp_path / "a.pth", average=True)


DOWNLOADS = [
    "<!DOCTYPE html>",
    "\n<html>",
    "version https://git-lfs.github.com/spec/v1\noid 1",
    '{"error":"not found"}',
]


@pytest.mark.parametrize("start", DOWNLOADS)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_web_page_or_a_pointer_is_no_damage(tmp_path: Path, name: str, start: str):
    (tmp_path / name).write_text(start)
    with raises("weights.download"):
        read_raw(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (argparse.Namespace(x=1), {"x": 1}),
        (SimpleNamespace(x=1), {"x": 1}),
        (AttributeDict(x=1), {"x": 1}),
        ({"x": Path("/a/b")}, {"x": "/a/b"}),
        (defaultdict(list, x=[1]), {"x": [1]}),
        (OrderedDict(x=1), {"x": 1}),
        ({"x": 1, "rng": np.arange(3)}, {"x": 1}),
        ({"x": np.float64(0.5)}, {"x": 0.5}),
        ({"x": np.float32(0.25), "y": np.int64(-7), "z": np.bool_(True)}, {"x": 0.25, "y": -7, "z": True}),
    ],
    ids=[
        "Namespace",
        "SimpleNamespace",
        "AttributeDict",
        "path",
        "defaultdict",
        "OrderedDict",
        "array",
        "float64",
        "more",
    ],
)
def test_harmless_settings_are_read_as_plain_values(tmp_path: Path, value: Any, expected: dict[str, Any]):
    torch.save({"model": TENSORS, "args": value}, tmp_path / "a.pth")
    settings = read_raw(tmp_path / "a.pth").settings
    found = {name: value for name, value in settings.items() if name != "rng"}
    assert found == expected and all(isinstance(value, int | float | bool | str | list) for value in found.values())


def test_settings_objects_of_packages_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("easydict")
    exec("class EasyDict(dict):\n    __module__ = 'easydict'", vars(module))
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "easydict", module)
        value = module.EasyDict(x=1)
        value.y = 2
        torch.save({"model": TENSORS, "args": value}, tmp_path / "a.pth")
    assert read_raw(tmp_path / "a.pth").settings == {"x": 1}


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
    with raises("weights.damaged.pickle") as error:
        read_raw(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists() and "\n" not in str(error.value)


def test_a_module_is_refused(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with raises("weights.damaged"):
        read_raw(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.pth", b"no weights", "weights.damaged"),
        ("a.safetensors", b"no weights", "weights.damaged"),
        ("b.pth", None, "weights.missing"),
        ("", None, "weights.missing"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, name: str, content: bytes | None, key: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with raises(key) as error:
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
