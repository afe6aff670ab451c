"""The laws of every masked objective, over all that `mae_kit.objectives` lists: a new one is held to them unasked."""
# Also tests encoders/beit.py, encoders/decoders.py, encoders/encoder.py, encoders/recompute.py, encoders/swin.py,
# encoders/vit.py, objectives/objective.py.

import copy
import inspect
import io
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import timm
import torch
from safetensors.torch import load_file
from support.errors import raises
from support.tiny_models import save_tokenizer, shaken

from mae_kit import objectives
from mae_kit.classes.configured import build
from mae_kit.commands.pretrain import PretrainData, save_results
from mae_kit.encoders import EVA, BEiTEncoder, ConvNeXtV2, Encoder, Hiera, ImageGPT, Swin, ViT
from mae_kit.encoders.patches import patchify, unpatchify
from mae_kit.encoders.recompute import recompute_blocks
from mae_kit.objectives import CrossMAE, Objective, SimMIM, masked_patch
from mae_kit.objectives.masking import BlockwiseMask, UnitMask, hidden_units
from mae_kit.objectives.objective import Outcome
from mae_kit.tasks.config import FinetuneData
from mae_kit.tasks.labeled import build_with_record
from mae_kit.weights.native import load_classifier, save_classifier
from mae_kit.weights.recognize import load_encoder

