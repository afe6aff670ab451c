"""Foundation encoders in their published layouts: features of transformers and timm; pretraining from them."""
# Also tests encoders/eva.py, weights/dinov3.py, weights/siglip.py.

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from support.errors import raises
from support.tiny_models import shaken
from torch import Tensor

from mae_kit.commands.import_ import import_
from mae_kit.encoders import create_encoder
from mae_kit.encoders.patches import patchify
from mae_kit.objectives import MAE
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.initialize import start_from
from mae_kit.weights.pretrained import Pretrained, build_timm
from mae_kit.weights.recognize import load_encoder, read_pretrained
from mae_kit.weights.timm import write

WIDTH: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
SIZES: dict[str, Any] = WIDTH | {"image_size": 32, "patch_size": 8}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "DINOv2": ("Dinov2", SIZES),
    "DINOv2, gated": ("Dinov2", SIZES | {"use_swiglu_ffn": True}),
    "DINOv2, registers": ("Dinov2WithRegisters", SIZES | {"num_register_tokens": 2}),
    "DINOv2, registers, gated": ("Dinov2WithRegisters", SIZES | {"use_swiglu_ffn": True}),
    "Pixio": ("Pixio", SIZES | {"n_cls_tokens": 4}),
    "Pixio, one class token": ("Pixio", SIZES | {"n_cls_tokens": 1}),
    "SigLIP": ("SiglipVision", SIZES | {"intermediate_size": 100}),
    "SigLIP 2, any shape": ("Siglip2Vision", WIDTH | {"intermediate_size": 96, "num_patches": 16, "patch_size": 8}),
    "DINOv3": ("DINOv3ViT", SIZES | {"intermediate_size": 192, "num_register_tokens": 2}),
    "DINOv3, gated": ("DINOv3ViT", SIZES | {"intermediate_size": 96, "use_gated_mlp": True, "hidden_act": "silu"}),
}
OF_TIMM = {
    "EVA-02": "eva02_base_patch14_224",
    "EVA-02, norms inside": "eva02_large_patch14_224",
    "DINOv3": "vit_small_patch16_dinov3",
    "DINOv3, gated": "vit_small_plus_patch16_dinov3_qkvb",
    "DINOv2": "vit_base_patch14_reg4_dinov2",
    "DINOv2, gated": "vit_giant_patch14_dinov2",
    "SigLIP 2": "vit_base_patch16_siglip_224",
}
TIMM: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def of_transformers(folder: Path, kind: str, **more: Any) -> Any:
    """A model of theirs, written as they do, with every tensor away from its initial value."""
    import transformers

    name, sizes = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**sizes | more)
    model = shaken(getattr(transformers, f"{name}Model")(config))
    model.save_pretrained(folder)
    return model


def their_features(model: Any, images: Tensor) -> Tensor:
    if "Siglip2" not in type(model).__name__:
        return model(images).last_hidden_state
    patches = patchify(images, (8, 8))
    shapes = torch.tensor([[4, 4]] * len(images))
    seen = torch.ones(patches.shape[:2], dtype=torch.long)
    return model(patches, pixel_attention_mask=seen, spatial_shapes=shapes).last_hidden_state


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_features_are_those_of_transformers(tmp_path: Path, kind: str):
    model = of_transformers(tmp_path / "theirs", kind)
    weights = read_pretrained(tmp_path / "theirs")
    images = torch.randn(2, 3, 32, 32)
    found = build_timm(weights).forward_features(images)
    torch.testing.assert_close(found, their_features(model, images), rtol=1e-5, atol=1e-5)
    assert all(re.search(r"embeddings\.mask_token|\bhead\.", name) for name in weights.left_out)
    goes_on(tmp_path / "theirs", found, images)


