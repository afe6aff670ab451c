"""FCMAE: nothing hidden is seen, the decoder, ten steps, and the road to a classifier and back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.errors import raises
from support.tiny_models import MEAN, STD, shaken
from support.training_steps import ten_losses

from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import ConvNeXtV2
from mae_kit.encoders.patches import patchify, unpatchify
from mae_kit.objectives import FCMAE
from mae_kit.objectives.masking import random_mask
from mae_kit.plots.reconstructions import draw_reconstructions
from mae_kit.tasks.classifier import build_classifier
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.initialize import start_from
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import load_encoder

SIZES: dict[str, Any] = {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}
KEYS = torch.tensor([3, 5])


def tiny(name: str = "convnextv2_atto") -> FCMAE:
    torch.manual_seed(0)
    return FCMAE(ConvNeXtV2(name, 64, output_stride=16, **SIZES), decoder_dim=32)


def images(count: int = 2) -> torch.Tensor:
    """Waves, of which there is something to learn."""
    random = torch.Generator().manual_seed(1)
    phase, slope = torch.rand(2, count, 3, 1, 1, generator=random) * 6
    y, x = torch.meshgrid(torch.linspace(0, 3, 64), torch.linspace(0, 3, 64), indexing="ij")
    return torch.sin(slope * x + phase) + torch.cos(y + phase)


def test_a_batch_mate_and_hidden_pixels_change_nothing_to_the_bit():
    fcmae, seen = shaken(tiny()), images()
    hidden = random_mask(KEYS, fcmae.encoder.grid, 0.6)
    unseen = torch.where(hidden[:, :, None], 7.0, patchify(seen, (16, 16)))
    changed = torch.stack([unpatchify(unseen, (16, 16), (4, 4))[0], -5 * seen[1]])
    with torch.no_grad():
        before, after = fcmae.compare(seen, hidden).prediction[0], fcmae.compare(changed, hidden).prediction[0]
        assert torch.equal(before, after)
        assert not torch.equal(before, fcmae.compare(seen + 0.1, hidden).prediction[0])


def test_the_papers_masks():
    """7 x 7 cells of 32 pixels, of which 19 are visible (fcmae.py)."""
    with torch.device("meta"):
        encoder = ConvNeXtV2("convnextv2_base")
    assert encoder.image_size == (224, 224) and encoder.grid == (7, 7) and encoder.patch_size == (32, 32)
    assert (~random_mask(torch.arange(5), encoder.grid, 0.6)).sum(dim=1).tolist() == [19] * 5


def test_the_decoder_puts_one_token_into_every_hidden_cell():
    decoder = shaken(tiny()).decoder
    cells, hidden = torch.randn(2, 16, 32), random_mask(KEYS, (4, 4), 0.6)
    given: list[torch.Tensor] = []
    decoder.blocks.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    decoder(cells, hidden)
    rows = given[0].flatten(2).mT
    assert torch.equal(rows[hidden], decoder.mask_token[0].expand(int(hidden.sum()), -1))
    torch.testing.assert_close(rows[~hidden], decoder.embed(cells)[~hidden])


def test_ten_training_steps():
    """The losses of the commit that brought it: a change of arithmetic is seen here."""
    golden = [0.99875, 0.99741, 0.99573, 0.99106, 0.98314, 0.97227, 0.96017, 0.95828, 0.94993, 0.93372]
    assert ten_losses(tiny(), images(8), (0.9, 0.95)) == pytest.approx(golden, rel=1e-3)


@pytest.mark.parametrize("name", ["convnextv2_atto", "convnextv2_tiny"])
def test_in_bf16_it_is_the_same_but_for_rounding(name: str):
    fcmae = tiny(name)
    plain = fcmae(images(), KEYS)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = fcmae(images(), KEYS)
    rounded.loss.backward()
    assert rounded.loss.item() == pytest.approx(plain.loss.item(), rel=1e-2)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fcmae.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["convnextv2_atto", "convnextv2_tiny"])
def test_its_encoder_becomes_a_classifier_and_goes_on(tmp_path: Path, name: str):
    old, new = shaken(tiny(name)), tiny(name)
    encoder = old.encoder
    config = ModelConfig(encoder.name, encoder.model_args, MEAN, STD, "fcmae", 1)
    save_encoder(tmp_path, encoder.model.state_dict(), config)
    classifier = build_classifier(None, 5, load_encoder(tmp_path), 0.1, (32, 48))
    assert classifier.fresh == ["head.fc.bias", "head.fc.weight"] and not classifier.dropped
    model: Any = classifier.model.eval()
    seen = torch.randn(2, 3, 32, 48)
    assert torch.equal(model.forward_features(seen), encoder.model.forward_features(seen))
    assert model(seen).shape == (2, 5)
    start_from(tmp_path, new, MEAN, STD)
    started = new.encoder.model.state_dict()
    assert all(torch.equal(tensor, started[key]) for key, tensor in encoder.model.state_dict().items())


def test_a_reconstruction_can_be_looked_at():
    fcmae = tiny()
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    drawn = draw_reconstructions(fcmae, Normalize(MEAN, STD), pixels, KEYS)
    assert drawn.ndim == 3 and drawn.shape[2] == 3
    perfect = patchify(pixels.float(), (16, 16))
    normalized = (perfect - perfect.mean(dim=2, keepdim=True)) / perfect.std(dim=2, keepdim=True)
    torch.testing.assert_close(fcmae.pixels(normalized, pixels.float()), pixels.float(), rtol=1e-3, atol=1e-2)


def test_images_of_one_cell_are_refused():
    with raises("objective.mask_ratio"):
        FCMAE(ConvNeXtV2("convnextv2_atto", 32, **SIZES))
