"""What an encoder is worth: frozen, by three methods of the literature, together or singly; or trained with labels."""

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from mae_kit.comparison.known import subject, with_earlier
from mae_kit.comparison.ledger import must_be_folder
from mae_kit.comparison.trained import Trainings, plan_trainings, prepare, train_all
from mae_kit.console import console
from mae_kit.data.remote.filesystem import Place
from mae_kit.durable import replace_text
from mae_kit.errors import UserError
from mae_kit.evaluation.bootstrap import Score
from mae_kit.evaluation.features import Source
from mae_kit.evaluation.labeled_features import Sides, encoder_folder, frozen_sides
from mae_kit.evaluation.methods import score_fewshot, score_knn, score_probe
from mae_kit.evaluation.rank import Extent, extent
from mae_kit.evaluation.untrained import untrained_encoder
from mae_kit.parallel import Engine
from mae_kit.reports.evaluation import TOKENS
from mae_kit.reports.page import report
from mae_kit.reports.tables import frozen_table, trained_table
from mae_kit.training.config import must_be_positive
from mae_kit.training.lock import alone

log = logging.getLogger(__name__)

SHOTS, SEEDS = (1, 5, 10, 25), 5
K, TEMPERATURE = 20, 0.07
EPOCHS, BATCH = 90, 1024

Method = Callable[[Sides], Score]


def evaluate(
    encoder: Path,
    *,
    train: Place,
    val: Place,
    layers: list[int] | None = None,
    attentive: str | None = None,
    finetune: str | None = None,
    blocks: list[int | None] | None = None,
    untrained: bool = False,
    out: Path | None = None,
    seed: int = 0,
    workers: int = 0,
    engine: Engine = "processes",
) -> dict[str, Any]:
    """Say what an encoder is worth: frozen, by neighbors, few labels and a linear probe; if asked, by fine-tuning.

    The encoder sees every image once, whole and without augmentation; its features are kept beside the shards, in
    folders .features-* that may be removed, so that a job that was stopped goes on and another question costs seconds.
    `knn`, `fewshot` and `probe` ask one method alone, with its settings. The attentive probe and fine-tunings are
    trainings by `mae-kit finetune`, a folder each below OUT; the same command again goes on with them where they were
    stopped.

    Args:
        encoder: A run, any file or folder of an encoder that `mae-kit import` reads, or timm:NAME.
        train: Labeled shards to learn from: a folder, a pattern such as "DIR/train-*.tar", or a URL of these.
        val: Labeled shards to score on.
        layers: Blocks of a ViT or stages of a Swin to take features from, as "[6,12]"; by default the last.
        attentive: A recipe of `mae-kit finetune`, as attentive_tiny_64px: train attention that pools the patch tokens
            of the frozen ViT, too.
        finetune: A recipe of `mae-kit finetune`, as vit_tiny_64px: fine-tune the encoder, too.
        blocks: Fine-tune so many last blocks, a training each, as "[1,4]"; null for the whole encoder, the default.
        untrained: Judge the encoder of a pretraining or fine-tuning run with fresh weights in place of the trained
            ones: what its architecture alone is worth.
        out: Folder for evaluation.json, report.html and trainings; by default the run. Nothing is written where
            ENCODER is no run and no folder is given.
        seed: Of the linear probe, of trainings, and of fresh weights.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see ENCODER, a run, and the
            shards under the same path.

    Returns:
        `scores`: top-1 (`map`, mean average precision, where images have any number of classes) and macro-F1 with 95%
        intervals, 0..1, of each method, layer and token (mean of the patch tokens, class token), and in `of_classes`
        how well each class is told; null where a class has too few labels. `extents`: rank and spread of the features.
        `trained`: the same of each training, top-1 with its interval, or its error; `failed`: how many have one.
        evaluation.json and the page also keep what earlier calls have found of the same weights and images.

    Raises:
        UserError: No encoder, no such layer, no shards, no labels, other classes on the two sides, no such recipe, no
            such blocks, no folder for trainings, or a file in its place; a training was begun with other settings, or
            another process is at work there.
    """
    trainings = plan_trainings(attentive, finetune, blocks)
    folder = _folder(encoder, out, trainings)
    name = "evaluation-untrained" if untrained else "evaluation"
    place = folder / name if folder and trainings else None
    with alone(place) if place else nullcontext():
        with (
            untrained_encoder(encoder, seed) if untrained else nullcontext(encoder) as judged,
            encoder_folder(judged) as own,
        ):
            about = subject(own, train, val) if folder else {}
            stages = prepare(trainings, own, encoder, train, val, about["fingerprints"], seed, place) if place else {}
            sides = frozen_sides(own, train, val, layers or (), workers, engine)
        found = {**_judge(sides, _methods(seed)), "extents": _extents(sides), "trained": []}
        result = {"encoder": str(encoder), **about, **found}
        page = _keep(result, folder, name) if folder else {}
        if folder and stages:
            result["trained"] = train_all(stages)
            _tell_trained(result["trained"])
            page = _keep(result, folder, name)
    return result | page | {"failed": sum("error" in one for one in result["trained"])}


