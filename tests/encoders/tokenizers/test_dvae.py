"""The discrete VAE: codes for images and back, the bound it is trained on, and the file it is kept in."""
# Also tests encoders/tokenizers/tokenizer_file.py.

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from support.errors import raises
from support.tiny_models import save_tokenizer, tiny_tokenizer

from mae_kit.encoders.tokenizers import DVAE, load_tokenizer
from mae_kit.encoders.tokenizers.dvae import FINEST, MARGIN, _draw, _negative_log_likelihood

COLORS = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("stride", "channels"), [(4, 3), (8, 1), (1, 3)])
def test_a_code_a_patch_and_an_image_of_the_same_size(stride: int, channels: int):
    tokenizer = tiny_tokenizer(stride=stride, in_chans=channels)
    colors = COLORS[:, :channels]
    codes = tokenizer.encode(colors)
    grid = 16 // stride, 24 // stride
    assert tokenizer.grid_of(colors) == grid and codes.shape == (2, math.prod(grid))
    assert codes.min() >= 0 and codes.max() < 20 and len(codes.unique()) > 1
    decoded = tokenizer.decode(codes, grid)
    assert decoded.shape == colors.shape and decoded.min() >= 0 and decoded.max() <= 1


def test_codes_are_looked_up_as_the_decoder_would_multiply_them():
    tokenizer = tiny_tokenizer()
    codes = tokenizer.encode(COLORS)
    one_hot = torch.nn.functional.one_hot(codes.unflatten(1, (4, 6)), 20).movedim(3, 1).float()
    mean = tokenizer.decoder(one_hot)[:, :3]
    expected = ((mean.sigmoid() - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(codes, (4, 6)), expected)


def test_published_sizes():
    with torch.device("meta"):
        published = DVAE()
    sizes = [sum(p.numel() for p in part.parameters()) for part in (published.encoder, published.decoder)]
    assert sizes == [53_786_240, 43_829_766], "as DALL-E's encoder.pkl and decoder.pkl, by their layout"


def test_the_likelihood_is_a_density():
    values = torch.linspace(0.0005, 0.9995, 1000)[None, None, None]
    for mean, log_scale in ((0.0, 0.0), (1.0, -1.0), (-0.5, 0.5)):
        error = _negative_log_likelihood(values, torch.full_like(values, mean), torch.full_like(values, log_scale))
        assert float((-error).exp().mean()) == pytest.approx(1, abs=0.02)


def test_the_divergence_is_from_the_uniform_distribution():
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        last = tokenizer.encoder[-1]
        last.weight.zero_()
        last.bias.zero_()
        even = tokenizer(COLORS, 1.0)
        assert [float(even.divergence), float(even.imbalance)] == pytest.approx([0, 0], abs=1e-5)
        last.bias[3] = 100
        one = tokenizer(COLORS, 1.0)
    assert [float(one.divergence), float(one.imbalance)] == pytest.approx([math.log(20)] * 2, abs=1e-4)


def test_a_code_that_is_out_of_the_question_leaves_a_gradient():
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        tokenizer.encoder[-1].bias[3] = -1000  # its share is 0 in fp32, in each patch and in their mean
    evidence = tokenizer(COLORS, 1.0, hard=True)
    (evidence.error + evidence.divergence + evidence.imbalance).backward()
    assert all(weights.grad.isfinite().all() for weights in tokenizer.parameters())


def test_sure_but_different_codes_are_in_balance():
    tokenizer = tiny_tokenizer(codes=2, stride=1)
    tokenizer.encoder = last = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        last.weight.copy_(torch.tensor([500.0, -500.0])[:, None, None, None].expand(2, 3, 1, 1))
        last.get_parameter("bias").copy_(torch.tensor([-750.0, 750.0]))  # above or below the middle gray, .5
        evidence = tokenizer(COLORS, 1.0)
    assert evidence.divergence > 0.6 and evidence.imbalance < 0.05


def test_hard_codes_are_what_the_decoder_sees():
    tokenizer, seen = tiny_tokenizer(), []
    tokenizer.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for hard in (False, True):
        tokenizer(COLORS, 1.0, hard).error.backward()
        assert tokenizer.encoder[0].weight.grad.any()
    soft, sharp = (drawn.amax(dim=1) for drawn in seen)
    assert soft.min() < 0.9 and torch.allclose(sharp, torch.ones_like(sharp))


@pytest.mark.parametrize("hard", [False, True])
def test_codes_are_drawn_as_torch_draws_them_and_without_noise_the_best_is_taken(hard: bool):
    logits = torch.randn(2, 20, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weights = torch.randn(2, 20, 3, 4, generator=torch.Generator().manual_seed(1))
    found = []
    for draw in (lambda: _draw(logits, 0.7, hard, 1.0), lambda: F.gumbel_softmax(logits, 0.7, hard=hard, dim=1)):
        torch.manual_seed(3)
        drawn = draw()
        found.append((drawn, *torch.autograd.grad((drawn * weights).sum(), logits)))
    torch.testing.assert_close(found[0], found[1])
    assert torch.equal(_draw(logits, 0.7, hard, 0.0).argmax(dim=1), logits.argmax(dim=1))
    assert not torch.equal(found[0][0].argmax(dim=1), logits.argmax(dim=1))


@pytest.mark.slow
def test_it_learns_two_colors_by_heart():
    torch.manual_seed(0)
    tokenizer = DVAE(codes=4, stride=2, width=8, blocks=1, code_dim=8)
    colors = torch.tensor([0.1, 0.9]).repeat(8)[torch.randperm(16)].reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    images = colors.repeat_interleave(2, 2).repeat_interleave(2, 3)
    optimizer = torch.optim.Adam(tokenizer.parameters(), 5e-3)
    for step in range(300):
        optimizer.zero_grad()
        evidence = tokenizer(images, max(0.1, 1 - step / 200))
        evidence.error.backward()
        optimizer.step()
    codes = tokenizer.encode(images)
    assert len(codes.unique()) >= 2 and evidence.error < FINEST / 4
    with torch.no_grad():
        assert (tokenizer.decode(codes, (4, 4)) - images).abs().mean() < 0.1


def test_a_file_is_read_frozen(tmp_path: Path):
    tokenizer, frozen = tiny_tokenizer(), load_tokenizer(save_tokenizer(tmp_path))
    assert torch.equal(frozen.encode(COLORS), tokenizer.encode(COLORS))
    assert not list(frozen.parameters()) and not frozen.state_dict()
    torch.rand(1)
    state = torch.get_rng_state()
    load_tokenizer(tmp_path / "tokenizer.safetensors")
    assert torch.equal(torch.get_rng_state(), state), "reading draws nothing: the encoder's weights do not depend on it"


@pytest.mark.parametrize(
    ("write", "key"),
    [
        (lambda file: None, "tokenizer.missing"),
        (lambda file: file.write_text("no"), "tokenizer.damaged"),
        (lambda file: save_file({"a": torch.zeros(1)}, file), "tokenizer.kind"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, write: Any, key: str):
    write(tmp_path / "tokenizer.safetensors")
    with raises(key):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"stride": 6}, "tokenizer.stride"), ({"codes": 1}, "tokenizer.codes"), ({"width": 2}, "tokenizer.codes")],
)
def test_a_tokenizer_that_cannot_be_is_refused(changed: dict[str, int], key: str):
    with raises(key):
        DVAE(**changed)  # type: ignore[arg-type]


def test_an_image_that_does_not_fit_is_refused():
    with raises("encoder.img_size"):
        tiny_tokenizer().grid_of(torch.zeros(1, 3, 18, 16))
