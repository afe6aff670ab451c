"""The whole road in minutes: shard, pretrain, look, fine-tune with few labels and with all, against no pretraining.

Each step is a verb as the command line would call it, and says so: the same words work outside the demo.
"""

import json
import logging
import multiprocessing
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.markup import escape
from rich.table import Table

from mae_kit.cli.parser import parse
from mae_kit.commands.finetune import finetune
from mae_kit.commands.pretrain import pretrain
from mae_kit.commands.report import report
from mae_kit.commands.shard import shard
from mae_kit.console import console
from mae_kit.data.packing.sources import open_source
from mae_kit.durable import replace_text
from mae_kit.errors import UserError
from mae_kit.evaluation.seeds import over_seeds, with_interval
from mae_kit.parallel.processes import cores

log = logging.getLogger(__name__)

FEW = 10  # labels a class
VAL_FRACTION = 0.2
LARGEST_SEEDS = 100
LARGEST_POOL = 8  # fine-tunings at once
RECIPES = {"pretrain": "pretrain", "finetune": "downstream"}  # the folder that each verb finds its recipes in


class Course(NamedTuple):
    """What suits one kind of images.

    Attributes:
        recipe: Name of the recipes for pretraining and for fine-tuning.
        shard: Words for `mae-kit shard`.
        pretrain_images: Images shown in pretraining; the same number whatever the size of the set.
        few_images: Images shown in each fine-tuning with few labels, pretrained or not.
        all_images: The same with all labels.
        pretrain_batch: Images a step of the pretraining, unless there are fewer.
        batch_size: Of fine-tuning, unless there are fewer images.
    """

    recipe: str
    shard: tuple[str, ...]
    pretrain_images: int
    few_images: int
    all_images: int
    pretrain_batch: int
    batch_size: int


DIGITS = Course("demo_digits", ("--channels", "1", "--resize", "32", "--quality", "95"), 60_000, 5_120, 14_400, 64, 32)
PHOTOS = Course("demo_photos", ("--resize", "96"), 90_000, 5_120, 9_600, 64, 32)
SMALL = ("--machine.threads", "1")  # models this small are slower with two, and two can be trained side by side


class Shards(NamedTuple):
    """What the trainings need to know: the folder, images to train on, and those of the smallest class."""

    path: Path
    images: int
    smallest: int
    classes: int


def demo(out: Path = Path("demo"), images: Path | None = None, seeds: int = 3) -> dict[str, Any]:
    """Show what pretraining is worth: shard, pretrain, fine-tune with few labels and with all, compare with scratch.

    Without --images it takes scikit-learn's 1,797 handwritten digits, at 32 px. The same command again goes on where
    an earlier one stopped, and repeats nothing that is done.

    Args:
        out: Folder for all of it: images, shards, runs, demo.json and report.html.
        images: Your own class folders, images of any size; they are trained on at 64 px.
        seeds: Fine-tunings of each kind; a seed draws the labeled images, their order and all new weights.

    Returns:
        The rows of the table (accuracies are shares of 1), the folder, the page, `minutes`.

    Raises:
        UserError: The images are no class folders, a class has fewer than 2, or the demo's own are not installed.
    """
    if not 1 <= seeds <= LARGEST_SEEDS:
        raise UserError("demo.demo", f"seeds is {seeds}", f"give 1 to {LARGEST_SEEDS}")
    _need_libraries()
    started = time.perf_counter()
    course = PHOTOS if images else DIGITS
    shards = _shard(images or write_digits(out / "images"), out / "shards", course)
    encoder = _pretrain(shards, out / "pretrain", course)
    few = min(FEW, shards.smallest)
    with _side_by_side() as pool:
        rows = [_compare(pool, shards, encoder, out / "finetune", course, labels, seeds) for labels in (few, None)]
    replace_text(out / "demo.json", json.dumps({"pretraining": encoder.name, "rows": rows}, indent=2))
    console.print(_table(rows))
    minutes = (time.perf_counter() - started) / 60
    log.info(f"{shards.path.parent}: {seeds} seeds, {minutes:.1f} minutes")
    return {"out": str(out), "rows": rows, "minutes": minutes, **report(out)}


def _need_libraries() -> None:
    try:
        import scipy.stats  # noqa: F401
        import sklearn.datasets  # noqa: F401
    except ImportError as error:
        raise UserError(
            "demo.need_libraries", f"the demo needs {error.name}", 'install it with pip install "mae_kit[demo]"'
        ) from None


# The steps -----------------------------------------------------------------------------------------------------------