def knn(
    encoder: Path,
    *,
    train: Place,
    val: Place,
    layers: list[int] | None = None,
    k: int = K,
    temperature: float = TEMPERATURE,
    workers: int = 0,
) -> dict[str, Any]:
    """Score a frozen encoder by the weighted vote of each image's nearest neighbors, in cosine.

    Args:
        encoder: A run, any file or folder of an encoder that `mae-kit import` reads, or timm:NAME.
        train: Labeled shards with the neighbors: a folder, a pattern such as "DIR/train-*.tar", or a URL of these.
        val: Labeled shards to score on.
        layers: Blocks of a ViT or stages of a Swin to take features from, as "[6,12]"; by default the last.
        k: Neighbors that vote.
        temperature: A neighbor's vote weighs exp(cosine / temperature).
        workers: Processes; 0 = one a core, or a single one where there is a GPU.

    Returns:
        Top-1 with its 95% interval, 0..1, for each layer, the mean of the patch tokens and the class token; mean
        average precision where images have any number of classes. Of each class precision, recall and F1.

    Raises:
        UserError: No encoder, no such layer, no shards, no labels, other classes on the two sides, or a number that is
            not positive.
    """
    must_be_positive({"k": k, "temperature": temperature})
    methods: dict[str, Method] = {"knn": partial(score_knn, k=k, temperature=temperature)}
    return _judge(frozen_sides(encoder, train, val, layers or (), workers), methods)


def fewshot(
    encoder: Path,
    *,
    train: Place,
    val: Place,
    layers: list[int] | None = None,
    shots: list[int] | None = None,
    seeds: int = SEEDS,
    workers: int = 0,
) -> dict[str, Any]:
    """Score a frozen encoder by ridge regression on a few labeled images of each class (as big_vision does).

    Args:
        encoder: A run, any file or folder of an encoder that `mae-kit import` reads, or timm:NAME.
        train: Labeled shards to draw from: a folder, a pattern such as "DIR/train-*.tar", or a URL of these.
        val: Labeled shards to score on.
        layers: Blocks of a ViT or stages of a Swin to take features from, as "[6,12]"; by default the last.
        shots: Images of each class, as "[1,5]"; by default 1, 5, 10 and 25. Those that a class does not have are left
            out.
        seeds: Draws to take the mean of.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.

    Returns:
        Top-1 with its 95% interval over images and draws, 0..1, for each layer, the mean of the patch tokens and the
        class token; mean average precision where images have any number of classes. Of each class precision, recall
        and F1, of all draws together.

    Raises:
        UserError: No encoder, no such layer, no shards, no labels, other classes on the two sides, or a number that is
            not positive.
    """
    chosen = tuple(shots or SHOTS)
    must_be_positive({"shots": min(chosen), "seeds": seeds})
    return _judge(frozen_sides(encoder, train, val, layers or (), workers), _fewshot_methods(chosen, seeds))


