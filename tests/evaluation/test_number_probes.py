"""Numbers from frozen features: ridge regression with its penalty, neighbors, and `evaluate` on counted squares."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.errors import raises

import mae_kit as mk
from mae_kit.evaluation.number_probes import PENALTIES, predict_by_neighbors, predict_by_ridge


def some(images: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(images, 10, generator=draw, dtype=torch.float64)
    true = torch.tensor([[3.0, 0.0]] * 2 + [[0.0, -20.0]] + [[0.0, 0.0]] * 7, dtype=torch.float64)
    return x, x @ true + 5 + noise * torch.randn(images, 2, generator=draw, dtype=torch.float64)


def test_ridge_finds_the_line():
    x, y = some(300, 0.0)
    torch.testing.assert_close(predict_by_ridge(x[:200], y[:200], x[200:]), y[200:], atol=0.01, rtol=0)


def test_the_penalty_has_the_least_error_of_leaving_one_out():
    """Refitted without each image, no other penalty of the list predicts it better on average."""
    x, y = some(25, 8.0)
    x, y = x[:, :8], (y - y.mean(dim=0)) / y.std(dim=0, correction=0)

    def fitted(train: torch.Tensor, aims: torch.Tensor, query: torch.Tensor, penalty: float) -> torch.Tensor:
        x0 = torch.cat([(train - mean) / spread, torch.ones(len(train), 1).to(train)], dim=1)
        weight = penalty * torch.eye(x0.shape[1]).to(train)
        weight[-1, -1] = 0
        solved = torch.linalg.solve(x0.T @ x0 + weight, x0.T @ aims)
        return torch.cat([(query - mean) / spread, torch.ones(len(query), 1).to(query)], dim=1) @ solved

    spread, mean = torch.std_mean(x, dim=0, correction=0)
    spread = spread + 1e-5
    errors = []
    for penalty in (len(x) * one for one in PENALTIES):
        rest = [torch.arange(len(x)) != i for i in range(len(x))]
        out = [fitted(x[kept], y[kept], x[~kept], penalty) - y[~kept] for kept in rest]
        errors.append(float(torch.cat(out).square().mean()))
    best = len(x) * PENALTIES[int(np.argmin(errors))]
    queries = torch.randn(5, 8, dtype=torch.float64)
    torch.testing.assert_close(predict_by_ridge(x, y, queries), fitted(x, y, queries, best))


def test_neighbors_give_their_mean():
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    numbers = torch.tensor([[2.0], [4.0], [100.0]])
    found = predict_by_neighbors(bank, numbers, torch.tensor([[5.0, 0.0], [0.0, 0.1]]), 2, 0.07)
    assert found[0] == pytest.approx(3.0) and found[1] == pytest.approx(100, abs=0.1)


def test_a_number_that_never_changes_is_predicted():
    x, y = some(30, 1.0)
    y[:, 1] = 7
    assert (predict_by_ridge(x, y, x)[:, 1] == 7).all()


@pytest.mark.slow
def test_frozen_features_count(tmp_path: Path):
    lines = ["file,squares"]
    for number in range(120):
        name = f"{'train' if number < 80 else 'val'}/{number}.png"
        image, count = np.zeros((32, 48, 3), np.uint8), number % 9
        for place in np.random.default_rng(number).permutation(24)[:count]:
            image[8 * (place // 6) : 8 * (place // 6) + 6, 8 * (place % 6) : 8 * (place % 6) + 6] = 250
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "in" / name)
        lines.append(f"{name},{count}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    mk.shard(str(tmp_path / "in"), tmp_path / "shards", labels=str(tmp_path / "table.csv"), workers=1)
    torch.manual_seed(0)
    vit = mk.ViT("vit_tiny_patch16_224", img_size=[32, 48], patch_size=8, embed_dim=48, depth=2, num_heads=2)
    vit.set_statistics([0.2] * 3, [0.3] * 3)
    vit.save_pretrained(tmp_path / "vit")
    told = mk.evaluate(tmp_path / "vit", data=str(tmp_path / "shards"), layers=[1, 2], out=tmp_path / "out")
    found = {(row["method"], row["layer"], row["token"]): row["r2"] for row in told["scores"]}
    assert len(found) == 8 and {key[0] for key in found} == {"number_knn", "number_probe"}
    assert found["number_probe", 1, "mean"] > 0.99 and found["number_knn", 1, "mean"] > 0.9
    assert told["scores"][0]["of_classes"][0]["name"] == "squares"
    assert "Ridge regression of numbers" in (tmp_path / "out/report.html").read_text()
    with raises("methods.mixed"):
        mk.evaluate(tmp_path / "vit", data=str(tmp_path / "shards"), methods="knn,number_knn")
