"""Encoders of BEiT, Swin and ConvNeXt V2: transformers' features, and timm's own reading of the originals' names."""
# Also tests weights/beit.py, weights/convnextv2.py, weights/hiera.py, weights/pretrained.py, weights/swin.py.

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.errors import raises
from support.tiny_models import save_tokenizer, shaken
from torch import Tensor

from mae_kit.commands.import_ import import_
from mae_kit.data.transforms.augment import IMAGENET_MEAN, IMAGENET_STD
from mae_kit.encoders import BEiTEncoder
from mae_kit.objectives import BEiT
from mae_kit.tasks.classifier import build_classifier
from mae_kit.weights.files import Raw
from mae_kit.weights.initialize import start_from
from mae_kit.weights.native import load_classifier
from mae_kit.weights.pretrained import build_timm
from mae_kit.weights.recognize import load_encoder, read_pretrained
from mae_kit.weights.swin import check_windows

VIT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
BEIT = VIT | {"image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 12, "depths": [2, 1], "num_heads": [1, 2], "window_size": 4}
CONVNEXT = {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 2, 1], "layer_norm_eps": 1e-6}
SIZES: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3}
TIMM = {
    "beit": ("beit_base_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}),
    "swin": (
        "swin_base_patch4_window7_224",
        {"img_size": 32, "window_size": 4} | {key: SWIN[key] for key in ("embed_dim", "depths", "num_heads")},
    ),
    "convnextv2": ("convnextv2_base", {"depths": [1, 1, 2, 1], "dims": [8, 16, 16, 24]}),
}


def theirs(family: str, **more: Any) -> Any:
    import transformers

    config, sizes = {"beit": ("Beit", BEIT), "swin": ("Swin", SWIN), "convnextv2": ("ConvNextV2", CONVNEXT)}[family]
    torch.manual_seed(0)
    return shaken(getattr(transformers, f"{config}Model")(getattr(transformers, f"{config}Config")(**sizes, **more)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("beit", {"use_shared_relative_position_bias": True, "use_mean_pooling": False, "use_mask_token": True}),
        ("beit", {"use_relative_position_bias": True, "use_mean_pooling": True}),
        ("swin", {}),
        ("convnextv2", {}),
    ],
)
def test_the_features_are_those_of_transformers(tmp_path: Path, family: str, more: dict[str, Any]):
    model = theirs(family, **more)
    model.save_pretrained(tmp_path / "theirs")
    weights = read_pretrained(tmp_path / "theirs")
    save_file(model.state_dict(), tmp_path / "theirs" / "model.safetensors")  # as transformers 5 has it in memory
    in_memory = read_pretrained(tmp_path / "theirs").tensors
    assert in_memory.keys() == weights.tensors.keys()
    assert all(torch.equal(in_memory[name], tensor) for name, tensor in weights.tensors.items())
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    found = build_timm(weights).forward_features(images)
    if family == "convnextv2":
        torch.testing.assert_close(build_timm(weights)(images), expected.pooler_output, rtol=1e-5, atol=1e-5)
    else:
        last = expected.last_hidden_state
        torch.testing.assert_close(found.reshape(last.shape), last, rtol=1e-5, atol=1e-5)
    import_(tmp_path / "theirs", tmp_path / "run")
    classifier = build_classifier(None, 4, load_encoder(tmp_path / "run", any_family=True), 0.0, (32, 32))
    assert classifier.loaded and classifier.model(images).shape == (2, 4)


@pytest.mark.slow
def test_what_transformers_pretrained_as_beit_goes_on(tmp_path: Path):
    """Its one table, its mask token and its head, as `BeitForMaskedImageModeling` writes them."""
    import transformers

    more: dict[str, Any] = {"use_shared_relative_position_bias": True, "use_mask_token": True, "vocab_size": 20}
    model: Any = transformers.BeitForMaskedImageModeling(transformers.BeitConfig(**BEIT, **more))
    shaken(model).save_pretrained(tmp_path / "theirs")
    ours = BEiT(BEiTEncoder(img_size=32, patch_size=8, **SIZES), str(save_tokenizer(tmp_path)), smallest_block=2).eval()
    start_from(tmp_path / "theirs", ours, [0.5] * 3, [0.5] * 3)
    images = torch.randn(2, 3, 32, 32)
    expected = model.layernorm(model.beit(images).last_hidden_state)
    torch.testing.assert_close(ours.encoder(images), expected, rtol=1e-5, atol=1e-5)
    config = transformers.BeitConfig(**BEIT, **more, use_mean_pooling=False)
    transformers.BeitForMaskedImageModeling(config).save_pretrained(tmp_path / "two norms")
    with raises("weights.pooling"):
        read_pretrained(tmp_path / "two norms")


def original_names(family: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Timm's names as the authors spell them."""
    if family == "beit":
        return tensors | {"mask_token": torch.zeros(1, 1, 48), "lm_head.weight": torch.zeros(20, 48)}
    if family == "swin":
        down = r"layers\.(\d+)\.downsample"
        moved = {
            re.sub(down, lambda found: f"layers.{int(found[1]) - 1}.downsample", name): tensor
            for name, tensor in tensors.items()
        }
        buffers = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16)}
        return {
            f"encoder.{name}": tensor for name, tensor in (moved | buffers | {"mask_token": torch.zeros(1)}).items()
        }
    spelled = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d)\.downsample", r"downsample_layers.\1", name)
        name = name.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        name = name.replace("mlp.grn.weight", "grn.gamma").replace("mlp.grn.bias", "grn.beta")
        spelled[name.replace("head.norm", "norm")] = tensor[None] if ".grn." in name else tensor
    return spelled


