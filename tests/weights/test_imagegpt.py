"""ImageGPT's folders: transformers' features and predictions, and folders that cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.errors import raises

from mae_kit.commands.import_ import import_
from mae_kit.weights.native import load_model
from mae_kit.weights.pretrained import build_timm
from mae_kit.weights.recognize import read_pretrained

SIZES: dict[str, Any] = {"vocab_size": 17, "n_positions": 64, "n_embd": 48, "n_layer": 2, "n_head": 3}
PALETTE = torch.rand(16, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def write(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "imagegpt"} | config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"clusters": PALETTE.tolist()}))
    save_file(tensors, folder / "model.safetensors")
    return folder


def made_up(folder: Path, **changed: Any) -> Path:
    """In transformers' layout, without the head."""
    matrices = {"attn.c_attn": (48, 144), "attn.c_proj": (48, 48), "mlp.c_fc": (48, 192), "mlp.c_proj": (192, 48)}
    tensors = {"wte.weight": torch.randn(17, 48), "wpe.weight": torch.randn(64, 48), "ln_f.weight": torch.ones(48)}
    for i in range(2):
        tensors |= {f"h.{i}.ln_{k}.weight": torch.ones(48) for k in (1, 2)}
        tensors |= {f"h.{i}.{name}.weight": torch.randn(shape) for name, shape in matrices.items()}
        tensors |= {f"h.{i}.{name}.bias": torch.zeros(shape[1]) for name, shape in matrices.items()}
        tensors |= {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64), f"h.{i}.attn.masked_bias": torch.tensor(-1e4)}
    return write(folder, SIZES | changed, tensors)


@pytest.mark.slow
def test_features_and_predictions_are_those_of_transformers(tmp_path: Path):
    from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

    torch.manual_seed(0)
    model: Any = ImageGPTForCausalImageModeling(ImageGPTConfig(**SIZES)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "theirs")
    write(tmp_path / "theirs", SIZES, load_file(tmp_path / "theirs" / "model.safetensors"))
    import_(tmp_path / "theirs", tmp_path / "run")
    objective: Any = load_model(tmp_path / "run")
    codes = torch.randint(16, (2, 64))
    images = PALETTE[codes].transpose(1, 2).unflatten(2, (8, 8))
    entering = torch.cat([torch.full((2, 1), 16), codes[:, :-1]], dim=1)
    expected = model(input_ids=entering, output_hidden_states=True)
    found = objective(images, torch.tensor([1, 2]))
    torch.testing.assert_close(found.prediction, expected.logits, rtol=1e-4, atol=1e-5)
    features = build_timm(read_pretrained(tmp_path / "run")).forward_features(images)
    torch.testing.assert_close(features, expected.hidden_states[-1], rtol=1e-4, atol=1e-5)


def test_a_file_without_a_head_and_with_old_buffers(tmp_path: Path):
    weights = read_pretrained(made_up(tmp_path / "a"))
    assert torch.equal(weights.tensors["palette"], PALETTE) and not weights.tensors["color_head.weight"].any()
    assert len(weights.left_out) == 4 and weights.notes
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    assert torch.equal(weights.tensors["start"], tensors["wte.weight"][16])
    assert torch.equal(weights.tensors["blocks.1.attn.qkv.weight"], tensors["h.1.attn.c_attn.weight"].T)


def without_palette(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def with_bias(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"h.0.mlp.c_fc.bias": torch.ones(192)}, folder / "model.safetensors")


def with_another_activation(folder: Path) -> None:
    made_up(folder, activation_function="relu")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (without_palette, "weights.palette"),
        (with_bias, "weights.biases"),
        (with_another_activation, "weights.igpt_config"),
        (without_config, "weights.layout.imagegpt_config"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, change: Callable[[Path], None], key: str):
    change(made_up(tmp_path / "a"))
    with raises(key):
        read_pretrained(tmp_path / "a")


@pytest.mark.parametrize(("changed", "key"), [({"img_size": 16}, "img_size"), ({"channels": 1}, "channels")])
def test_it_stays_as_it_is(tmp_path: Path, changed: dict[str, Any], key: str):
    with raises(key):
        import_(made_up(tmp_path / "a"), tmp_path / "run", **changed)
