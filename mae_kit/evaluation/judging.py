"""What a frozen encoder is worth, by three methods of the literature, together or singly: four verbs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mae_kit.console import console, is_hushed, say
from mae_kit.data.remote import Place
from mae_kit.evaluation.intervals import Score
from mae_kit.evaluation.methods import score_fewshot, score_knn, score_probe
from mae_kit.evaluation.rank import Extent, extent
from mae_kit.evaluation.sides import CLASS, MEAN, Sides, frozen_sides
from mae_kit.training.settings import must_be_positive

SHOTS, SEEDS = (1, 5, 10, 25), 5
K, TEMPERATURE = 20, 0.07
EPOCHS, BATCH = 90, 1024

Method = Callable[[Sides], Score | None]

_HEADINGS = {MEAN: "mean of patches", CLASS: "class token"}


def evaluate(encoder: Path, *, train: Place, val: Place, seed: int = 0, workers: int = 0) -> dict[str, Any]:
    """Say what a frozen encoder is worth, by neighbours, few labels and a linear probe; and whether it collapsed.

    The encoder sees every image once, whole and without augmentation; its features are kept beside the shards, so that
    a job that was stopped goes on and another question costs seconds. `knn`, `fewshot` and `probe` ask one method
    alone, with its settings.

    Args:
        encoder: A run, or any file or folder of a vision transformer that `mae-kit import` reads.
        train: Labelled shards to learn from: a folder, a pattern such as "DIR/train-*.tar", or a URL of these.
        val: Labelled shards to score on.
        seed: Of the linear probe.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.

    Returns:
        Top-1 with its 95% interval, 0..1, by method and by what the features are made of (mean of the patch tokens,
        class token); and their rank and spread.

    Raises:
        UserError: No encoder, no shards, no labels, or other classes on the two sides.
    """
    methods: dict[str, Method] = {"knn": partial(score_knn, k=K, temperature=TEMPERATURE)}
    methods |= _fewshot_methods(SHOTS, SEEDS)
    methods |= {"probe": partial(score_probe, epochs=EPOCHS, batch_size=BATCH, seed=seed)}
    sides = frozen_sides(encoder, train, val, workers)
    extents = {token: extent(side.train.features) for token, side in sides.items()}
    result = _judge(sides, methods)
    for token, found in extents.items():
        _tell_extent(_HEADINGS[token], found)
    return result | {"extent": {token: found._asdict() for token, found in extents.items()}}


def knn(
    encoder: Path, *, train: Place, val: Place, k: int = K, temperature: float = TEMPERATURE, workers: int = 0
) -> dict[str, Any]:
    """Score a frozen encoder by the weighted vote of each image's nearest neighbours, in cosine.

    Args:
        encoder: A run, or any file or folder of a vision transformer that `mae-kit import` reads.
        train: Labelled shards with the neighbours: a folder, a pattern such as "DIR/train-*.tar", or a URL of these.
        val: Labelled shards to score on.
        k: Neighbours that vote.
        temperature: A neighbour's vote weighs exp(cosine / temperature).
        workers: Processes; 0 = one a core, or a single one where there is a GPU.

    Returns:
        Top-1 with its 95% interval, 0..1, for the mean of the patch tokens and for the class token.

    Raises:
        UserError: No encoder, no shards, no labels, other classes on the two sides, or a number that is not positive.
    """
    must_be_positive({"k": k, "temperature": temperature})
    return _judge(frozen_sides(encoder, train, val, workers), {"knn": partial(score_knn, k=k, temperature=temperature)})


def fewshot(
    encoder: Path, *, train: Place, val: Place, shots: list[int] | None = None, seeds: int = SEEDS, workers: int = 0
) -> dict[str, Any]:
    """Score a frozen encoder by ridge regression on a few labelled images of each class (as big_vision does).

    Args:
        encoder: A run, or any file or folder of a vision transformer that `mae-kit import` reads.
        train: Labelled shards to draw from: a folder, a pattern such as "DIR/train-*.tar", or a URL of these.
        val: Labelled shards to score on.
        shots: Images of each class, as "[1,5]"; by default 1, 5, 10 and 25. Those that a class does not have are left
            out.
        seeds: Draws to take the mean of.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.

    Returns:
        Top-1 with its 95% interval over images and draws, 0..1, for the mean of the patch tokens and for the class
        token.

    Raises:
        UserError: No encoder, no shards, no labels, other classes on the two sides, or a number that is not positive.
    """
    chosen = tuple(shots or SHOTS)
    must_be_positive({"shots": min(chosen), "seeds": seeds})
    return _judge(frozen_sides(encoder, train, val, workers), _fewshot_methods(chosen, seeds))


def probe(
    encoder: Path,
    *,
    train: Place,
    val: Place,
    epochs: int = EPOCHS,
    batch_size: int = BATCH,
    seed: int = 0,
    workers: int = 0,
) -> dict[str, Any]:
    """Score a frozen encoder by a linear layer trained on its features: LARS behind batch normalisation, as in MAE.

    There is no augmentation, since each image is seen once; the learning rate is chosen on a tenth of the training
    images.

    Args:
        encoder: A run, or any file or folder of a vision transformer that `mae-kit import` reads.
        train: Labelled shards to train on: a folder, a pattern such as "DIR/train-*.tar", or a URL of these.
        val: Labelled shards to score on.
        epochs: Rounds through the features; more where that is less than 500 steps.
        batch_size: Images a step; 16,384 in MAE, for a million images.
        seed: Of weights and order.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.

    Returns:
        Top-1 with its 95% interval, 0..1, for the mean of the patch tokens and for the class token.

    Raises:
        UserError: No encoder, no shards, no labels, other classes on the two sides, or a number that is not positive.
    """
    must_be_positive({"epochs": epochs, "batch_size": batch_size})
    methods: dict[str, Method] = {"probe": partial(score_probe, epochs=epochs, batch_size=batch_size, seed=seed)}
    return _judge(frozen_sides(encoder, train, val, workers), methods)


def _fewshot_methods(shots: tuple[int, ...], seeds: int) -> dict[str, Method]:
    return {f"fewshot {count}": partial(score_fewshot, shots=count, seeds=seeds) for count in shots}


def _judge(sides: dict[str, Sides], methods: dict[str, Method]) -> dict[str, Any]:
    """Ask every method about every kind of features."""
    scores = {name: {token: method(side) for token, side in sides.items()} for name, method in methods.items()}
    one = sides[MEAN]
    counts = {"train": len(one.train.labels), "val": len(one.val.labels), "classes": one.classes}
    if not is_hushed():
        console.print(_table(scores, list(sides)))
    say(f"{counts['train']:,} images known, {counts['val']:,} scored, {counts['classes']} classes")
    told = {name: {token: each and each._asdict() for token, each in row.items()} for name, row in scores.items()}
    return counts | {"scores": told}


def _table(scores: dict[str, dict[str, Score | None]], tokens: list[str]) -> Table:
    table = Table(title=escape("Top-1 in % [its 95% interval]"), title_justify="left")
    table.add_column("method")
    for token in tokens:
        table.add_column(_HEADINGS[token], justify="right", no_wrap=True)
    for name, row in scores.items():
        table.add_row(name, *(escape(_percent(row[token])) for token in tokens))
    return table


def _percent(found: Score | None) -> str:
    if found is None:
        return "too few labels"
    top1, low, high = (100 * value for value in found)
    return f"{top1:.1f} [{low:.1f}, {high:.1f}]"


def _tell_extent(heading: str, found: Extent) -> None:
    say(f"{heading}: rank {found.rank:.1f} of {found.dim}, spread {found.spread:.2g}")
    if found.collapsed:
        say(f"{heading}: the features have COLLAPSED: images can hardly be told apart, and no score above means much")