@pytest.mark.parametrize("family", TIMM)
def test_the_originals_spelling(tmp_path: Path, family: str):
    name, args = TIMM[family]
    model = shaken(timm.create_model(name, num_classes=0, **args))
    tensors = dict(model.state_dict())
    torch.save({"model": original_names(family, tensors)}, tmp_path / "a.pth")
    weights = read_pretrained(tmp_path / "a.pth")
    assert weights.tensors.keys() == tensors.keys()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(build_timm(weights)(images), model(images))
    kinds = {
        "beit": "original BEiT, encoder only",
        "swin": "original Swin, pretrained with SimMIM",
        "convnextv2": "original ConvNeXt V2, encoder only",
    }
    assert weights.kind == kinds[family]
    left = {"beit": 2, "swin": 2, "convnextv2": 0}
    assert len(weights.left_out) == left[family]


def test_timm_reads_the_originals_swin_alike(tmp_path: Path):
    """The one place where names move: patches are merged at a stage's end there, at the next one's start in timm."""
    from timm.models.swin_transformer import checkpoint_filter_fn

    name, args = TIMM["swin"]
    model = shaken(timm.create_model(name, num_classes=0, **args))
    spelled = {k.removeprefix("encoder."): v for k, v in original_names("swin", dict(model.state_dict())).items()}
    spelled.pop("mask_token")
    torch.save({"model": spelled}, tmp_path / "a.pth")
    weights, timms = read_pretrained(tmp_path / "a.pth"), checkpoint_filter_fn({"model": spelled}, model)
    assert weights.tensors.keys() == timms.keys() and weights.kind == "original Swin, encoder only"
    assert all(torch.equal(weights.tensors[key], timms[key]) for key in timms)


def test_small_convnexts_have_convolutions_for_layers(tmp_path: Path):
    model = shaken(timm.create_model("convnextv2_atto", num_classes=3))
    flat = {k: v.flatten(1) if ".mlp.fc" in k and v.ndim == 4 else v for k, v in model.state_dict().items()}
    spelled = {k.replace("head.fc.", "head."): v for k, v in original_names("convnextv2", flat).items()}
    torch.save({"model": spelled}, tmp_path / "a.pth")
    weights = read_pretrained(tmp_path / "a.pth")
    assert weights.config.model == "convnextv2_atto" and weights.kind.endswith("classifier of 3 classes")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(build_timm(weights)(images), model(images))
    for name in ("norm.weight", "norm.bias", "head.weight", "head.bias"):
        spelled.pop(name)
    torch.save({"model": spelled}, tmp_path / "b.pth")
    assert "starts as the identity" in read_pretrained(tmp_path / "b.pth").notes[0]