def goes_on(path: Path, features: Tensor, images: Tensor) -> None:
    """Pretraining starts with the encoder's features, and its first step moves them."""
    config = read_pretrained(path).config
    encoder: Any = create_encoder(config.model, config.model_args, config.image_size)
    mae = MAE(encoder, decoder_dim=32, decoder_depth=1, decoder_heads=2)
    start_from(path, mae, config.mean, config.std)
    mae.eval()
    torch.testing.assert_close(mae.encoder(images), features, rtol=1e-5, atol=1e-5)
    nothing_hidden = torch.arange(16).expand(len(images), -1)
    torch.testing.assert_close(mae.encoder.drop(images, nothing_hidden), features, rtol=1e-4, atol=1e-5)
    some = torch.tensor([[0, 3, 7, 12]]).expand(len(images), -1)
    before = mae.encoder.drop(images, some)
    changed = images.clone()
    changed[:, :, :8, 8:16] += 1  # patch 1
    torch.testing.assert_close(mae.encoder.drop(changed, some), before)
    optimizer = torch.optim.SGD([p for p in mae.parameters() if p.requires_grad], lr=0.1)
    mae(images).loss.backward()
    assert all(p.grad is not None for p in mae.parameters() if p.requires_grad)
    optimizer.step()
    assert not torch.allclose(mae.encoder(images), features, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_TIMM)
def test_folders_of_timm(tmp_path: Path, kind: str):
    name = OF_TIMM[kind]
    model = shaken(timm.create_model(name, num_classes=0, **TIMM))
    config = ModelConfig(name, TIMM, [0.5] * 3, [0.5] * 3, image_size=(32, 32))
    content, tensors = write(Pretrained("timm's", config, model.state_dict()))
    save(tmp_path / "theirs", content, tensors)
    images = torch.randn(2, 3, 32, 32)
    goes_on(tmp_path / "theirs", model.forward_features(images), images)


@pytest.mark.parametrize("kind", ["EVA-02", "DINOv3", "DINOv3, gated"])
def test_rotary_encoders_without_a_config_are_told_to_need_it(tmp_path: Path, kind: str):
    tensors = timm.create_model(OF_TIMM[kind], num_classes=0, **TIMM).state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "a.pth")
    with raises("weights.layout.rotary"):
        read_pretrained(tmp_path / "a.pth")


def save(folder: Path, content: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


@pytest.mark.slow
def test_as_transformers_has_them_in_memory(tmp_path: Path):
    for kind in ("DINOv2, registers", "DINOv3", "Pixio"):
        model = of_transformers(tmp_path / kind, kind)
        written = read_pretrained(tmp_path / kind).tensors
        save_file(model.state_dict(), tmp_path / kind / "model.safetensors")
        in_memory = read_pretrained(tmp_path / kind).tensors
        assert in_memory.keys() == written.keys()
        assert all(torch.equal(in_memory[name], tensor) for name, tensor in written.items())


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["teacher.backbone.", "module.model.", "visual."])
@pytest.mark.parametrize("kind", ["DINOv2, registers", "DINOv3", "Pixio", "SigLIP"])
def test_prefixes_in_a_folder_that_says_what_it_is(tmp_path: Path, kind: str, prefix: str):
    of_transformers(tmp_path, kind)
    plain, tensors = read_pretrained(tmp_path), load_file(tmp_path / "model.safetensors")
    more = {"dino_head.weight": torch.zeros(2)} if prefix == "teacher.backbone." else {}
    save_file({prefix + name: tensor for name, tensor in tensors.items()} | more, tmp_path / "model.safetensors")
    found = read_pretrained(tmp_path)
    assert found.tensors.keys() == plain.tensors.keys() and found.left_out == [*plain.left_out, *more]
    assert all(torch.equal(tensor, plain.tensors[name]) for name, tensor in found.tensors.items())
    assert f"the names without their prefix {prefix}" in found.notes


