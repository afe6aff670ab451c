"""BEiT against transformers' model with the same weights, masks and codes; its tokenizer, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.errors import raises
from support.tiny_models import save_tokenizer, shaken
from support.training_steps import ten_losses
from torch import Tensor

from mae_kit.commands.pretrain import PretrainData, save_results
from mae_kit.encoders import BEiTEncoder, ViT
from mae_kit.encoders.tokenizers import load_tokenizer
from mae_kit.objectives import BEiT
from mae_kit.objectives.masking import blockwise_mask
from mae_kit.tasks.classifier import build_classifier
from mae_kit.training.modules import PretrainModule
from mae_kit.weights.recognize import load_encoder

SIZES: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
KEYS = torch.tensor([3, 5])


def plain_colors(objective: BEiT) -> BEiT:
    """Of images in 0..1, not normalized."""
    objective.set_statistics([0.0] * objective.encoder.channels, [1.0] * objective.encoder.channels)
    return objective


def make(folder: Path, **changed: Any) -> BEiT:
    torch.manual_seed(0)
    encoder = BEiTEncoder(img_size=32, patch_size=8, **SIZES)
    return plain_colors(
        BEiT(encoder, str(save_tokenizer(folder)), **({"mask_ratio": 0.4, "smallest_block": 2} | changed))
    )


NAMES = [
    ("encoder.model.norm.", "layernorm."),
    ("encoder.model.blocks.", "beit.layers."),
    ("encoder.model.cls_token", "beit.embeddings.cls_token"),
    ("encoder.model.patch_embed.proj", "beit.embeddings.patch_embeddings.projection"),
    ("attn.proj", "attention.o_proj"),
    ("attn.q_bias", "attention.q_proj.bias"),
    ("attn.v_bias", "attention.v_proj.bias"),
    ("attn.qkv", "attention.{}_proj"),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("gamma_", "lambda_"),
    ("head.", "lm_head."),
]


def their_names(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Transformers keeps the shared table once, and the thirds of qkv apart."""
    tensors = {"beit.embeddings.mask_token": ours["mask_token"]}
    for name, tensor in ours.items():
        if "relative_position" in name:
            tensors["beit.shared_position_bias.relative_position_bias_table"] = tensor
        elif name not in ("mask_token", "codes_of"):
            for mine, other in NAMES:
                name = name.replace(mine, other)
            parts = zip("qkv", tensor.chunk(3), strict=True) if "{}" in name else [("", tensor)]
            tensors |= {name.format(part): piece for part, piece in parts}
    return tensors


