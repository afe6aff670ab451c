"""The verb `import`: what it leaves is a folder that the other verbs take."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from support.errors import raises
from support.photo_shards import jpeg
from support.tiny_models import ARGS, tiny_classifier, tiny_mae, tiny_weights

import mae_kit
from mae_kit.cli import main as cli
from mae_kit.data.index.open import open_index
from mae_kit.tasks.classifier import build_classifier
from mae_kit.weights import original
from mae_kit.weights.initialize import start_from
from mae_kit.weights.recognize import load_encoder


@pytest.fixture
def published(tmp_path: Path) -> Path:
    torch.save({"model": original.write(tiny_weights(tiny_mae()))}, tmp_path / "mae_pretrain_full.pth")
    return tmp_path / "mae_pretrain_full.pth"


HEADS = ["--encoder-heads", "3", "--decoder-heads", "4"]


def test_what_it_says(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["import", str(published), str(tmp_path / "run"), *HEADS, "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["kind"] == "original MAE, encoder and decoder, normalized pixels"
    assert (result["encoder"], result["decoder"], result["left_out"]) == (30, 32, [])
    assert "assumed: the decoder predicts normalized pixels, which no tensor shows" in captured.err
    assert f"{result['kind']}; 30 tensors of the encoder, 32 of the decoder, left out: none" in captured.err


def test_the_other_verbs_take_it(published: Path, tmp_path: Path):
    mae_kit.import_(published, tmp_path / "run", img_size=48, channels=1, encoder_heads=3, decoder_heads=4)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg(number))
    shown = mae_kit.reconstruct(tmp_path / "run", tmp_path / "photos", tmp_path / "grid.png")
    assert shown["images"] == 3 and (tmp_path / "grid.png").is_file()
    classifier = build_classifier(None, 4, load_encoder(tmp_path / "run"), 0.0, (64, 64), channels=1)
    assert classifier.loaded == 28 and classifier.fresh == [
        "fc_norm.bias",
        "fc_norm.weight",
        "head.bias",
        "head.weight",
    ]


def test_a_fine_tuned_file_predicts(tmp_path: Path):
    model = tiny_classifier()
    torch.save({"model": model.state_dict()}, tmp_path / "finetuned.pth")
    mae_kit.import_(tmp_path / "finetuned.pth", tmp_path / "run", encoder_heads=3)
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    (line,) = mae_kit.predict(tmp_path / "run", [tmp_path / "a.jpg"])["predictions"]
    assert len(line["classes"]) == 3


@pytest.fixture
def three_bands(tmp_path: Path) -> Path:
    """Files of the bands B2, B3 and B4 of four samples."""
    values = np.random.default_rng(0).integers(0, 4096, (4, 3, 32, 32), dtype=np.uint16)
    (tmp_path / "in").mkdir()
    for sample, bands in enumerate(values):
        for band, pixels in zip("234", bands, strict=True):
            tifffile.imwrite(tmp_path / f"in/{sample}_B{band}.tif", pixels, photometric="minisblack")
    return tmp_path / "in"


def test_bands_by_name(published: Path, three_bands: Path, tmp_path: Path, mistake: Callable[..., str]):
    """A photo's weights for bands with names; images whose bands lie in another order are refused."""
    words = ["import", str(published), str(tmp_path / "run"), *HEADS, "--channels-from"]
    assert mistake(*words, "B4:red,B3:G,B2:B") == "channels_from"
    assert cli.main([*words, "B4:R,B3:G,B2:B"]) == 0
    encoder = load_encoder(tmp_path / "run")
    assert encoder.pretrained_cfg.bands == ["B4", "B3", "B2"]
    how: dict[str, Any] = {"group": "{sample}_{band}.tif", "workers": 1}
    mae_kit.shard(str(three_bands), tmp_path / "other", **how)
    mae_kit.shard(str(three_bands), tmp_path / "same", bands="B4,B3,B2", **how)
    embed = ["embed", tmp_path / "run", "--out", tmp_path / "features.npy", "--data"]
    assert mistake(*embed, tmp_path / "other") == "data.bands"
    assert cli.main([*map(str, embed), str(tmp_path / "same")]) == 0
    other = mae_kit.MAE(mae_kit.ViT("vit_base_patch16_224", **ARGS), decoder_dim=32, decoder_heads=4)
    scale = open_index(tmp_path / "other").scale
    with raises("data.bands"):
        start_from(tmp_path / "run", other, [0.5] * 3, [0.5] * 3, scale)


def test_weights_are_not_overwritten(published: Path, tmp_path: Path, mistake: Callable[..., str]):
    words = ["import", str(published), str(tmp_path / "run"), *HEADS]
    assert cli.main(words) == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert mistake(*words) == "out.weights"
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("--channels 0", "channels"),
        ("--img-size 0", "img_size"),
        ("--img-size [32,-16]", "img_size"),
        ("--img-size [32]", "img_size.form"),
        ("--encoder-heads 0", "encoder_heads"),
        ("--decoder-heads -1", "decoder_heads"),
    ],
)
def test_numbers_that_count_nothing(words: str, key: str, tmp_path: Path, mistake: Callable[..., str]):
    assert mistake("import", tmp_path / "x.pth", tmp_path / "run", *words.split()) == key


def test_heads_that_do_not_divide_the_width(published: Path, tmp_path: Path, mistake: Callable[..., str]):
    heads = ["--encoder-heads", "5", "--decoder-heads", "4"]
    assert mistake("import", published, tmp_path / "run", *heads) == "weights.heads.divide"


def test_an_interrupted_import_can_be_repeated(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    heads: dict[str, Any] = {"encoder_heads": 3, "decoder_heads": 4}
    with monkeypatch.context() as broken:
        broken.setattr("mae_kit.commands.import_.save_model", full)
        with pytest.raises(OSError):
            mae_kit.import_(published, tmp_path / "run", **heads)
    mae_kit.import_(published, tmp_path / "run", **heads)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"encoder.safetensors", "model.safetensors"}
    with raises("out"):
        mae_kit.import_(published, tmp_path / "run", **heads)