def probe(
    encoder: Path,
    *,
    train: Place,
    val: Place,
    layers: list[int] | None = None,
    epochs: int = EPOCHS,
    batch_size: int = BATCH,
    seed: int = 0,
    workers: int = 0,
) -> dict[str, Any]:
    """Score a frozen encoder by a linear layer trained on its features: LARS behind batch normalization, as in MAE.

    There is no augmentation, since each image is seen once; the learning rate is chosen on a tenth of the training
    images.

    Args:
        encoder: A run, any file or folder of an encoder that `mae-kit import` reads, or timm:NAME.
        train: Labeled shards to train on: a folder, a pattern such as "DIR/train-*.tar", or a URL of these.
        val: Labeled shards to score on.
        layers: Blocks of a ViT or stages of a Swin to take features from, as "[6,12]"; by default the last.
        epochs: Rounds through the features; more where that is less than 500 steps.
        batch_size: Images a step; 16,384 in MAE, for a million images.
        seed: Of weights and order.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.

    Returns:
        Top-1 with its 95% interval, 0..1, for each layer, the mean of the patch tokens and the class token; mean
        average precision where images have any number of classes. Of each class precision, recall and F1.

    Raises:
        UserError: No encoder, no such layer, no shards, no labels, other classes on the two sides, or a number that is
            not positive.
    """
    must_be_positive({"epochs": epochs, "batch_size": batch_size})
    methods: dict[str, Method] = {"probe": partial(score_probe, epochs=epochs, batch_size=batch_size, seed=seed)}
    return _judge(frozen_sides(encoder, train, val, layers or (), workers), methods)


def _folder(encoder: Path, out: Path | None, trainings: Trainings) -> Path | None:
    """Where results go; a run keeps its own."""
    folder = out or (encoder if (encoder / "config.yaml").is_file() else None)
    if trainings and not folder:
        raise UserError(
            "evaluate.folder", f"{encoder} is no run, and there is no folder for trainings", "add --out DIR"
        )
    if folder:
        must_be_folder(folder)
    return folder


def _keep(result: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Write what is known so far, and the page of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    replace_text(path, json.dumps(with_earlier(result, path), indent=2))
    return report(folder)


def _methods(seed: int) -> dict[str, Method]:
    """All that ask frozen features, as the literature sets them."""
    methods: dict[str, Method] = {"knn": partial(score_knn, k=K, temperature=TEMPERATURE)}
    methods |= _fewshot_methods(SHOTS, SEEDS)
    return methods | {"probe": partial(score_probe, epochs=EPOCHS, batch_size=BATCH, seed=seed)}


def _fewshot_methods(shots: tuple[int, ...], seeds: int) -> dict[str, Method]:
    return {f"fewshot {count}": partial(score_fewshot, shots=count, seeds=seeds) for count in shots}


def _judge(sides: dict[Source, Sides], methods: dict[str, Method]) -> dict[str, Any]:
    """Ask every method about every kind of features."""
    scores = [
        {"method": name, **source._asdict(), **method(side).record(side.classes)}
        for name, method in methods.items()
        for source, side in sides.items()
    ]
    one = next(iter(sides.values()))
    counts = {"train": len(one.train.labels), "val": len(one.val.labels), "classes": len(one.classes)}
    console.print(frozen_table(scores))
    log.info(f"{counts['train']:,} images known, {counts['val']:,} scored, {counts['classes']} classes")
    return counts | {"scores": scores}


def _extents(sides: dict[Source, Sides]) -> list[dict[str, Any]]:
    """How much room the features take, said aloud."""
    extents = {source: extent(side.train.features) for source, side in sides.items()}
    for source, found in extents.items():
        _tell_extent(f"layer {source.layer}, {TOKENS[source.token]}", found)
    return [source._asdict() | found._asdict() for source, found in extents.items()]


def _tell_extent(features: str, found: Extent) -> None:
    log.info(f"{features}: rank {found.rank:.1f} of {found.dim}, spread {found.spread:.2g}")
    if found.collapsed:
        log.warning(f"{features}: they have COLLAPSED: images can hardly be told apart, and no score above means much")


def _tell_trained(records: list[dict[str, Any]]) -> None:
    console.print(trained_table(records))
    for record in records:
        if "error" in record:
            log.warning(f"{record['method']} FAILED: {record['error']}")