@pytest.mark.slow
def test_it_is_that_of_transformers(tmp_path: Path):
    from transformers import BeitConfig, BeitForMaskedImageModeling

    objective = shaken(make(tmp_path))
    hidden, codes = blockwise_mask(KEYS, (4, 4), 6, 2), objective.codes(IMAGES)
    sizes: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    shared: dict[str, Any] = {
        "use_shared_relative_position_bias": True,
        "use_mask_token": True,
        "use_mean_pooling": False,
    }
    config = BeitConfig(
        image_size=32, patch_size=8, intermediate_size=192, vocab_size=20, layer_norm_eps=1e-6, **sizes, **shared
    )
    theirs: Any = BeitForMaskedImageModeling(config).eval()
    missing, unexpected = theirs.load_state_dict(their_names(objective.state_dict()), strict=False)
    assert not unexpected and missing == ["beit.layernorm.weight", "beit.layernorm.bias"], missing
    theirs.beit.layernorm = torch.nn.Identity()  # one norm too many: the original has the last one alone
    expected = theirs(IMAGES, bool_masked_pos=hidden)
    torch.testing.assert_close(
        objective.compare_codes(IMAGES, hidden, codes).prediction, expected.logits, rtol=1e-4, atol=1e-5
    )
    optimizers = [torch.optim.SGD(model.parameters(), 0.05) for model in (objective, theirs)]
    for step in range(10):  # so that gradients are compared, that of the shared table too
        hidden = blockwise_mask(KEYS + 2 * step, (4, 4), 6, 2)
        ours = objective.compare_codes(IMAGES, hidden, codes).loss
        expected = theirs(IMAGES, bool_masked_pos=hidden, labels=codes[hidden]).loss
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=0)
        for optimizer, loss in zip(optimizers, (ours, expected), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    table = theirs.beit.shared_position_bias.relative_position_bias_table
    torch.testing.assert_close(
        objective.encoder.model.blocks[1].attn.relative_position_bias_table, table, rtol=1e-3, atol=1e-5
    )


def test_ten_training_steps(tmp_path: Path):
    """The losses of this implementation, whose arithmetic is transformers': a change is seen here."""
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    golden = [3.00807, 2.62691, 2.41753, 2.29779, 2.12076, 1.93114, 1.76345, 1.66032, 1.54816, 1.42835]
    assert ten_losses(make(tmp_path), images, (0.9, 0.98)) == pytest.approx(golden, rel=1e-3)


def test_codes_are_the_tokenizers_of_the_same_crop_at_its_own_size(tmp_path: Path):
    objective = make(tmp_path)
    objective.set_statistics([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    colors = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    large = F.interpolate(colors, scale_factor=2.0)  # so that shrinking gives what it came from, but for the filter
    codes = objective.codes(objective.normalize(large))
    view = F.interpolate(large, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(codes, load_tokenizer(tmp_path).encode(view)) and len(codes.unique()) > 3
    assert not torch.equal(codes, load_tokenizer(tmp_path).encode(view * 0.5)), "colors count"
    same = plain_colors(BEiT(ViT("vit_tiny_patch16_224", 16, 4, **SIZES), str(tmp_path), smallest_block=2))
    assert torch.equal(same.codes(colors), load_tokenizer(tmp_path).encode(colors)), "no resize where none is needed"


def test_a_prediction_looks_like_the_image_that_its_codes_stand_for(tmp_path: Path):
    objective = make(tmp_path)
    objective.set_statistics([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    codes = objective.codes(IMAGES)
    pixels = objective.colors(objective.pixels(F.one_hot(codes, 20).float(), IMAGES))
    torch.testing.assert_close(objective.colors(objective.target_pixels(IMAGES)), pixels)
    decoded = objective.tokenizer.decode(codes, (4, 4))
    assert pixels.shape == IMAGES.shape and decoded.shape == (2, 3, 16, 16)
    torch.testing.assert_close(F.avg_pool2d(pixels, 2), decoded, atol=0.15, rtol=0)


def test_the_tokenizer_neither_learns_nor_is_saved_twice(tmp_path: Path):
    objective = make(tmp_path)
    before = {name: tensor.clone() for name, tensor in objective.tokenizer.named_buffers()}
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-2)
    objective(IMAGES, KEYS).loss.backward()
    optimizer.step()
    assert before and all(torch.equal(before[name], tensor) for name, tensor in objective.tokenizer.named_buffers())
    assert not any("tokenizer" in name for name in [*objective.state_dict(), *dict(objective.named_parameters())])


def test_weights_are_refused_with_another_tokenizer_than_their_own(tmp_path: Path):
    """It may have been trained anew in the same place."""
    first = make(tmp_path)
    make(tmp_path).load_state_dict(first.state_dict())
    save_tokenizer(tmp_path, code_dim=4)
    other = BEiT(BEiTEncoder(img_size=32, patch_size=8, **SIZES), str(tmp_path), smallest_block=2)
    with raises("objective.tokenizer"):
        other.load_state_dict(first.state_dict())


def test_all_blocks_share_their_relative_positions(tmp_path: Path):
    encoder: Any = make(tmp_path).encoder
    tables = [block.attn.relative_position_bias_table for block in encoder.model.blocks]
    assert tables[0] is tables[1]
    tensors = encoder.state_dict()
    copies = [tensor for name, tensor in tensors.items() if "relative" in name]
    assert len(copies) == 2 and torch.equal(*copies) and copies[0].data_ptr() != copies[1].data_ptr()
    copies[1].add_(1)
    with raises("encoder.relative_positions"):
        encoder.load_state_dict(tensors)


def test_fine_tuning_pools_the_patches_and_moves_the_positions_of_the_blocks_apart(tmp_path: Path):
    objective: Any = shaken(make(tmp_path))
    save_results(tmp_path, 7, objective, PretrainData("shards", 2, mean=[0.5] * 3, std=[0.25] * 3))
    classifier = build_classifier(None, 4, load_encoder(tmp_path), 0.1, (32, 32))
    model: Any = classifier.model.eval()
    tables = [block.attn.relative_position_bias_table for block in model.blocks]
    assert tables[0] is not tables[1] and torch.equal(*tables) and tables[0].any()
    assert classifier.fresh == ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"]
    assert classifier.dropped == ["norm.bias", "norm.weight"]
    with torch.no_grad():
        objective.encoder.model.norm = torch.nn.Identity()
        torch.testing.assert_close(model.forward_features(IMAGES), objective.encoder(IMAGES))
        pooled = model.fc_norm(objective.encoder(IMAGES)[:, 1:].mean(dim=1))
        torch.testing.assert_close(model.forward_head(model.forward_features(IMAGES), pre_logits=True), pooled)


def test_it_starts_as_the_original_does(tmp_path: Path):
    objective: Any = make(tmp_path)
    first, second = objective.encoder.model.blocks
    for layer, scale in ((first.mlp.fc1, 1), (first.mlp.fc2, 2**0.5), (second.mlp.fc2, 2)):
        weight = layer.weight.detach()
        assert float(weight.abs().max()) <= 0.02 / scale and float(weight.std()) == pytest.approx(
            0.0108 / scale, rel=0.1
        )
    assert torch.equal(first.gamma_1, torch.full((48,), 0.1)) and not first.attn.relative_position_bias_table.any()
    assert objective.encoder.model.patch_embed.proj.weight.abs().max() <= 0.02


@pytest.mark.slow
def test_it_learns_codes_by_heart(tmp_path: Path):
    objective = make(tmp_path)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)).expand(8, -1, -1, -1)
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-2)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        loss = objective(image, torch.arange(8) + 8 * step).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"smallest_block": 7}, "objective.blocks"),
        ({"smallest_block": 0}, "objective.blocks"),
        ({"mask_ratio": 0.9, "smallest_block": 10}, "objective.blocks"),
    ],
)
def test_blocks_that_cannot_be_are_refused(tmp_path: Path, changed: dict[str, Any], key: str):
    with raises(key):
        make(tmp_path, **changed)


