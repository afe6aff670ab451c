"""The same images with more and more hidden."""

import itertools

import torch
from support.untrained_run import MEAN, STD, make_mae

from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders.patches import patchify
from mae_kit.plots.ratios import over_ratios


@torch.no_grad()
def test_more_and_more_is_hidden_and_the_rest_is_shown_as_it_is():
    mae, normalize = make_mae(), Normalize(MEAN, STD)
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    found = over_ratios(mae, normalize, images, torch.tensor([5, 6, 7]))
    counts = [at.hidden.sum(dim=1).tolist() for at in found]
    assert counts == [[n] * 3 for n in (2, 4, 8, 12, 14, 15)], "rounded up; of 16 patches 95% would be all"
    for less, more in itertools.pairwise(found):
        assert (more.hidden | ~less.hidden).all(), "what is hidden stays hidden"
    for at in found:
        true, seen, pasted = (patchify(each.float(), (8, 8)) for each in (images, at.seen, at.pasted))
        assert torch.equal(seen[~at.hidden], true[~at.hidden]) and torch.equal(pasted[~at.hidden], true[~at.hidden])
        assert (seen[at.hidden] == 128).all() and not torch.equal(pasted[at.hidden], true[at.hidden])
        torch.testing.assert_close(torch.tensor(at.loss), mae.compare(normalize(images), at.hidden).loss)
