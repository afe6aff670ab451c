"""Features out: those that a forward pass gives, in every format, with what is known of each image."""
# Also tests evaluation/embeddings.py, evaluation/feature_files.py.

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.errors import raises
from support.photo_shards import CLASSES, photo, write_shard
from support.processes import Programs
from support.tiny_models import save_run, tiny_mae, tiny_weights

import mae_kit
from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.transforms.augment import Normalize
from mae_kit.evaluation import features
from mae_kit.evaluation.features import extract_shard
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import load_encoder

pytestmark = pytest.mark.usefixtures("in_fp32")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    mae = tiny_mae()
    save_run(tmp_path / "run", mae)
    save_encoder(tmp_path / "run", mae.encoder.model.state_dict(), tiny_weights(mae).config)
    return tmp_path / "run"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Five images and one that does not decode, and three without labels; some from files of known names."""
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shard(folder / "train-0.tar", range(6), damaged=(2,))
    write_shard(folder / "val-0.tar", range(6, 9), labels=False)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "files.csv").write_text("shard,key,file\ntrain-0.tar,0001,'=a/b.jpg\n")
    return folder


def tokens(run: Path, shards: Path, layer: int = 2) -> torch.Tensor:
    """All tokens of all images that decode, by a plain forward pass."""
    encoder, index = load_encoder(run), open_index(shards)
    images = EvaluationBatches(index, np.arange(len(index)), len(index), (32, 32))[0].images
    config = encoder.pretrained_cfg
    with torch.no_grad():
        return encoder.layers(Normalize(config.mean, config.std)(images), [layer])[0]


LINES = [
    *(["train-0.tar", f"{n:04d}", "'=a/b.jpg" if n == 1 else "", f"{n % 4}", CLASSES[n % 4]] for n in (0, 1, 3, 4, 5)),
    *(["val-0.tar", f"{n:04d}", "", "", ""] for n in (6, 7, 8)),
]


def test_every_format_holds_them(run: Path, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    mean = tokens(run, shards)[:, 1:].mean(dim=1).numpy()
    table = tmp_path / "new" / "f.csv"
    for suffix in (".npy", ".safetensors", ".csv"):
        out = tmp_path / "new" / f"f{suffix}"
        result: Any = mae_kit.embed(run, data=shards, out=out, workers=1)
        assert result["files"] == ([str(out)] if suffix == ".csv" else [str(out), str(table)])
        assert (result["images"], result["left_out"], result["shape"], result["layer"]) == (8, 1, [48], 2)
        head, *lines = csv.reader(table.read_text(encoding="utf-8").splitlines())
        assert head[:5] == ["shard", "key", "file", "label", "class"] and [line[:5] for line in lines] == LINES
    assert "1 of 9 images do not decode" in caplog.text
    written = np.array([line[5:] for line in lines], np.float32)
    np.testing.assert_array_equal(written, np.load(out.with_suffix(".npy")))
    np.testing.assert_allclose(np.load(out.with_suffix(".npy")), mean, atol=1e-5)
    with safe_open(out.with_suffix(".safetensors"), "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("features"), np.load(out.with_suffix(".npy")))
        about = json.loads(file.metadata()["mae_kit"])
    assert about["fingerprint"] == load_encoder(run).fingerprint and (about["token"], about["layer"]) == ("mean", 2)


@pytest.mark.parametrize("sets", [False, True])
@pytest.mark.parametrize("token", ["class", "patches"])
def test_parquet(run: Path, shards: Path, tmp_path: Path, token: Any, sets: bool):
    parquet = pytest.importorskip("pyarrow.parquet", reason="mae_kit[parquet] is not installed")
    write_shard(shards / "val-0.tar", range(6, 9), labels=sets, sets=sets)
    mae_kit.embed(run, data=shards, out=tmp_path / "f.parquet", token=token, layer=1, workers=1)
    table = parquet.read_table(tmp_path / "f.parquet")
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == [line[1] for line in LINES] and rows[1]["file"] == "=a/b.jpg"
    if sets:
        assert [row["label"] for row in rows] == [[0], [1], [3], [0], [1], [2], [1, 3], []]
        assert rows[6]["class"] == ["dusk", "night"]
    else:
        assert [row["label"] for row in rows] == [0, 1, 3, 0, 1, None, None, None] and rows[2]["class"] == "night"
    all_tokens = tokens(run, shards, layer=1)
    expected = all_tokens[:, 0] if token == "class" else all_tokens[:, 1:]
    np.testing.assert_allclose(np.array(table["features"].to_pylist()), expected, atol=1e-5)
    assert b"fingerprint" in table.schema.metadata[b"mae_kit"]


def test_patch_tokens_come_piece_by_piece_and_go_on_after_a_stop(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(features, "_PIECE", 2 * 16 * 48 * 4)
    batches: Any = mae_kit.embed(run, data=shards, token="patches", workers=1)
    next(batches)
    batches.close()
    pieces = {file: file.stat().st_mtime_ns for file in shards.glob(".patches-*/*")}
    assert len(pieces) == 5, "two images each"
    next(iter(pieces)).unlink()
    read, encode = list[int](), features._encode
    monkeypatch.setattr(features, "_encode", lambda *given: (read.append(len(given[-1])), encode(*given))[1])
    mae_kit.embed(run, data=shards, token="patches", out=tmp_path / "f.npy", workers=1)
    assert sum(read[1:]) <= 2, "only what is missing is encoded, after the blank image"
    assert not list(shards.glob(".patches-*"))
    np.testing.assert_allclose(np.load(tmp_path / "f.npy"), tokens(run, shards)[:, 1:], atol=1e-5)


def test_batches_for_python(run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mae_kit.evaluation.embeddings._BATCH", 4 * 48 * 4)
    batches: list[Any] = list(mae_kit.embed(run, data=str(shards), split="train", workers=1))
    assert [len(batch.keys) for batch in batches] == [4, 1]
    assert batches[0].files == ["", "=a/b.jpg", "", ""] and batches[0].labels.tolist() == [0, 1, 3, 0]
    found = np.concatenate([batch.features for batch in batches])
    np.testing.assert_allclose(found, tokens(run, shards)[:5, 1:].mean(dim=1), atol=1e-5)


@pytest.mark.slow
def test_processes_that_decode_for_a_gpu_change_nothing(run: Path, shards: Path):
    (part, _), shipped = open_index(shards).apart(), features._Shipped(load_encoder(run))
    alone, helped = (extract_shard(shipped, [1, 2], False, loaders, part, lambda: None) for loaders in (0, 2))
    assert alone.keys() == helped.keys()
    for name, values in alone.items():
        np.testing.assert_array_equal(values, helped[name])


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ([], "out.missing"),
        (["--out", "f.txt"], "out.suffix"),
        (["--out", "f.csv", "--token", "patches"], "out.csv"),
        (["--out", "f.npy", "--layer", "3"], "layer"),
        (["--out", "f.npy", "--layer", "0"], "layer"),
        (["--out", "f.npy", "--split", "test"], "split"),
    ],
)
def test_what_cannot_be(run: Path, shards: Path, words: list[str], key: str, mistake: Callable[..., str]):
    assert mistake("embed", run, "--data", shards, *words) == key
    assert not list(shards.glob(".features-*"))


def test_parquet_without_its_library(
    run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[..., str]
):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert mistake("embed", run, "--data", shards, "--out", "f.parquet") == "out.parquet"


def test_nothing_that_decodes(run: Path, tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(2), damaged=(0, 1))
    with raises("data.none_decodes"):
        mae_kit.embed(run, data=tmp_path / "a.tar", out=tmp_path / "f.npy", workers=1)
    assert not (tmp_path / "f.npy").exists()


@pytest.mark.slow
def test_a_folder_of_photos_on_the_command_line(run: Path, tmp_path: Path, programs: Programs):
    for number in range(12):
        (tmp_path / "photos" / CLASSES[number % 2]).mkdir(parents=True, exist_ok=True)
        photo(number).save(tmp_path / "photos" / CLASSES[number % 2] / f"{number}.png")
    out = tmp_path / "f.csv"
    ended = programs.run("embed", run, "--data", tmp_path / "photos", "--out", out, "--workers", "1", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["images"] == 12
    lines = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    files = {f"{CLASSES[number % 2]}/{number}.png": CLASSES[number % 2] for number in range(12)}
    assert {line["file"]: line["class"] for line in lines} == files


def test_an_encoder_without_class_token(shards: Path, tmp_path: Path):
    with raises("token"):
        mae_kit.embed(swin(tmp_path), data=shards, token="class", out=tmp_path / "f.npy")


def swin(folder: Path) -> Path:
    args = {"img_size": 32, "window_size": 2, "embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]}
    encoder = mae_kit.Swin("swin_tiny_patch4_window7_224", **args)
    encoder.set_statistics([0.5] * 3, [0.25] * 3)
    encoder.save_pretrained(folder / "swin")
    return folder / "swin"
