"""Features on disk: the same rows as in memory, the same answers from them, and never all of them at once."""
# Also tests evaluation/methods.py.

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.errors import raises
from support.features import clusters, overlapping

from mae_kit.evaluation import probe
from mae_kit.evaluation.labeled_features import FeatureSplits, LabeledFeatures
from mae_kit.evaluation.methods import score_fewshot, score_knn, score_probe
from mae_kit.evaluation.rank import feature_statistics
from mae_kit.evaluation.rows import Rows, Stored, stored_matrices
from mae_kit.evaluation.speed import memory_growth


def written(folder: Path, features: torch.Tensor, sizes: list[int]) -> Rows:
    """In files of these sizes, each with something else before and behind."""
    pieces = []
    for number, part in enumerate(features.split(sizes)):
        file = folder / f"{number}.safetensors"
        tensors = {"12 class": torch.ones(3), "12 mean": part.contiguous(), "rows": torch.arange(len(part) + 1)}
        save_file(tensors, file, {"mae_kit_sidecar": "made up"})
        pieces.append(stored_matrices(file)["12 mean"])
    return Rows(pieces)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(60, 5, generator=torch.Generator().manual_seed(0))


def test_they_answer_as_a_tensor_does(tmp_path: Path, features: torch.Tensor):
    rows = written(tmp_path, features, [20, 0, 39, 1])
    assert (len(rows), rows.shape, rows.nbytes) == (60, (60, 5), features.nbytes)
    for numbers in ([3], [59, 0, 20, 19, 21, 20], [], list(range(60))):
        wanted = torch.tensor(numbers, dtype=torch.int64)
        assert torch.equal(rows[wanted].cpu(), features[wanted])
    for mine, theirs in zip(rows.split(7), features.split(7), strict=True):
        assert torch.equal(mine.cpu(), theirs)


def test_some_of_them_have_numbers_of_their_own(tmp_path: Path, features: torch.Tensor):
    some = written(tmp_path, features, [20, 40]).only(np.arange(1, 60, 2))
    assert torch.equal(some.read().cpu(), features[1::2])
    assert torch.equal(some.only(np.array([29, 4])).read().cpu(), features[[59, 9]])


def test_a_file_that_ends_too_early_is_told(tmp_path: Path, features: torch.Tensor):
    rows = written(tmp_path, features, [20, 40])
    cut = tmp_path / "1.safetensors"
    os.truncate(cut, rows.pieces[1].offset + 10)
    with raises("features.damaged"):
        rows.read()


def test_what_is_of_another_type_is_left_out(tmp_path: Path):
    save_file({"a": torch.ones(2, 3), "rows": torch.arange(2)}, tmp_path / "a.safetensors", {"dtype": "F32"})
    (found,) = stored_matrices(tmp_path / "a.safetensors").values()
    assert (found.rows, found.width) == (2, 3)


@pytest.mark.parametrize("sets", [False, True])
def test_every_method_says_of_them_what_it_says_of_a_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: bool
):
    monkeypatch.setattr(probe, "STEPS", 12)
    (known, labels), (queries, truth) = clusters(1, 90), clusters(2, 70)
    if sets:
        labels, truth = overlapping(labels), overlapping(truth)
    held = FeatureSplits(LabeledFeatures(known, labels), LabeledFeatures(queries, truth), list("abcde"))
    (tmp_path / "val").mkdir()
    stored = written(tmp_path, known, [40, 50]), written(tmp_path / "val", queries, [70])
    known_side, unseen_side = (
        LabeledFeatures(rows, known.to(rows.device)) for rows, known in zip(stored, (labels, truth), strict=True)
    )
    streamed = FeatureSplits(known_side, unseen_side, list("abcde"))
    methods = [
        partial(score_knn, k=20, temperature=0.07),
        partial(score_fewshot, shots=5, seeds=3),
        partial(score_probe, epochs=2, batch_size=32, seed=0),
    ]
    for method in methods:
        assert method(streamed).record("abcde") == method(held).record("abcde")
    assert feature_statistics(stored[0]) == feature_statistics(known)


def hollow(file: Path, rows: int, width: int) -> Rows:
    """A file whose numbers are zeros that no disk holds."""
    about = {"1 mean": {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, 4 * rows * width]}}
    header = json.dumps(about).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with file.open("r+b") as opened:
        opened.truncate(8 + len(header) + 4 * rows * width)
    (piece,) = stored_matrices(file).values()
    assert isinstance(piece, Stored)
    return Rows([piece])


@pytest.mark.slow
@pytest.mark.skipif(memory_growth("cpu")() is None, reason="this system does not tell a process's peak of memory")
def test_they_are_never_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """0.9 GB of features; a batch of queries in float64 and what standardizes it take a quarter of one at most."""
    monkeypatch.setattr(probe, "STEPS", 4)
    rows, some = hollow(tmp_path / "a.safetensors", 300_000, 768), np.arange(50)
    labels = torch.arange(5).repeat(60_000).to(rows.device)
    few, many, names = LabeledFeatures(rows.only(some), labels[:50]), LabeledFeatures(rows, labels), list("abcde")
    growth = memory_growth("cpu")
    score_knn(FeatureSplits(many, few, names), k=20, temperature=0.07)
    score_probe(FeatureSplits(many, few, names), epochs=0, batch_size=8192, seed=0)
    score_fewshot(FeatureSplits(few, many, names), shots=2, seeds=1)
    assert (growth() or 0) < rows.nbytes / 1e6 / 2
