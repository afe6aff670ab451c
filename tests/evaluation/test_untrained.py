"""An encoder before its training."""

from pathlib import Path

import torch
from untrained import write_run

from mae_kit.encoder_file import load_encoder
from mae_kit.evaluation.untrained import untrained_encoder


def test_fresh_weights_in_the_same_architecture(tmp_path: Path):
    write_run(tmp_path)
    config, trained = load_encoder(tmp_path)
    found = {}
    for seed in (1, 2, 1):
        with untrained_encoder(tmp_path, seed) as folder:
            fresh, tensors = load_encoder(folder)
        assert (fresh.model, fresh.model_args, fresh.step) == (config.model, config.model_args, 0)
        assert {name: each.shape for name, each in tensors.items()} == {n: t.shape for n, t in trained.items()}
        assert seed not in found or all(torch.equal(found[seed][name], each) for name, each in tensors.items())
        found[seed] = tensors
    name = "blocks.0.attn.qkv.weight"
    assert not torch.equal(found[1][name], trained[name]) and not torch.equal(found[1][name], found[2][name])
    assert torch.equal(found[1]["pos_embed"], found[2]["pos_embed"]), "sines and cosines are not drawn"
