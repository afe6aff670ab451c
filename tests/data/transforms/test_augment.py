"""Augmentations: keyed flips, timm's operations, timm's mixing, and what they refuse."""
# Also tests data/transforms/mixing.py, data/transforms/warp.py.

import warnings
from typing import Any

import numpy as np
import pytest
import timm.data.auto_augment as reference
import torch
from PIL import Image, ImageFilter
from support.errors import raises
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target

from mae_kit.data.transforms.augment import COLOR, ColorJitter, FinetuneAugment, Normalize, PretrainAugment, RandAugment
from mae_kit.data.transforms.mixing import Mixing, _paste_box, soft_sets, soft_targets
from mae_kit.data.transforms.warp import GEOMETRY

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PLAIN: dict[str, Any] = dict(flip=False, randaugment=None, erasing=0.0, mixup=0.0, cutmix=0.0, smoothing=0.0)


def images_of(channels: int = 3, count: int = 8, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)


def smooth_images(count: int = 2) -> torch.Tensor:
    """Soft colors, as photos have: interpolation of noise would test rounding only."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 10, 15, 3), dtype=np.uint8)
    pictures = [Image.fromarray(n).resize((60, 40), 3).filter(ImageFilter.GaussianBlur(2)) for n in noise]
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_normalize(channels: int):
    images = images_of(channels)
    mean, std = torch.rand(channels), torch.rand(channels) + 0.1
    expected = (images / 255 - mean[:, None, None]) / std[:, None, None]
    before = images.clone()
    torch.testing.assert_close(Normalize(mean.tolist(), std.tolist())(images), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(images, before)


def test_pretraining_flips_are_a_function_of_the_key():
    images, keys = images_of(count=64), torch.arange(64) * 7919
    augment = PretrainAugment(MEAN, STD)
    out, plain = augment(images, keys), augment.normalize(images)
    flipped = torch.tensor([torch.equal(o, p.flip(-1)) for o, p in zip(out, plain, strict=True)])
    kept = torch.tensor([torch.equal(o, p) for o, p in zip(out, plain, strict=True)])
    assert torch.equal(flipped, ~kept) and 15 < int(flipped.sum()) < 49
    order = torch.randperm(64)
    assert torch.equal(augment(images[order], keys[order]), out[order])


def test_pretraining_leaves_images_as_they_are_where_sides_matter():
    images, keys = images_of(count=16), torch.arange(16)
    augment = PretrainAugment(MEAN, STD, flip=False)
    assert torch.equal(augment(images, keys), augment.normalize(images))


def test_all_stages_off_only_normalize():
    images, labels = images_of(), torch.arange(8) % 3
    out, targets = FinetuneAugment(MEAN, STD, 3, **PLAIN)(images, labels)
    assert torch.equal(out, Normalize(MEAN, STD)(images))
    assert torch.equal(targets, torch.nn.functional.one_hot(labels, 3).float())


def test_everything_on_is_reproducible_and_silent():
    images, labels = images_of(count=32), torch.arange(32) % 5
    augment = FinetuneAugment(MEAN, STD, 5, color_jitter=0.4)
    before, outputs = images.clone(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outputs.append(augment(images, labels))
    assert torch.equal(outputs[0][0], outputs[1][0]) and torch.equal(outputs[0][1], outputs[1][1])
    assert not torch.equal(outputs[0][0], outputs[2][0])
    assert torch.equal(images, before) and outputs[0][0].isfinite().all()
    torch.testing.assert_close(outputs[0][1].sum(1), torch.ones(32))
    assert not list(augment.state_dict()), "nothing of it belongs in a checkpoint"


def test_autocast_changes_nothing():
    images, labels, keys = images_of(count=16, height=96, width=96), torch.arange(16) % 5, torch.arange(16)
    tuning, training = FinetuneAugment(MEAN, STD, 5, color_jitter=0.4), PretrainAugment(MEAN, STD, color_jitter=0.4)
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append((*tuning(images, labels), training(images, keys)))
    for plain, cast in zip(*found, strict=True):
        assert torch.equal(plain, cast)


def test_a_channel_without_spread_is_refused():
    with raises("data.std"):
        Normalize([0.5, 0.5], [0.2, 0.0])


@pytest.mark.parametrize("channels", [1, 13])
def test_other_channel_counts(channels: int):
    mean = [0.5] * channels
    out, _ = FinetuneAugment(mean, mean, 4, randaugment=None)(images_of(channels), torch.arange(8) % 4)
    assert out.shape == (8, channels, 12, 16)
    with raises("randaugment"):
        FinetuneAugment(mean, mean, 4)
    with raises("color_jitter"):
        FinetuneAugment(mean, mean, 4, randaugment=None, color_jitter=0.4)


def test_erasing_puts_noise_in_one_box_of_some_images():
    augment = FinetuneAugment(MEAN, STD, 2, **{**PLAIN, "erasing": 0.25})
    torch.manual_seed(0)
    images = torch.full((400, 3, 32, 32), 100, dtype=torch.uint8)
    out, _ = augment(images, torch.zeros(400, dtype=torch.int64))
    changed = (out != augment.normalize(images)).any(1)
    hit = changed.flatten(1).any(1)
    assert 70 < int(hit.sum()) < 130
    rows, columns = changed[hit].any(2).sum(1), changed[hit].any(1).sum(1)
    assert torch.equal(changed[hit].sum((1, 2)), rows * columns)
    assert 0.01 < float(changed[hit].float().mean()) < 0.34
    longer = (rows > columns).float().mean()
    assert 0.4 < float(longer) < 0.6, "tall boxes are as frequent as wide ones"
    noise = out.permute(0, 2, 3, 1)[changed]
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("place", range(len(COLOR) + len(GEOMETRY)))
def test_operations_equal_timms(place: int, negative: bool, monkeypatch: pytest.MonkeyPatch):
    name = [*COLOR, *GEOMETRY][place]
    monkeypatch.setattr(reference.random, "random", lambda: 0.9 if negative else 0.1)
    fill = tuple(round(255 * m) for m in MEAN)
    operation = reference.AugmentOp(
        name, prob=1.0, magnitude=9, hparams={"img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
    )
    images, count = smooth_images(), 2
    expected = [np.asarray(operation(Image.fromarray(i.permute(1, 2, 0).numpy()))) for i in images]
    ours = images.float() / 255
    where = torch.full((count,), place)
    RandAugment(9.0, MEAN).apply_operations(ours, where, torch.full((count,), 0.9), torch.full((count,), negative))
    difference = (ours.permute(0, 2, 3, 1) * 255 - torch.from_numpy(np.stack(expected))).abs()
    assert float(difference.quantile(0.97)) <= 2.0, name
    changed = (ours * 255 - images).abs().max() > 3
    assert changed or name == "AutoContrast"


def test_randaugment_leaves_a_quarter_alone_and_stays_in_range():
    torch.manual_seed(0)
    images = (smooth_images(1).float() / 255).repeat(400, 1, 1, 1)
    out = RandAugment(9.0, MEAN)(images.clone())
    same = (out == images).flatten(1).all(1).float().mean()
    assert 0.2 < float(same) < 0.35
    assert float(out.min()) > -1e-5 and float(out.max()) < 1 + 1e-5


def test_blank_images_stay_finite():
    blank = torch.full((15, 3, 8, 8), 0.25)
    RandAugment(9.0, MEAN).apply_operations(blank, torch.arange(15), torch.full((15,), 0.9), torch.zeros(15).bool())
    assert blank.isfinite().all()


def test_soft_targets_are_timms():
    labels = torch.tensor([0, 2, 1, 2])
    expected = mixup_target(labels, 3, lam=0.3, smoothing=0.1)
    ours = soft_targets(labels, 3, 0.1)
    torch.testing.assert_close(ours * 0.3 + ours.flip(0) * 0.7, expected)


def test_soft_sets_keep_what_divides_yes_from_no_and_mix_like_any_target():
    labels = torch.tensor([[True, False, True], [False, False, False]])
    soft = soft_sets(labels, 0.1)
    torch.testing.assert_close(soft, torch.tensor([[0.95, 0.05, 0.95], [0.05, 0.05, 0.05]]))
    changed: dict[str, Any] = PLAIN | {"mixup": 0.8, "smoothing": 0.1}
    augment = FinetuneAugment(MEAN, STD, 3, **changed)
    mixed = augment(images_of(count=2), labels)[1]
    assert mixed[0, 1] == pytest.approx(0.05) and 0.05 < mixed[0, 0] < 0.95
    torch.testing.assert_close(mixed.sum(dim=0), soft.sum(dim=0))


def test_mixup_blends_images_and_targets_alike():
    torch.manual_seed(3)
    images, targets = torch.rand(6, 3, 8, 8), soft_targets(torch.arange(6), 6, 0.0)
    mixed, soft = Mixing(mixup=0.8, cutmix=0.0)(images, targets)
    share = soft[0, 0]
    assert 0 < float(share) < 1
    torch.testing.assert_close(mixed, images * share + images.flip(0) * (1 - share))


def test_a_ratio_is_that_of_32_images():
    torch.manual_seed(0)
    targets = soft_targets(torch.arange(96), 96, 0.0)
    _, soft = Mixing(mixup=0.8, cutmix=0.0)(torch.rand(96, 3, 4, 4), targets)
    ratios = [{round(float(row), 5) for row in group.diagonal(32 * i)} for i, group in enumerate(soft.split(32))]
    assert all(len(ratio) == 1 for ratio in ratios) and len(set.union(*ratios)) == 3


def test_each_image_is_jittered_in_an_order_of_its_own():
    torch.manual_seed(0)
    image = smooth_images(1).float() / 255
    jitter = ColorJitter(0.4)
    jittered = jitter(image.repeat(64, 1, 1, 1))
    assert float(jittered.min()) >= 0 and float(jittered.max()) <= 1
    assert len({round(float(one.mean()), 5) for one in jittered}) > 60


def test_cutmix_shares_equal_the_pasted_area():
    torch.manual_seed(5)
    images, targets = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 24), soft_targets(torch.arange(4), 4, 0.0)
    seen = set()
    for _ in range(50):
        mixed, soft = Mixing(mixup=0.0, cutmix=1.0)(images, targets)
        torch.testing.assert_close((mixed == images)[0, 0].float().mean(), soft[0, 0])
        seen.add(round(float(soft[0, 0]), 3))
    assert len(seen) > 20 and min(seen) < 0.3


def test_cutmix_boxes_are_as_large_as_timms():
    """Over many draws at one share of .5, as timm cuts them."""
    np.random.seed(0)
    torch.manual_seed(0)
    theirs = np.mean([cutmix_bbox_and_lam((4, 3, 32, 32), 0.5)[1] for _ in range(3000)])
    ours = np.mean([_paste_box(torch.zeros(1, 1, 32, 32), 0.5)[1] for _ in range(3000)])
    assert abs(ours - theirs) < 0.02


def test_every_batch_is_mixed_half_of_them_by_cutmix():
    images, targets = torch.rand(4, 3, 8, 8), soft_targets(torch.arange(4), 4, 0.1)
    torch.manual_seed(0)
    found = [Mixing()(images, targets) for _ in range(400)]
    assert not any(soft is targets for _, soft in found)
    pasted = sum(bool((mixed == images).any() or (mixed == images.flip(0)).all()) for mixed, _ in found)
    assert 150 < pasted < 250
    assert Mixing(mixup=0.0, cutmix=0.0)(images, targets)[0] is images
