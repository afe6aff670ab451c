"""Hiera's MAE against transformers with the same weights and masks, ten steps, and the road to a classifier."""
# Also tests encoders/hiera.py.

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.errors import raises
from support.tiny_models import MEAN, STD, shaken
from support.training_steps import ten_losses

from mae_kit.encoders import Hiera
from mae_kit.objectives import HieraMAE
from mae_kit.objectives.masking import hide_smallest_last, unit_mask, visible_count
from mae_kit.tasks.classifier import ModelSpec, build_classifier
from mae_kit.training.optimizer import parameter_groups
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.initialize import start_from
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import load_encoder

NAMES = [
    (r"^encoder\.model\.patch_embed\.proj", "hiera.embeddings.patch_embeddings.projection"),
    (r"^encoder\.model\.pos_embed", "hiera.embeddings.position_embeddings"),
    (r"^fusion\.layers", "multiscale_fusion.multi_scale_fusion_heads"),
    (r"^fusion\.norm", "encoder_norm"),
    (r"^decoder\.embed", "decoder.decoder_embeddings"),
    (r"^decoder\.pos_embed", "decoder.decoder_position_embeddings"),
    (r"^decoder\.blocks", "decoder.decoder_block.layers"),
    (r"^decoder\.(norm|pred)\.", r"decoder.decoder_\1."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
]
STAGES = [1, 2, 2, 1]


def tiny(**changed: Any) -> HieraMAE:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 96, "embed_dim": 8, "num_heads": 1, "stages": STAGES} | changed
    return HieraMAE(Hiera("hiera_tiny_224", **sizes), decoder_dim=32, decoder_depth=2, decoder_heads=4)


def their_name(name: str) -> str:
    if found := re.match(r"encoder\.model\.blocks\.(\d+)\.(.*)", name):
        stage, layer = [(stage, i) for stage, depth in enumerate(STAGES) for i in range(depth)][int(found[1])]
        name = f"hiera.encoder.stages.{stage}.layers.{layer}.{found[2]}"
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name


def as_theirs(values: torch.Tensor, dim: int) -> torch.Tensor:
    """The pixels of a cell in the order (channel, row, column), ours (row, column, channel)."""
    return values.unflatten(dim, (16, 16, 3)).movedim(dim + 2, dim).flatten(dim, dim + 2)


@pytest.mark.slow
def test_it_is_that_of_transformers():
    from transformers import HieraConfig, HieraForPreTraining

    config: Any = HieraConfig(
        embed_dim=8,
        image_size=(96, 96),
        depths=STAGES,
        num_heads=[1, 2, 4, 8],
        num_query_pool=2,
        decoder_hidden_size=32,
        decoder_depth=2,
        decoder_num_heads=4,
    )
    mae, theirs = shaken(tiny()), HieraForPreTraining(config).eval()
    tensors = {their_name(k): v for k, v in mae.state_dict().items() if not k.startswith("encoder.model.head.")}
    tensors |= {name: as_theirs(tensors[name], 0) for name in tensors if "decoder_pred" in name}
    theirs.load_state_dict(tensors, strict=True)
    images, noise = torch.randn(2, 3, 96, 96), torch.rand(2, 9)
    units = hide_smallest_last(noise, 3).unflatten(1, (3, 3))
    hidden = units.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    with torch.no_grad():
        outcome, expected = mae.compare(images, hidden), theirs(images, noise=noise)
    torch.testing.assert_close(as_theirs(outcome.prediction, 2), expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outcome.loss, expected.loss, rtol=1e-5, atol=0)


def test_the_papers_sizes():
    """49 mask units of 32 pixels, 19 of them visible, each four cells of 16 pixels (hiera_mae.py)."""
    with torch.device("meta"):
        encoder = Hiera("hiera_base_224")
    assert encoder.grid == (14, 14) and encoder.patch_size == (16, 16) and encoder.unit == (2, 2)
    hidden = unit_mask(torch.arange(3), encoder.grid, encoder.unit, visible_count(49, 0.6))
    assert (~hidden).sum(dim=1).tolist() == [19 * 4] * 3


def test_ten_training_steps():
    """The losses of the commit that brought it: a change of arithmetic is seen here."""
    y, x = torch.meshgrid(torch.linspace(0, 6, 96), torch.linspace(0, 6, 96), indexing="ij")
    images = torch.stack([torch.sin(slope * x + y) for slope in range(8)])[:, None].repeat(1, 3, 1, 1)
    golden = [1.08532, 1.06513, 1.03801, 1.02221, 1.01217, 1.01155, 1.00681, 1.00181, 1.00555, 1.00454]
    assert ten_losses(tiny(), images, (0.9, 0.95)) == pytest.approx(golden, rel=1e-3)


def test_its_encoder_becomes_a_classifier_that_pools_once_more_and_goes_on(tmp_path: Path):
    old, new = shaken(tiny()), tiny()
    encoder = old.encoder
    config = ModelConfig(encoder.name, encoder.model_args, MEAN, STD, "hieramae", 1)
    save_encoder(tmp_path, encoder.model.state_dict(), config)
    spec = ModelSpec(encoder.name, {"q_pool": 3})
    classifier = build_classifier(spec, 5, load_encoder(tmp_path), 0.1, (96, 96))
    assert classifier.fresh == ["head.fc.bias", "head.fc.weight"] and not classifier.dropped
    model: Any = classifier.model.eval()
    assert model.forward_features(torch.randn(2, 3, 96, 96)).shape == (2, 9, 64)
    start_from(tmp_path, new, MEAN, STD)
    started = new.encoder.model.state_dict()
    assert all(torch.equal(tensor, started[key]) for key, tensor in encoder.model.state_dict().items())


def test_the_encoders_positions_do_not_decay_and_the_decoders_do():
    """As hiera.py names them."""
    objective = tiny()
    names = {parameter: name for name, parameter in objective.named_parameters()}
    groups = parameter_groups(objective, 0.05, objective.no_decay)
    decay = {names[parameter]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay["encoder.model.pos_embed"] == 0 and decay["decoder.pos_embed"] == decay["decoder.mask_token"] == 0.05


@pytest.mark.parametrize(
    ("changed", "key"), [({"drop_path": 2.0}, "encoder.drop_path"), ({"num_heads": 3}, "encoder.num_heads")]
)
def test_encoders_that_cannot_be_are_refused(changed: dict[str, Any], key: str):
    with raises(key):
        tiny(**changed)


def test_whole_blocks_are_dropped_in_training_alone():
    objective, keys = tiny(drop_path=0.9), torch.arange(4)
    images = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    hidden = objective.hide(keys)
    trained, again = objective.train().compare(images, hidden), objective.compare(images, hidden)
    assert not torch.equal(trained.prediction, again.prediction)
    objective.eval()
    assert torch.equal(objective.compare(images, hidden).prediction, objective.compare(images, hidden).prediction)
    assert not any("drop" in name for name in [*objective.encoder.model_args, *objective.encoder.model.state_dict()])