def test_a_classifier_and_a_pair_of_towers_give_their_encoder(tmp_path: Path):
    import transformers

    config: Any = transformers.Dinov2Config(**SIZES)
    model: Any = shaken(transformers.Dinov2ForImageClassification(config))
    model.save_pretrained(tmp_path / "classifier")
    weights, images = read_pretrained(tmp_path / "classifier"), torch.randn(2, 3, 32, 32)
    assert {"classifier.weight", "classifier.bias"} < set(weights.left_out)
    expected = model.dinov2(images).last_hidden_state
    torch.testing.assert_close(build_timm(weights).forward_features(images), expected, rtol=1e-5, atol=1e-5)
    text = WIDTH | {"intermediate_size": 96, "vocab_size": 20, "projection_size": 48}
    config = transformers.SiglipConfig(vision_config=SIZES | {"intermediate_size": 96}, text_config=text)
    towers: Any = shaken(transformers.SiglipModel(config))
    towers.save_pretrained(tmp_path / "towers")
    weights = read_pretrained(tmp_path / "towers")
    assert {"logit_scale", "logit_bias"} < set(weights.left_out)
    expected = towers.vision_model(images).last_hidden_state
    torch.testing.assert_close(build_timm(weights).forward_features(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more", "key"),
    [
        ("DINOv2", {"hidden_act": "relu"}, "weights.activation"),
        ("SigLIP", {"hidden_act": "relu"}, "weights.activation.tanh"),
        ("DINOv3", {"key_bias": True}, "weights.names.unknown"),
        ("DINOv3", {"hidden_act": "silu"}, "weights.activation.gated"),
        ("DINOv3, gated", {"hidden_act": "gelu"}, "weights.activation.gated"),
    ],
)
def test_what_timm_does_not_compute_is_refused(tmp_path: Path, kind: str, more: dict[str, Any], key: str):
    of_transformers(tmp_path / "theirs", kind, **more)
    with raises(key):
        read_pretrained(tmp_path / "theirs")


@pytest.mark.slow
def test_a_tensor_of_an_unknown_name_is_refused(tmp_path: Path):
    of_transformers(tmp_path / "theirs", "DINOv3")
    file = tmp_path / "theirs" / "model.safetensors"
    save_file(load_file(file) | {"embeddings.extra_token": torch.zeros(1)}, file)
    with raises("weights.names.unknown"):
        read_pretrained(tmp_path / "theirs")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DINOv2, registers", "DINOv3", "Pixio"])
def test_other_patches_and_sizes(tmp_path: Path, kind: str):
    """Resized patches give the features that they gave before; on a larger grid the encoder still works."""
    of_transformers(tmp_path / "theirs", kind)
    import_(tmp_path / "theirs", tmp_path / "larger", patch_size=10)
    import_(tmp_path / "theirs", tmp_path / "same grid", patch_size=16, img_size=64)
    import_(tmp_path / "theirs", tmp_path / "more", patch_size=16, img_size=96)
    before, after = load_encoder(tmp_path / "same grid"), build_timm(read_pretrained(tmp_path / "theirs"))
    assert load_encoder(tmp_path / "larger").image_size == (40, 40)
    assert (before.patch_size, before.grid, load_encoder(tmp_path / "more").grid) == ((16, 16), (4, 4), (6, 6))
    images = torch.randn(2, 3, 32, 32)
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(0, 3)[:, None]
    grown = torch.nn.functional.interpolate(patches, (16, 16), mode="bilinear").reshape(2, 3, 4, 4, 16, 16)
    images_of_64 = grown.permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 64, 64)
    torch.testing.assert_close(before(images_of_64), after.forward_features(images), rtol=1e-4, atol=1e-4)
    assert load_encoder(tmp_path / "more")(torch.randn(1, 3, 96, 96)).shape[1] == before.prefix + 36


@pytest.mark.slow
def test_an_encoder_of_other_patches_is_converted_first(tmp_path: Path):
    of_transformers(tmp_path / "theirs", "DINOv2")
    encoder: Any = create_encoder("vit_base_patch16_224", TIMM | {"patch_size": 16, "init_values": 1e-5})
    with raises("init.patch_size"):
        start_from(tmp_path / "theirs", MAE(encoder), [0.5] * 3, [0.5] * 3)