NAMES = [name for name in objectives.__all__ if name != "Objective"]
SMALL = {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2, "unit": 16, "smallest_block": 2}
TINY: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3}
SWIN: dict[str, Any] = {"embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
CONVOLUTIONS: dict[str, Any] = {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}
PIXELS: dict[str, Any] = {"img_size": 8, "colors": 16, **TINY}
STAGES: dict[str, Any] = {"embed_dim": 16, "num_heads": 1}
ENCODERS: dict[str, tuple[type[Encoder], str, dict[str, Any]]] = {
    "square": (ViT, "vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, **TINY}),
    "rectangle": (ViT, "vit_tiny_patch16_224", {"img_size": [32, 48], "patch_size": [8, 16], **TINY}),
    "one channel": (ViT, "vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "in_chans": 1, **TINY}),
    "four channels": (ViT, "vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "in_chans": 4, **TINY}),
    "registers": (ViT, "vit_small_patch14_reg4_dinov2", {"img_size": 32, "patch_size": 8, **TINY}),
    "registers, no class token": (ViT, "vit_medium_patch16_reg4_gap_256", {"img_size": 32, "patch_size": 8, **TINY}),
    "no class token": (ViT, "vit_base_patch16_siglip_gap_224", {"img_size": 32, "patch_size": 8, **TINY}),
    "attention pooling": (ViT, "vit_base_patch16_siglip_224", {"img_size": 32, "patch_size": 8, **TINY}),
    "norm before": (ViT, "vit_base_patch16_clip_224", {"img_size": 32, "patch_size": 8, **TINY}),
    "mean pooling": (ViT, "test_vit2", {"img_size": 32, "patch_size": 8}),
    "rotations": (EVA, "vit_small_plus_patch16_dinov3_qkvb", {"img_size": 32, "patch_size": 8, **TINY}),
    "rotations, rectangle": (
        EVA,
        "eva02_large_patch14_224",  # with positions too, and norms within the blocks
        {"img_size": [32, 48], "patch_size": [8, 16], "in_chans": 1, **TINY},
    ),
    "relative positions": (BEiTEncoder, "beit_base_patch16_224", {"img_size": 32, "patch_size": 8, **TINY}),
    "relative positions, rectangle": (
        BEiTEncoder,
        "beit_large_patch16_224",
        {"img_size": [32, 48], "patch_size": [8, 16], "in_chans": 1, "init_values": 0.1, **TINY},
    ),
    "windows": (Swin, "swin_tiny_patch4_window7_224", {"img_size": 32, **SWIN}),
    "windows, rectangle": (Swin, "swin_tiny_patch4_window7_224", {"img_size": [32, 48], "in_chans": 1, **SWIN}),
    "convolutions": (ConvNeXtV2, "convnextv2_tiny", {"img_size": 96, **CONVOLUTIONS}),
    "convolutions, dilated": (ConvNeXtV2, "convnextv2_atto", {"img_size": 48, "output_stride": 16, **CONVOLUTIONS}),
    "convolutions, rectangle": (
        ConvNeXtV2,
        "convnextv2_atto",
        {"img_size": [32, 48], "patch_size": 1, "in_chans": 1, **CONVOLUTIONS},
    ),
    "colors": (ImageGPT, "igpt_s", {"causal": False, **PIXELS}),
    "colors, rectangle": (ImageGPT, "igpt_s", {"causal": False, **PIXELS, "img_size": [6, 8], "in_chans": 1}),
    "colors, causal": (ImageGPT, "igpt_s", PIXELS),
    "mask units": (Hiera, "hiera_tiny_224", {"img_size": [64, 96], "stages": [1, 1, 2, 1], **STAGES}),
    "small mask units": (Hiera, "hiera_tiny_224", {"img_size": 32, "stages": [1, 2, 1], "q_pool": 1, **STAGES}),
}


CAUSAL = "colors, causal"
UNCHANGED = ("pos_embed",)  # fixed sin-cos positions, which `shaken` leaves as they are


NEVER_GIVEN = {"BEiT": "objective.statistics", "MaskedPatch": "objective.statistics", "IGPT": "objective.palette"}


@pytest.mark.parametrize("name", NEVER_GIVEN)
def test_what_was_never_given_is_asked_for(name: str, tmp_path: Path):
    encoder, model, arguments = ENCODERS["colors" if name == "IGPT" else "square"]
    given = {"tokenizer": str(save_tokenizer(tmp_path)), "smallest_block": 2} if name == "BEiT" else {}
    objective = getattr(objectives, name)(encoder(model, **arguments), **given)
    images = torch.randn(2, 3, *objective.encoder.image_size)
    with raises(NEVER_GIVEN[name]):
        objective(images)
    objective.set_statistics([0.5] * 3, [0.25] * 3)
    objective.fit(torch.randn(20, *images.shape[1:]))
    assert torch.isfinite(objective(images).loss)


def encoders_of(name: str) -> list[str]:
    """Those that its signature takes."""
    kinds = get_type_hints(getattr(objectives, name).__init__)["encoder"]
    return [encoder for encoder, (kind, *_) in ENCODERS.items() if issubclass(kind, get_args(kinds) or kinds)]


def make(name: str, folder: Path, encoder: str = "square", **changed: Any) -> Objective:
    """An objective, and in the folder what it needs."""
    kind = getattr(objectives, name)
    known = inspect.signature(kind.__init__).parameters
    make_encoder, model, arguments = ENCODERS[encoder]
    given = {key: value for key, value in SMALL.items() if key in known} | changed
    if "tokenizer" in known:
        given["tokenizer"] = str(save_tokenizer(folder, in_chans=arguments.get("in_chans", 3)))
    torch.manual_seed(0)
    objective = kind(make_encoder(model, **arguments), **given)
    objective.set_statistics([0.5] * objective.encoder.channels, [0.25] * objective.encoder.channels)
    objective.fit(images_for(objective))
    return shaken(objective)  # layers that start as the identity, or at zero, would hide what they do


def is_causal(objective: Objective) -> bool:
    """It predicts all pixels, each from those before: nothing is hidden by chance."""
    return isinstance(objective.encoder, ImageGPT) and objective.encoder.causal


def images_for(objective: Objective, count: int = 3) -> torch.Tensor:
    encoder = objective.encoder
    return torch.randn(count, encoder.channels, *encoder.image_size, generator=torch.Generator().manual_seed(1))


KEYS = torch.tensor([3, -1, 2**40])


CASES = [
    (name, encoder)
    for encoder in sorted(ENCODERS, key=CAUSAL.__eq__)  # last: the laws of what hides count the same up to there
    for name in NAMES
    if encoder in encoders_of(name)
]
HIDING = [case for case in CASES if CAUSAL not in case]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def objective(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Objective]:
    """One for all laws, which leave it as it is."""
    name, encoder = request.param
    objective = make(name, tmp_path_factory.mktemp("objective"), encoder)
    before = {key: tensor.clone() for key, tensor in objective.state_dict().items()}
    yield objective
    assert not any(module.training for module in objective.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in objective.state_dict().items())


def encoded(objective: Objective, images: torch.Tensor) -> tuple[torch.Tensor, Outcome]:
    """What the last layer of the encoder put out, and the outcome."""
    seen: list[torch.Tensor] = []
    model: Any = objective.encoder.model
    last = {ConvNeXtV2: "norm_pre", Hiera: "blocks"}.get(type(objective.encoder), "norm")
    last = "blocks" if isinstance(objective, CrossMAE) else last  # its decoder takes them as they are
    module = model.blocks[-1] if last == "blocks" else getattr(model, last)
    hook = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    outcome = objective(images, KEYS)
    hook.remove()
    return seen[-1], outcome


def gradients_and_bytes(objective: Objective) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """The loss, its gradients, and what is kept for them."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = objective(images_for(objective), KEYS).loss
    learned = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    return loss.detach(), list(torch.autograd.grad(loss, learned)), sum(kept.values())


@pytest.mark.parametrize("name", NAMES)
def test_blocks_that_are_computed_again_change_nothing(name: str, tmp_path: Path):
    objective = make(name, tmp_path, encoders_of(name)[0]).train()
    loss, gradients, kept = gradients_and_bytes(objective)
    recompute_blocks(objective)
    again, same, fewer = gradients_and_bytes(copy.deepcopy(objective))
    assert torch.equal(loss, again) and all(map(torch.equal, gradients, same))
    assert fewer < 0.8 * kept


@pytest.mark.parametrize("objective", HIDING, ids="-".join, indirect=True)
def test_hidden_pixels_do_not_reach_the_encoder(objective: Objective, monkeypatch: pytest.MonkeyPatch):
    """Where nothing is hidden, what comes later must not reach it: tests/objectives/test_igpt.py."""
    monkeypatch.setattr(masked_patch, "TO_TOKEN", 1.0)  # what it leaves as it is, it leaves on purpose
    images = images_for(objective)
    with torch.no_grad():
        tokens, outcome = encoded(objective, images)
        size, grid = objective.encoder.patch_size, objective.encoder.grid
        other = torch.where(outcome.hidden[:, :, None], 9.0, patchify(images, size))
        again, changed = encoded(objective, unpatchify(other, size, grid))
        assert torch.equal(tokens, again) and torch.equal(outcome.prediction, changed.prediction)
        assert not torch.equal(outcome.loss, changed.loss), "they are what is asked for"
        visible = torch.where(outcome.hidden[:, :, None], patchify(images, size), 9.0)
        assert not torch.equal(tokens, encoded(objective, unpatchify(visible, size, grid))[0])


def test_the_hidden_count_is_exact_or_within_its_bound(objective: Objective):
    encoder, outcome = objective.encoder, objective(images_for(objective), KEYS)
    patches = encoder.grid[0] * encoder.grid[1]
    assert outcome.hidden.shape == (3, patches) and outcome.hidden.dtype == torch.bool
    ratio = 1.0 if is_causal(objective) else objective.init_args["mask_ratio"]
    unit = math.prod(objective.hide.unit) if isinstance(objective.hide, UnitMask) else 1
    units = patches // unit
    count = outcome.hidden.sum(dim=1)
    if isinstance(objective.hide, BlockwiseMask):
        assert objective.hide.visible is None
        assert count.min() > 0 and count.max() <= objective.hide.most == pytest.approx(units * ratio, abs=1)
        return
    assert count.tolist() == [patches - (objective.hide.visible or 0)] * 3
    if isinstance(objective, SimMIM):
        assert count.tolist() == [hidden_units(units, ratio) * unit] * 3
    else:
        assert count.tolist() == [(units - int(units * (1 - ratio))) * unit] * 3


def test_shapes_are_as_documented(objective: Objective):
    outcome = objective(images_for(objective), KEYS)
    assert outcome.loss.shape == () and outcome.loss.dtype == torch.float32
    assert all(value.shape == () for value in outcome.logs.values())
    pixels = objective.pixels(outcome.prediction, images_for(objective))
    assert pixels.shape == images_for(objective).shape and pixels.isfinite().all()
    assert objective.target_pixels(images_for(objective)).shape == pixels.shape


def test_the_loss_ignores_what_is_predicted_for_visible_patches(objective: Objective):
    outcome = objective(images_for(objective), KEYS)
    (gradient,) = torch.autograd.grad(outcome.loss, outcome.prediction)
    assert not gradient[~outcome.hidden].any()
    assert gradient[outcome.hidden].any(dim=-1).all()


def test_a_gradient_reaches_every_trainable_parameter(objective: Objective):
    objective.zero_grad()
    objective(images_for(objective), KEYS).loss.backward()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


def test_the_same_keys_give_the_same_loss(objective: Objective):
    images = images_for(objective)
    first = objective(images, KEYS)
    torch.rand(7)
    second = objective(images, KEYS)
    assert torch.equal(first.loss, second.loss) and torch.equal(first.hidden, second.hidden)
    assert is_causal(objective) or not torch.equal(objective(images, KEYS + 1).hidden, first.hidden)


def test_without_seeds_torchs_generator_draws_them(objective: Objective):
    images, losses = images_for(objective), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(objective(images).loss)
    assert torch.equal(losses[0], losses[1])
    assert is_causal(objective) or not torch.equal(losses[0], losses[2])


def test_copies_are_equal(objective: Objective):
    saved = io.BytesIO()
    torch.save(objective, saved)
    saved.seek(0)
    copies = [
        copy.deepcopy(objective),
        pickle.loads(pickle.dumps(objective)),
        torch.optim.swa_utils.AveragedModel(objective).module,
        torch.load(saved, weights_only=False),
    ]
    images = images_for(objective)
    expected = objective(images, KEYS)
    for other in copies:
        assert type(other) is type(objective) and other.config == objective.config
        outcome = other(images, KEYS)
        assert torch.equal(outcome.loss, expected.loss) and torch.equal(outcome.hidden, expected.hidden)
        own, theirs = {p.data_ptr() for p in objective.parameters()}, {p.data_ptr() for p in other.parameters()}
        assert not own & theirs


def test_weights_that_were_given_stay_and_init_weights_draws_them_again(objective: Objective, tmp_path: Path):
    """An encoder was given weights by `from_timm`, by `load_state_dict`, or by an objective that was made of it."""
    given = copy.deepcopy(objective.encoder.model)
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    wrapped = type(objective.encoder).from_timm(given, **shown_by_no_model(objective.encoder))
    loaded = build(objective.encoder.config)
    assert (
        loaded.fresh and not wrapped.fresh and wrapped.config["init_args"].keys() == loaded.config["init_args"].keys()
    )
    loaded.model.load_state_dict(before)
    arguments = objective.init_args
    for encoder in (wrapped, loaded):
        again = type(objective)(**arguments | {"encoder": encoder})
        assert all(torch.equal(tensor, before[name]) for name, tensor in again.encoder.model.state_dict().items())
    again.init_weights()
    other = type(objective)(**arguments | {"encoder": again.encoder})
    for name, tensor in other.encoder.model.named_parameters():
        assert tensor.equal(again.encoder.model.get_parameter(name))
        assert name in UNCHANGED or not tensor.equal(before[name]), name


def shown_by_no_model(encoder: Encoder) -> dict[str, Any]:
    return {"img_size": list(encoder.image_size)} if isinstance(encoder, ConvNeXtV2) else {}


def test_init_weights_draws_what_the_constructor_drew(objective: Objective):
    other = copy.deepcopy(objective)
    torch.manual_seed(5)
    other.init_weights()
    torch.manual_seed(5)
    fresh = build(objective.config)
    for (name, one), (_, two) in zip(other.named_parameters(), fresh.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    assert all(torch.equal(one, two) for one, two in zip(other.buffers(), objective.buffers(), strict=True))


def test_a_sample_does_not_see_its_neighbors_in_the_batch(objective: Objective):
    images, whole = images_for(objective), objective(images_for(objective), KEYS)
    alone = objective(images[1:2], KEYS[1:2])
    assert torch.equal(alone.hidden, whole.hidden[1:2])
    torch.testing.assert_close(alone.prediction, whole.prediction[1:2], rtol=1e-4, atol=1e-5)


def rows(encoder: Encoder, features: torch.Tensor) -> torch.Tensor:
    """What timm puts out, row by row of the image."""
    if isinstance(encoder, ConvNeXtV2):
        return features.flatten(2).mT
    if isinstance(encoder, Hiera):
        return encoder.model.reroll(features, len(encoder.model.blocks) - 1).flatten(1, 2)
    return features.reshape(len(features), -1, encoder.dim)


def test_the_encoder_is_plain_timm(objective: Objective):
    encoder, images = objective.encoder, images_for(objective)
    with torch.no_grad():
        assert torch.equal(encoder(images), rows(encoder, encoder.model.forward_features(images)))


@pytest.mark.parametrize("objective", HIDING, ids="-".join, indirect=True)
def test_with_nothing_hidden_the_encoder_is_plain_timm(objective: Objective):
    encoder: Any = objective.encoder
    images = images_for(objective)
    with torch.no_grad():
        plain = encoder(images)
        nothing = torch.zeros(3, encoder.grid[0] * encoder.grid[1], dtype=torch.bool)
        if isinstance(encoder, ConvNeXtV2):
            torch.testing.assert_close(encoder.zero(images, nothing), plain, rtol=1e-4, atol=1e-5)
            return
        if isinstance(encoder, Hiera):
            places = encoder.places(nothing)[:, :, None].expand_as(plain)
            dropped = encoder.drop(images, nothing)[-1].flatten(1, 3)
            torch.testing.assert_close(dropped, plain.gather(1, places), rtol=1e-4, atol=1e-5)
            return
        filled = encoder.fill(images, nothing, torch.full((encoder.embed_dim,), 9.0))
        torch.testing.assert_close(filled, plain, rtol=1e-4, atol=1e-5)
        if isinstance(encoder, ViT):
            every = torch.arange(nothing.shape[1]).expand(3, -1)
            torch.testing.assert_close(encoder.drop(images, every), plain, rtol=1e-4, atol=1e-5)


def test_the_exported_encoder_is_plain_timms(objective: Objective, tmp_path: Any):
    channels = objective.encoder.channels
    data = PretrainData("shards", 2, mean=[0.5] * channels, std=[0.25] * channels)
    save_results(tmp_path, 7, objective, data)
    loaded = load_encoder(tmp_path)
    config, tensors = loaded.pretrained_cfg, loaded.model.state_dict()
    assert config.step == 7 and config.mean == [0.5] * channels
    assert tensors.keys() == load_file(tmp_path / "encoder.safetensors").keys()
    model: Any = timm.create_model(config.model, num_classes=0, **config.model_args)
    model.load_state_dict(tensors, strict=True)
    images = images_for(objective)
    with torch.no_grad():
        assert torch.equal(model.eval().forward_features(images), objective.encoder.model.forward_features(images))
    with torch.no_grad():
        assert torch.equal(loaded(images), objective.encoder(images))


def test_a_classifier_made_of_its_encoder_is_read_back(objective: Objective, tmp_path: Path):
    """What `finetune` builds and saves, `predict` and `compare` read."""
    encoder = objective.encoder
    statistics = [0.5] * encoder.channels
    save_results(tmp_path, 7, objective, PretrainData("shards", 2, mean=statistics, std=statistics))
    data = FinetuneData("train", 2, list(encoder.image_size))
    model, config = build_with_record(data, load_encoder(tmp_path), None, [*"abc"], 0.0)
    save_classifier(tmp_path, shaken(model), config)
    read = load_classifier(tmp_path)
    torch.testing.assert_close(read(images_for(objective)), model.eval()(images_for(objective)))


def test_the_last_layer_is_what_comes_out(objective: Objective):
    encoder, images = objective.encoder, images_for(objective)
    with torch.no_grad():
        layers = encoder.layers(images, range(1, encoder.depth + 1))
        assert len(layers) == encoder.depth and torch.equal(layers[-1], encoder(images))
        assert torch.equal(encoder.layers(images, [1])[0], layers[0])


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("deit_tiny_distilled_patch16_224", {}, "encoder.name"),
        ("test_convnext", {}, "encoder.name|encoder.model_args"),
        ("vit_tiny_r_s16_p8_224", {}, "encoder.name"),
        ("vit_tinny_patch16_224", {}, "encoder.name"),
        ("vit_tiny_patch16_224", {"img_size": 30, "patch_size": 8}, "encoder.img_size"),
        ("vit_tiny_patch16_224", {"img_size": 30}, "encoder.img_size"),
        ("vit_tiny_patch16_224", {"embed_dim": 50}, "encoder.model_args"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(name: str, arguments: dict[str, Any], key: str):
    with raises(*key.split("|")):  # by the version of timm
        ViT(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("vit_tiny_patch16_224", {}, "encoder.name"),
        ("swinn_tiny", {}, "encoder.name"),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 40, "embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
            "encoder.img_size",
        ),
        ("swin_tiny_patch4_window7_224", {"num_heads": [5, 5]}, "encoder.model_args"),
    ],
)
def test_a_swin_that_cannot_be_is_refused(name: str, arguments: dict[str, Any], key: str):
    with raises(key):
        Swin(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("convnext_tiny", CONVOLUTIONS, "encoder.name"),
        ("vit_tiny_patch16_224", {}, "encoder.name"),
        ("convnextv2_tinny", {}, "encoder.name"),
        ("convnextv2_atto", {"img_size": 48}, "encoder.img_size"),
        ("convnextv2_atto", {"output_stride": 4}, "encoder.model_args"),
    ],
)
def test_a_convnext_that_cannot_be_is_refused(name: str, arguments: dict[str, Any], key: str):
    with raises(key):
        ConvNeXtV2(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("vit_tiny_patch16_224", {}, "encoder.name"),
        ("beitt_base", {}, "encoder.name"),
        ("beit_base_patch16_224", {"img_size": 30, "patch_size": 8}, "encoder.img_size"),
    ],
)
def test_a_beit_that_cannot_be_is_refused(name: str, arguments: dict[str, Any], key: str):
    with raises(key):
        BEiTEncoder(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("vit_tiny_patch16_224", {"stages": [1, 1]}, "encoder.model_args"),
        ("hiera_tinny", {}, "encoder.name"),
        ("hiera_tiny_224", {"img_size": 80, **STAGES}, "encoder.img_size"),
        ("hiera_tiny_224", {"q_pool": 4}, "encoder.model_args"),
    ],
)
def test_a_hiera_that_cannot_be_is_refused(name: str, arguments: dict[str, Any], key: str):
    with raises(key):
        Hiera(name, **arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.99, -0.5])
def test_a_ratio_that_leaves_nothing_is_refused(name: str, ratio: float, tmp_path: Path):
    with raises("objective.mask_ratio"):
        make(name, tmp_path, encoders_of(name)[0], mask_ratio=ratio)
