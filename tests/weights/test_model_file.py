"""A whole model in one file: rebuilt with its weights, and told from every other kind of file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mae_kit.encoders.vit import ViT
from mae_kit.errors import UserError
from mae_kit.objectives import MAE
from mae_kit.tensor_file import save_tensors
from mae_kit.weights.model_file import FILE, load_model, model_metadata

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.21, 0.22]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, MAE]:
    encoder = ViT("vit_tiny_patch16_224", [16, 32], patch_size=8, embed_dim=24, depth=1, num_heads=2)
    mae = MAE(encoder, 0.5, decoder_dim=16, decoder_depth=1, decoder_heads=2).eval()
    save_tensors(tmp_path / FILE, mae.state_dict(), model_metadata(mae, MEAN, STD))
    return tmp_path, mae


@pytest.mark.parametrize("path", [".", FILE])
def test_there_and_back(saved: tuple[Path, MAE], path: str):
    folder, mae = saved
    model = load_model(folder / path)
    assert model.mean == MEAN and model.std == STD and not model.objective.training
    images, keys = torch.randn(2, 3, 16, 32), torch.tensor([1, 2])
    ours, theirs = model.objective(images, keys), mae(images, keys)
    assert torch.equal(ours.prediction, theirs.prediction) and torch.equal(ours.hidden, theirs.hidden)


def test_arguments_can_be_changed(saved: tuple[Path, MAE]):
    objective: Any = load_model(saved[0], mask_ratio=0.25, mask=None).objective
    assert objective.mask_ratio == 0.25 and objective.mask == "random"
    outcome = objective(torch.randn(1, 3, 16, 32), torch.tensor([1]))
    assert outcome.hidden.sum() == 2
    with pytest.raises(UserError, match=r"mask_ratio 1\.0"):
        load_model(saved[0], mask_ratio=1.0)


def test_a_file_of_an_objective_that_was_another(saved: tuple[Path, MAE]):
    folder, mae = saved
    tensors = {name: tensor for name, tensor in mae.state_dict().items() if name != "decoder.mask_token"}
    save_tensors(folder / FILE, tensors, model_metadata(mae, MEAN, STD))
    with pytest.raises(UserError, match=r"does not fit its objective as it is now .*decoder\.mask_token.* train anew"):
        load_model(folder)


def test_saving_twice_gives_the_same_bytes(saved: tuple[Path, MAE]):
    folder, mae = saved
    before = (folder / FILE).read_bytes()
    save_tensors(folder / FILE, mae.state_dict(), model_metadata(mae, MEAN, STD))
    assert (folder / FILE).read_bytes() == before and [path.name for path in folder.iterdir()] == [FILE]


def other_kind(file: Path) -> None:
    save_file(load_file(file), file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def text(file: Path) -> None:
    file.write_text("no model")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (other_kind, "has no decoder"),
        (cut, "is not a safetensors file"),
        (text, "is not a safetensors file"),
        (Path.unlink, "no model.safetensors in"),
    ],
)
def test_files_of_another_kind(saved: tuple[Path, MAE], damage: Any, complaint: str):
    damage(saved[0] / FILE)
    with pytest.raises(UserError, match=complaint):
        load_model(saved[0])