def test_a_batch_of_which_nothing_is_hidden_teaches_nothing(tmp_path: Path):
    objective = make(tmp_path)
    outcome = objective.compare(IMAGES, torch.zeros(2, 16, dtype=torch.bool))
    assert outcome.loss == 0 and outcome.logs["accuracy"] == 0
    outcome.loss.backward()
    assert objective.head.weight.grad is not None and not objective.head.weight.grad.any()


@pytest.mark.parametrize("kind", [BEiTEncoder, ViT])
def test_the_mask_token_decays_and_class_token_and_positions_do_not(tmp_path: Path, kind: Any):
    objective = plain_colors(
        BEiT(kind(img_size=32, patch_size=8, **SIZES), str(save_tokenizer(tmp_path)), smallest_block=2)
    )
    module = PretrainModule(objective, lr=1.0)
    names = {parameter: name for name, parameter in objective.named_parameters()}
    decay = {names[p]: group["weight_decay"] for group in module.groups() for p in group["params"]}
    assert decay["mask_token"] == decay["head.weight"] == 0.05
    assert decay["encoder.model.cls_token"] == decay["head.bias"] == decay.get("encoder.model.pos_embed", 0) == 0


def test_a_tokenizer_of_other_images_is_refused(tmp_path: Path):
    encoder = BEiTEncoder(img_size=32, patch_size=8, in_chans=1, **SIZES)
    with raises("objective.tokenizer"):
        BEiT(encoder, str(save_tokenizer(tmp_path)), smallest_block=2)
