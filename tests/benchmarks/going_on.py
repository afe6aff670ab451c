"""Go on from an encoder of another program with MAE, or begin from scratch: kNN after as many epochs, at several rates.

    python tests/benchmarks/going_on.py FOLDER

Timm's ViT of the recipe demo_digits learns, by timm and torch alone, to tell the digits 0 to 4 apart; pretraining on
all ten digits goes on from its bare state dict. kNN is scored on all ten, on images that neither has seen.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import yaml
from torch.nn.functional import cross_entropy

import mae_kit
from mae_kit.commands.demo import write_digits
from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.evaluation.seeds import over_seeds, with_interval
from mae_kit.files.recipe_file import FOLDER

KNOWN, EPOCHS, RATES = 5, 10, (3e-3, 6e-4)  # the rate of the recipe, and a fifth of it
RECIPE = FOLDER / "pretrain/demo_digits.yaml"
SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "in_chans": 1, "embed_dim": 96, "depth": 4, "num_heads": 3}


def other_encoder(shards: Path, file: Path, seed: int) -> Path:
    """Train timm's ViT on five classes and write its state dict."""
    torch.manual_seed(seed)
    data = yaml.safe_load(RECIPE.read_text())["data"]
    index = open_index(f"{shards}/train-*.tar")
    rows = np.flatnonzero(index.label < KNOWN)
    batch = EvaluationBatches(index, rows, len(rows), (32, 32), 1)[0]
    images = (batch.images / 255 - data["mean"][0]) / data["std"][0]
    model = timm.create_model("vit_tiny_patch16_224", num_classes=KNOWN, **SIZES)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    for _ in range(15):
        for some in torch.randperm(len(images)).split(64):
            loss = cross_entropy(model(images[some]), batch.labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.save({name: value for name, value in model.state_dict().items() if not name.startswith("head.")}, file)
    return file


def knn(encoder: Path, shards: Path) -> float:
    found: Any = mae_kit.evaluate(encoder, data=str(shards), methods="knn", workers=1)
    return max(row["top1"] for row in found["scores"])


def pretrained(folder: Path, name: str, shards: Path, seed: int, rate: float, init: Path | None) -> float:
    run = folder / name
    how: dict[str, Any] = {"optimization.learning_rate": rate, "machine.num_workers": 0, "machine.threads": 1}
    how |= {"optimization.warmup_epochs": 1} | ({"init": init} if init else {})
    mae_kit.pretrain("demo_digits", data=str(shards), run=run, epochs=EPOCHS, seed=seed, **how)
    return knn(run, shards)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    settings = parser.parse_args()
    folder: Path = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    shards = folder / "shards"
    mae_kit.shard(str(write_digits(folder / "images")), shards, channels=1, val_fraction=0.2, workers=1)
    found: dict[str, list[float]] = {}
    for seed in range(settings.seeds):
        theirs = other_encoder(shards, folder / f"timm-{seed}.pth", seed)
        mae_kit.import_(theirs, folder / f"theirs-{seed}", encoder_heads=3, mean=[0.308], std=[0.348])
        found.setdefault("theirs", []).append(knn(folder / f"theirs-{seed}", shards))
        for rate in RATES:
            for kind, init in (("from scratch", None), ("going on", theirs)):
                name = f"{kind}, rate {rate:g}"
                score = pretrained(folder, f"{name}-{seed}".replace(" ", "-"), shards, seed, rate, init)
                found.setdefault(name, []).append(score)
                print(name, seed, f"{score:.3f}", flush=True)
    for name, scores in found.items():
        each = ", ".join(f"{100 * score:.1f}" for score in scores)
        print(f"| {name} | {each}: {with_interval(over_seeds(scores)._asdict())} |")


if __name__ == "__main__":
    main()
