"""Distances, rollout and attention of maps whose results are known."""
# Also tests plots/encoder.py.

import math

import pytest
import torch

from mae_kit.plots.attention import attention_distance, attention_to, rollout

GRID, PATCH = (3, 4), (8, 16)
N = 12


def one(pattern: torch.Tensor, prefix: int = 1) -> torch.Tensor:
    """A map [1 1 1 t t] of patches as given, whose prefix tokens look at themselves."""
    whole = torch.eye(prefix + N)
    whole[prefix:, prefix:] = pattern
    return whole[None, None, None]


def distance(maps: torch.Tensor) -> float:
    return float(attention_distance(maps, GRID, PATCH))


def test_looking_everywhere_alike_is_the_mean_distance_between_two_patches():
    places = [(8 * row, 16 * column) for row in range(3) for column in range(4)]
    wanted = sum(math.dist(a, b) for a in places for b in places) / N**2
    assert distance(one(torch.full((N, N), 1 / N))) == pytest.approx(wanted)


def test_looking_at_itself_is_no_distance():
    assert distance(one(torch.eye(N))) == 0


@pytest.mark.parametrize(("swap", "pixels"), [((0, 1), 16), ((0, 4), 8)], ids=["beside", "below"])
def test_looking_at_the_neighbor_is_the_size_of_a_patch(swap: tuple[int, int], pixels: int):
    """Two patches look at each other, the other ten at themselves."""
    pattern = torch.eye(N)
    pattern[list(swap)] = pattern[list(reversed(swap))]
    assert distance(one(pattern)) == pytest.approx(2 * pixels / N)


def test_what_goes_to_prefix_tokens_is_left_out():
    pattern = torch.rand(N, N).softmax(dim=1)
    alone, most_to_prefix = one(pattern, prefix=5), one(pattern / 10, prefix=5)
    most_to_prefix[..., 5:, 2] = 0.9
    assert distance(most_to_prefix) == pytest.approx(distance(alone)) == pytest.approx(distance(one(pattern)))


def test_each_head_of_each_layer_has_its_own_distance_over_the_images():
    near, far = one(torch.eye(N)), one(torch.full((N, N), 1 / N))
    layers = torch.cat([torch.cat([near, far], dim=2), torch.cat([far, far], dim=2)], dim=1)
    maps = torch.cat([layers, torch.cat([near.expand(-1, 2, 2, -1, -1)])])
    whole = distance(far)
    wanted = torch.tensor([[0, whole / 2], [whole / 2, whole / 2]])
    torch.testing.assert_close(attention_distance(maps, GRID, PATCH), wanted)


def test_rollout_of_identities_is_the_identity():
    assert torch.equal(rollout(torch.eye(7).expand(2, 3, 4, 7, 7)), torch.eye(7).expand(2, 7, 7))


def test_rollout_of_uniform_attention():
    """((I + U) / 2) ** l = I / 2 ** l + (1 - 1 / 2 ** l) U, since U U = U."""
    uniform = torch.full((7, 7), 1 / 7)
    rolled = rollout(uniform.expand(1, 3, 2, 7, 7))[0]
    torch.testing.assert_close(rolled, torch.eye(7) / 8 + uniform * 7 / 8)


def test_rollout_goes_from_the_first_layer_to_the_last():
    """What token 1 takes from 2 in the first layer, token 0 takes from 1 in the second; not the other way round."""
    first, second = torch.eye(3), torch.eye(3)
    first[1], second[0] = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 1, 0])
    assert rollout(torch.stack([first, second])[None, :, None])[0, 0].tolist() == [0.5, 0.25, 0.25]
    assert rollout(torch.stack([second, first])[None, :, None])[0, 0].tolist() == [0.5, 0.5, 0]


def test_rollout_gives_shares():
    rolled = rollout(torch.randn(2, 4, 3, 9, 9).softmax(dim=-1))
    torch.testing.assert_close(rolled.sum(dim=-1), torch.ones(2, 9))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_the_attention_of_a_patch(prefix: int):
    maps = torch.zeros(2, 3, prefix + N, prefix + N)
    maps[:, :, prefix + 6, prefix + 9] = 1
    seen = attention_to(maps, GRID, patch=6)
    assert seen.shape == (2, 3, *GRID) and seen.sum() == 6 and (seen[..., 2, 1] == 1).all()