def sparse(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """As FCMAE's encoder of sparse tensors has it: kernels flat, columns before rows, another layer around each."""
    module, _, kind = name.rpartition(".")
    if tensor.ndim == 4 and not module.endswith("layers.0.0"):
        flat = tensor.transpose(2, 3).flatten(2).permute(2, 1, 0)
        return f"{module}.kernel", flat[:, 0] if module.endswith("dwconv") else flat
    around = {"norm": "ln", "pwconv1": "linear", "pwconv2": "linear", "0": "ln"}.get(module.rpartition(".")[2])
    if module.endswith("layers.0.0") or module.endswith("layers.0.1") or around is None:
        return name, tensor[None] if kind == "bias" and module.endswith("dwconv") else tensor
    return f"{module}.{around}.{kind}", tensor


def test_a_whole_fcmae_is_read_without_its_decoder(tmp_path: Path):
    name, args = TIMM["convnextv2"]
    model = shaken(timm.create_model(name, num_classes=0, **args))
    plain = original_names("convnextv2", dict(model.state_dict()))
    spelled = dict(sparse(*item) for item in plain.items() if not item[0].startswith("norm."))
    assert "stages.0.0.dwconv.kernel" in spelled and "stages.0.0.pwconv1.linear.weight" in spelled
    whole = {f"encoder.{name}": tensor for name, tensor in spelled.items()}
    torch.save({"model": whole | {"mask_token": torch.zeros(1), "pred.bias": torch.zeros(1)}}, tmp_path / "a.pth")
    weights = read_pretrained(tmp_path / "a.pth")
    assert weights.left_out == ["mask_token", "pred.bias"] and weights.config.objective == "FCMAE"
    for key, tensor in model.state_dict().items():
        assert key.startswith("head.norm") or torch.equal(weights.tensors[key], tensor), key


def test_an_original_hiera_is_read(tmp_path: Path):
    args: dict[str, Any] = {"img_size": 32, "embed_dim": 16, "num_heads": 1, "stages": [1, 1, 1, 1]}
    for classes in (0, 3):
        model = shaken(timm.create_model("hiera_tiny_224", num_classes=classes, **args))
        moved = {"head.norm.": "norm." if classes else "encoder_norm.", "head.fc.": "head.projection."}
        tensors = dict(model.state_dict())
        for ours, their in moved.items():
            tensors = {name.replace(ours, their): tensor for name, tensor in tensors.items()}
        beside = {} if classes else {"mask_token": torch.zeros(1), "decoder_pred.bias": torch.zeros(1)}
        torch.save({"model_state": tensors | beside}, tmp_path / "a.pth")
        weights = read_pretrained(tmp_path / "a.pth")
        assert weights.left_out == [*beside] and weights.config.image_size == (32, 32)
        images = torch.randn(2, 3, 32, 32)
        if classes:
            torch.testing.assert_close(build_timm(weights)(images), model(images))


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
@pytest.mark.parametrize("kind", ["beit", "swin", "convnextv2"])
def test_another_activation_is_refused(tmp_path: Path, kind: str, activation: str):
    first = {"beit": "beit.x", "swin": "swin.x", "convnextv2": "convnextv2.x"}[kind]
    save_file({first: torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "hidden_act": activation}))
    with raises("weights.activation"):
        read_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("size", "window", "fits"),
    [
        ((224, 224), 7, True),
        ((192, 192), 6, True),
        ((256, 256), 7, False),
        ((448, 224), 7, False),
        ((72, 72), 4, False),
    ],
)
def test_windows_of_transformers_that_do_not_fill_a_stage_are_refused(size: tuple[int, int], window: int, fits: bool):
    raw = Raw(Path("swin"), {}, {}, {"image_size": list(size)}, {})
    if fits:
        return check_windows(raw, size, 4, window, 4)
    with raises("weights.windows"):
        check_windows(raw, size, 4, window, 4)


def simmim_vit(classes: int) -> dict[str, Tensor]:
    """A ViT of SimMIM's code, whose names are BEiT's; pretrained, with one shared table, where there are no classes."""
    name, args = TIMM["beit"]
    pool: dict[str, Any] = {"global_pool": "avg" if classes else "token"}
    tensors = dict(shaken(timm.create_model(name, num_classes=classes, **args, **pool)).state_dict())
    if classes:
        return tensors
    shared = tensors["blocks.0.attn.relative_position_bias_table"]
    kept = {key: tensor for key, tensor in tensors.items() if "relative_position" not in key}
    kept |= {"mask_token": torch.zeros(1, 1, 48), "rel_pos_bias.relative_position_bias_table": shared}
    decoder = {"decoder.0.weight": torch.zeros(192, 48, 1, 1), "decoder.0.bias": torch.zeros(192)}
    return {f"encoder.{key}": tensor for key, tensor in kept.items()} | decoder


def test_a_pretrained_simmim_vit_is_read(tmp_path: Path):
    torch.save({"model": simmim_vit(0)}, tmp_path / "a.pth")
    weights = read_pretrained(tmp_path / "a.pth")
    assert weights.kind == "original SimMIM ViT, encoder only" and weights.config.objective == "SimMIM"
    assert weights.config.mean == IMAGENET_MEAN and weights.notes == []
    assert load_encoder(tmp_path / "a.pth")(torch.randn(1, 3, 32, 32)).shape == (1, 17, 48)


@pytest.mark.parametrize(
    ("more", "mean", "notes"),
    [
        ({}, 0.5, 1),
        ({"config": {"MODEL": {"TYPE": "vit"}}}, 0.485, 0),
        ({"args": {"imagenet_default_mean_and_std": False}}, 0.5, 0),
        ({"args": {"imagenet_default_mean_and_std": True}}, 0.485, 0),
    ],
    ids=["unknown", "SimMIM", "BEiT", "BEiT on ImageNet-1k"],
)
def test_the_normalization_of_a_fine_tuned_beit_or_simmim_vit(
    tmp_path: Path, more: dict[str, Any], mean: float, notes: int
):
    torch.save({"model": simmim_vit(5), **more}, tmp_path / "a.pth")
    weights = read_pretrained(tmp_path / "a.pth")
    assert weights.config.mean[0] == mean and len(weights.notes) == notes
    import_(tmp_path / "a.pth", tmp_path / "run", mean=[0.1, 0.2, 0.3], std=IMAGENET_STD)
    assert load_classifier(tmp_path / "run").config.mean == [0.1, 0.2, 0.3]


def test_a_tensor_too_many(tmp_path: Path):
    name, args = TIMM["swin"]
    tensors = original_names("swin", dict(timm.create_model(name, num_classes=0, **args).state_dict()))
    torch.save({"model": tensors | {"encoder.layers.0.scale": torch.ones(1)}}, tmp_path / "a.pth")
    with raises("weights.names"):
        read_pretrained(tmp_path / "a.pth")
