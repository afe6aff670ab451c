"""Modules that can be rebuilt from what they say of themselves, and files that cannot choose what code runs."""

import json
from typing import Any

import pytest
from support.errors import raises
from torch import nn

from mae_kit.classes.configured import Configured, build
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
    "path",
    [
        "os.system",
        "torch.nn.Linear",
        "mae_kitty.Thing",
        "mae_kit.objectives.mae.nn.Linear",
        "mae_kit.objectives.mae.UserError",
        "mae_kit.cli.main.main",
        "mae_kit",
    ],
)
def test_a_file_cannot_choose_what_code_runs(path: str):
    with raises("config.class_path"):
        build({"class_path": path, "init_args": {}})


class Blur(MAE):
    """An objective in a user's own file."""

    def __init__(self, encoder: ViT, radius: int = 3, **further: Any):
        super().__init__(encoder, **further)
        self.radius = radius


def test_a_class_outside_mae_kit_is_rebuilt_only_if_trusted():
    blur = Blur(tiny().encoder, 5, decoder_dim=16, decoder_depth=1, decoder_heads=2)
    assert blur.init_args.keys() == {"encoder", "radius", "decoder_dim", "decoder_depth", "decoder_heads"}
    with raises("config.class_path"):
        build(blur.config | {"class_path": "not_imported_by_anybody.Blur"})
    again = build(blur.config | {"class_path": f"{__name__}.Blur"}, trusted=True)
    assert again.radius == 5 and again.decoder.embed.out_features == 16


def test_recorded_arguments_do_not_register_modules_twice():
    class Wrapper(Configured):
        def __init__(self, inner: Any, width: int = 3):
            super().__init__()
            self.inner, self.linear = inner, nn.Linear(width, width)

    wrapper = Wrapper(tiny(), width=2)
    names = [name for name, _ in wrapper.named_modules(remove_duplicate=False)]
    assert not any(name.startswith("init_args") for name in names)
    assert wrapper.config["init_args"]["width"] == 2
