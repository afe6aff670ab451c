"""CrossMAE: the outcome of a second implementation, and which patches a training step predicts."""

import math
from typing import Any

import pytest
import torch
from support.errors import raises
from torch import Tensor
from torch.nn import functional as F

from mae_kit import CrossMAE, ViT
from mae_kit.encoders.patches import patchify
from mae_kit.objectives.targets import normalize_patches

SEEDS = torch.tensor([5, -7, 2**50, 0])


def tiny(prediction_ratio: float = 0.25) -> CrossMAE:
    torch.manual_seed(0)
    vit = ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    mae = CrossMAE(vit, prediction_ratio=prediction_ratio, decoder_dim=32, decoder_depth=3, decoder_heads=2)
    for parameter in mae.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return mae


def by_hand(mae: CrossMAE, image: Tensor, visible: list[int], patch: int) -> Tensor:
    """The prediction of one patch of one image, head by head."""
    decoder: Any = mae.decoder
    model: Any = mae.encoder.model
    tokens = model.patch_embed(image[None])[0] + model.pos_embed[0, 1:]
    x = torch.cat([model.cls_token[0] + model.pos_embed[0, :1], tokens[visible]])[None]
    layers = [x]
    for block in model.blocks:
        layers.append(block(layers[-1]))
    x = decoder.mask_token[0, 0] + decoder.pos_embed[0, patch]
    for i, block in enumerate(decoder.blocks):
        mixed = decoder.mixed_norms[i](sum(decoder.mix.weight[i, j] * layer[0] for j, layer in enumerate(layers)))
        q, (k, v) = block.q(block.norm1(x)), block.kv(mixed).split(32, dim=1)
        heads = [slice(0, 16), slice(16, 32)]
        attended = [(k[:, h] @ q[h] / math.sqrt(16)).softmax(0) @ v[:, h] for h in heads]
        x = x + block.proj(torch.cat(attended))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
    return decoder.pred(decoder.norm(x))


@pytest.mark.parametrize("fused", [False, True])
def test_a_prediction_is_that_of_a_loop_over_heads(fused: bool):
    images, mae = torch.randn(4, 3, 32, 32), tiny().eval()
    blocks: Any = mae.decoder.blocks
    for block in blocks:
        block.fused_attn = fused
    with torch.no_grad():
        outcome = mae(images, SEEDS)
        visible = (~outcome.hidden[1]).nonzero().flatten().tolist()
        for patch in outcome.hidden[1].nonzero().flatten().tolist():
            expected = by_hand(mae, images[1], visible, patch)
            torch.testing.assert_close(outcome.prediction[1, patch], expected, rtol=1e-4, atol=1e-5)
    target = normalize_patches(patchify(images, (8, 8)))
    errors = (outcome.prediction - target).square()[outcome.hidden]
    torch.testing.assert_close(outcome.loss, errors.mean())


def test_a_training_step_predicts_some_hidden_patches_as_it_would_predict_all():
    images, mae = torch.randn(4, 3, 32, 32), tiny()
    whole, some = mae.eval()(images, SEEDS), mae.train()(images, SEEDS)
    predicted = some.prediction.any(dim=2)
    assert torch.equal(some.hidden, whole.hidden)
    assert predicted.sum(dim=1).tolist() == [4] * 4 and not (predicted & ~some.hidden).any()
    torch.testing.assert_close(some.prediction[predicted], whole.prediction[predicted])
    target = normalize_patches(patchify(images, (8, 8)))
    torch.testing.assert_close(some.loss, (some.prediction - target).square()[predicted].mean())


def test_which_patches_are_predicted_is_a_function_of_the_seed():
    images, mae = torch.randn(4, 3, 32, 32), tiny().train()
    first, again = mae(images, SEEDS), mae(images[2:], SEEDS[2:])
    assert torch.equal(first.prediction.any(dim=2)[2:], again.prediction.any(dim=2))
    counts = torch.zeros(16)
    many = torch.arange(3000)
    outcome = mae(torch.randn(1, 3, 32, 32).expand(3000, -1, -1, -1), many)
    counts = outcome.prediction.any(dim=2).float().mean(dim=0)
    torch.testing.assert_close(counts, torch.full((16,), 0.25), rtol=0, atol=0.04)  # five standard deviations


def test_all_hidden_patches_may_be_predicted():
    images, mae = torch.randn(4, 3, 32, 32), tiny(prediction_ratio=0.75)
    assert torch.equal(mae.train()(images, SEEDS).loss, mae.eval()(images, SEEDS).loss)


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.8, -0.25])
def test_a_ratio_that_predicts_none_or_more_than_are_hidden_is_refused(ratio: float):
    with raises("objective.prediction_ratio"):
        tiny(ratio)