def write_digits(folder: Path) -> Path:
    """Scikit-learn's digits (UCI, 8 x 8, 17 gray levels) as class folders of 32-px PNGs, all of them or none."""
    from sklearn.datasets import load_digits

    if folder.is_dir():
        return folder
    digits: Any = load_digits()  # typed as the tuple that it returns on demand
    making = folder.with_name(f".{folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = making / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        gray = Image.fromarray((image * (255 / 16)).round().astype(np.uint8))
        gray.resize((32, 32), Image.Resampling.BICUBIC).save(path)
    os.replace(making, folder)
    return folder


def _shard(images: Path, out: Path, course: Course) -> Shards:
    split = _check_classes(images)
    words = [str(images), str(out), *course.shard, *([] if split else ["--val-fraction", str(VAL_FRACTION)])]
    _show("shard", words)
    train = _call("shard", shard, words)["splits"]["train"]
    counts = train["classes"]
    lost = set((out / "classes.txt").read_text(encoding="utf-8").splitlines()) - set(counts)
    if lost:
        raise UserError("demo.shard", f"class {min(lost)} of {images} has no image to train on", "give it more images")
    return Shards(out, train["images"], min(counts.values()), len(counts))


def _check_classes(images: Path) -> bool:
    """Whether the folder has its own val split.

    Raises:
        UserError: There are no class folders, or a class cannot give an image to each side.
    """
    source = open_source(str(images), "auto")
    if source.classes is None:
        raise UserError(
            "demo.check_classes", f"{images} holds no class folders", "give a folder with one folder of images a class"
        )
    counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.classes))
    if counts.min() < 2:
        name = source.classes[int(counts.argmin())]
        raise UserError(
            "demo.check_classes",
            f"class {name} of {images} has {counts.min()} image",
            "give each class 2 or more, better 20",
        )
    return source.held_out is not None


def _pretrain(shards: Shards, run: Path, course: Course) -> Path:
    words = ["--config", course.recipe, "--data.path", f"{shards.path}/train-*.tar"]
    words += ["--data.knn_shards", f"{shards.path}/val-*.tar", *_epochs(course.pretrain_images / shards.images)]
    words += ["--data.batch_size", str(shards.images)] if shards.images < course.pretrain_batch else []
    words += [*SMALL, "--run", str(run)]
    _show("pretrain", words)
    _call("pretrain", pretrain, words, run)
    return run


@contextmanager
def _side_by_side() -> Iterator[ProcessPoolExecutor]:
    """A process a core; new ones, since what has started threads must not be forked."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores(), LARGEST_POOL), context, initializer=_fall_silent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fall_silent() -> None:
    """Several bars cannot share a terminal; what there is to say comes back as a result or an error."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives


def _compare(
    pool: ProcessPoolExecutor,
    shards: Shards,
    encoder: Path,
    out: Path,
    course: Course,
    labels: int | None,
    seeds: int,
) -> dict[str, Any]:
    """One row of the table: the same fine-tunings from scratch and from the encoder, seed by seed."""
    starts = {"scratch": "none", "pretrained": str(encoder)}
    common = _finetune_words(shards, course, labels)
    folder = out / (f"{labels}-labels" if labels else "all-labels")
    runs: dict[str, list[tuple[Path, Future[float]]]] = {start: [] for start in starts}
    for seed in range(seeds):
        for start, weights in starts.items():
            run = folder / f"{start}-{seed}"
            words = ["--encoder", weights, *common, "--seed", str(seed), "--run", str(run)]
            if seed == 0:  # of several alike the first is shown
                _show("finetune", words)
            runs[start].append((run, pool.submit(_finetune, words, run)))
    top1 = {start: [_told(run, result.result()) for run, result in runs[start]] for start in starts}
    gains = [pretrained - scratch for scratch, pretrained in zip(*top1.values(), strict=True)]
    scores = {**top1, "gain": gains}
    return {"labels": labels or "all", **{name: over_seeds(values)._asdict() for name, values in scores.items()}}


def _finetune(words: list[str], run: Path) -> float:
    """Top-1 of one fine-tuning, in a process of its own."""
    return _call("finetune", finetune, words, run)["top1"]


def _told(run: Path, top1: float) -> float:
    log.info(f"{run}: top-1 {top1:.1%}")
    return top1


def _finetune_words(shards: Shards, course: Course, labels: int | None) -> list[str]:
    """What all fine-tunings with so many labels have in common, the length in images shown too."""
    images = shards.classes * labels if labels else shards.images
    words = ["--config", course.recipe, "--data.path", f"{shards.path}/train-*.tar"]
    words += ["--data.val", f"{shards.path}/val-*.tar"]
    words += ["--data.labels_per_class", str(labels)] if labels else []
    words += ["--data.batch_size", str(images)] if images < course.batch_size else []
    return [
        *words,
        *_epochs((course.few_images if labels else course.all_images) / images),
        *SMALL,
        "--machine.num_workers",
        "0",
    ]


def _epochs(epochs: float) -> list[str]:
    return ["--optimization.epochs", f"{epochs:.4g}", "--optimization.warmup_epochs", f"{epochs / 10:.4g}"]


def _call(verb: str, function: Callable[..., Any], words: list[str], run: Path | None = None) -> Any:
    """Do what the command line does with these words; a run that is there goes on, or is found complete."""
    if run and (run / "config.yaml").exists():
        words = ["--resume", str(run)]
    return function(**parse(function, f"mae-kit {verb}", words, RECIPES.get(verb, "")))


def _show(verb: str, words: list[str]) -> None:
    log.info(f"\n$ mae-kit {verb} {shlex.join(words)}")


# The table -----------------------------------------------------------------------------------------------------------


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title=escape("Top-1 in %: mean over the seeds [its 95% interval]"), title_justify="left")
    table.add_column("labels a class")
    for name in ("from scratch", "pretrained", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        scores = [with_interval(row["scratch"]), with_interval(row["pretrained"]), with_interval(row["gain"], "+")]
        table.add_row(str(row["labels"]), *scores)
    return table
