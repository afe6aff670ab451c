"""Modules that can be rebuilt from what they say of themselves, and files that cannot choose what code runs."""

import json
from typing import Any

import pytest
from torch import nn

from mae_kit.configured import Configured, build
from mae_kit.encoders.vit import ViT
from mae_kit.objectives import MAE


def tiny() -> MAE:
    encoder = ViT("vit_tiny_patch16_224", [16, 32], patch_size=8, embed_dim=24, depth=1, num_heads=2)
    return MAE(encoder, 0.5, decoder_dim=16, decoder_depth=1, decoder_heads=2)


def test_a_config_rebuilds_the_module():
    mae = tiny()
    config = mae.config
    again = build(json.loads(json.dumps(config)))
    assert again.config == config and str(again) == str(mae)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in mae.state_dict().items()}
    again.load_state_dict(mae.state_dict(), strict=True)


def test_a_config_is_whole_with_positional_and_default_arguments():
    config = tiny().config
    assert config["class_path"] == "mae_kit.objectives.mae.MAE"
    arguments = config["init_args"]
    assert arguments["mask_ratio"] == 0.5 and arguments["mask"] == "random" and arguments["norm_pix_loss"] is True
    assert arguments["encoder"]["init_args"]["img_size"] == [16, 32]


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("os.system", "os.system is not a class of mae_kit"),
        ("torch.nn.Linear", "not a class of mae_kit"),
        ("mae_kitty.Thing", "not a class of mae_kit"),
        ("mae_kit.objectives.mae.nn.Linear", None),
        ("mae_kit.objectives.mae.UserError", "not a module that mae_kit saves"),
        ("mae_kit.cli.main.main", "not a module that mae_kit saves"),
    ],
)
def test_a_file_cannot_choose_what_code_runs(path: str, complaint: str | None):
    with pytest.raises((ValueError, ImportError), match=complaint):
        build({"class_path": path, "init_args": {}})


def test_remembering_does_not_register_modules_twice():
    class Wrapper(Configured):
        def __init__(self, inner: Any, width: int = 3):
            super().__init__()
            self.inner, self.linear = inner, nn.Linear(width, width)

    wrapper = Wrapper(tiny(), width=2)
    names = [name for name, _ in wrapper.named_modules(remove_duplicate=False)]
    assert not any(name.startswith("arguments") for name in names)
    assert wrapper.config["init_args"]["width"] == 2
