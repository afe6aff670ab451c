"""Show what pretraining is worth in minutes: pack, pretrain, then fine-tune from the encoder and from scratch."""

import json
import logging
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.table import Table

from mae_kit.commands.report import report
from mae_kit.commands.shard import shard
from mae_kit.comparison.orchestrate import Step, run_all
from mae_kit.comparison.steps import training
from mae_kit.console import console
from mae_kit.data.packing.sources import open_source
from mae_kit.errors import UserError
from mae_kit.evaluation.seeds import over_seeds, with_interval
from mae_kit.evaluation.verdict import verdict
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.parallel.processes import cores

log = logging.getLogger(__name__)

FEW = 10  # labels per class
VAL_FRACTION = 0.2
MAX_SEEDS = 100
MAX_AT_ONCE = 8  # fine-tuning runs
STARTS = ("scratch", "pretrained")


class Course(NamedTuple):
    """Settings for one kind of images.

    Attributes:
        recipe: Name of the recipes for pretraining and for fine-tuning.
        shard: Options of `mae-kit shard`.
        pretrain_images: Images seen in pretraining, whatever the size of the dataset.
        few_images: Images seen in each fine-tuning run with few labels.
        all_images: Images seen in each fine-tuning run with all labels.
    """

    recipe: str
    shard: dict[str, Any]
    pretrain_images: int
    few_images: int
    all_images: int


DIGITS = Course("demo_digits", {"channels": 1, "resize": 32, "quality": 95}, 60_000, 5_120, 14_400)
PHOTOS = Course("demo_photos", {"resize": 96}, 90_000, 5_120, 9_600)
ONE_THREAD = {"machine.threads": 1}  # models this small are slower with two, and two can be trained side by side


class Shards(NamedTuple):
    """The packed images: their folder, how many are for training, those of the smallest class, and the classes."""

    path: Path
    images: int
    smallest: int
    classes: int

    @property
    def train(self) -> str:
        return f"{self.path}/train-*.tar"

    @property
    def val(self) -> str:
        return f"{self.path}/val-*.tar"


def demo(out: Path = Path("demo"), images: Path | None = None, seeds: int = 3) -> dict[str, Any]:
    """Show what pretraining gains: pack, pretrain, fine-tune with few labels and with all, train from scratch, compare.

    Without --images it uses scikit-learn's 1,797 handwritten digits, at 32 px. Repeating the command resumes the demo
    and skips what is complete. Each step is a command that also works outside the demo.

    Args:
        out: Folder for everything: images, shards, runs, demo.json and report.html.
        images: Your own folder with one subfolder of images per class; images of any size, used at 64 px.
        seeds: Number of fine-tuning runs for each setting; the seed determines the labeled images, their order and the
            initial weights.

    Returns:
        The `rows` of the table (accuracies from 0 to 1), the `conclusion` in one sentence, the folder, the report,
        `minutes`.

    Raises:
        UserError: The images are not in class folders, a class has fewer than 2, a step failed, or the libraries of the
            demo are not installed.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise UserError("seeds", f"seeds is {seeds}", f"give 1 to {MAX_SEEDS}")
    _check_libraries()
    started = time.perf_counter()
    course = PHOTOS if images else DIGITS
    shards = _shard(images or write_digits(out / "images"), out / "shards", course)
    pretraining = _pretrain(shards, out / "pretrain", course)
    _results([pretraining], 1)
    rows = _compare(shards, pretraining.run, out / "finetune", course, seeds)
    about: dict[str, Any] = {"images": str(images) if images else None, "rows": rows, "conclusion": conclusion(rows[0])}
    replace_text(RunFolder(out).demo, json.dumps({"pretraining": pretraining.run.name} | about, indent=2))
    console.print(_table(rows))
    page = report(out)
    minutes = (time.perf_counter() - started) / 60
    log.info(f"{out}: {seeds} seeds, {minutes:.1f} minutes")
    log.info(about["conclusion"])
    return {"out": str(out), "rows": rows, "conclusion": about["conclusion"], "minutes": minutes, **page}


def _check_libraries() -> None:
    try:
        import scipy.stats  # noqa: F401
        import sklearn.datasets  # noqa: F401
    except ImportError as error:
        fix = 'install it with pip install "mae_kit[demo]"'
        raise UserError("demo.libraries", f"the demo needs {error.name}", fix) from None


# The steps -----------------------------------------------------------------------------------------------------------


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's digits (UCI, 8 x 8, 17 gray levels) as class folders of 32-px PNGs, all or none."""
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
    options: dict[str, Any] = course.shard if _has_split(images) else course.shard | {"val_fraction": VAL_FRACTION}
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    log.info(f"\n$ mae-kit shard {shlex.join([str(images), str(out)])} {' '.join(words)}")
    train = shard(str(images), out, **options)["splits"]["train"]
    counts = train["classes"]
    lost = set((out / "classes.txt").read_text(encoding="utf-8").splitlines()) - set(counts)
    if lost:
        raise UserError("images.lost", f"class {min(lost)} of {images} has no training image", "add images to it")
    return Shards(out, train["images"], min(counts.values()), len(counts))


def _has_split(images: Path) -> bool:
    """Return whether the folder has its own val split.

    Raises:
        UserError: There are no class folders, or a class has fewer than 2 images.
    """
    source = open_source(str(images), "auto")
    if source.classes is None:
        raise UserError(
            "images.classes", f"{images} holds no class folders", "give a folder with one subfolder of images per class"
        )
    counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.classes))
    if counts.min() < 2:
        name = source.classes[int(counts.argmin())]
        raise UserError(
            "images.few",
            f"class {name} of {images} has {counts.min()} image",
            "give each class at least 2 images, preferably 20",
        )
    return source.held_out is not None


def _pretrain(shards: Shards, run: Path, course: Course) -> Step:
    options = _length(course.pretrain_images, shards.images) | ONE_THREAD
    return training("pretrain", course.recipe, options, {"data.path": shards.train, "data.knn_shards": shards.val}, run)


def _finetune(shards: Shards, encoder: str, labels: int | None, seed: int, run: Path, course: Course) -> Step:
    images = shards.classes * labels if labels else shards.images
    options = _length(course.few_images if labels else course.all_images, images)
    options |= ({"data.labels_per_class": labels} if labels else {}) | {"machine.num_workers": 0, "seed": seed}
    places = {"data.path": shards.train, "data.val": shards.val, "encoder": encoder}
    return training("finetune", course.recipe, options | ONE_THREAD, places, run)


def _length(seen: int, images: int) -> dict[str, Any]:
    """Return the options of a run that sees so many images."""
    epochs = seen / images
    return {"optimization.epochs": f"{epochs:.4g}", "optimization.warmup_epochs": f"{epochs / 10:.4g}"}


def _compare(shards: Shards, encoder: Path, out: Path, course: Course, seeds: int) -> list[dict[str, Any]]:
    """Fine-tune in the same way from scratch and from the encoder; return a row for few labels and one for all."""
    steps = {}
    for labels in (min(FEW, shards.smallest), None):
        folder = out / (f"{labels}-labels" if labels else "all-labels")
        for seed in range(seeds):
            for start, weights in zip(STARTS, ("none", str(encoder)), strict=True):
                step = _finetune(shards, weights, labels, seed, folder / f"{start}-{seed}", course)
                steps[labels, start, seed] = step
                if seed == 0:
                    log.info(f"\n$ mae-kit {shlex.join(step.start)}")
    results = _results(list(steps.values()), min(cores(), MAX_AT_ONCE))
    top1 = {key: result["top1"] for key, result in zip(steps, results, strict=True)}
    return [_row(labels, top1, seeds) for labels in dict.fromkeys(labels for labels, _, _ in steps)]


def _results(steps: list[Step], workers: int) -> list[dict[str, Any]]:
    outcomes = run_all(steps, workers)
    for step, outcome in zip(steps, outcomes, strict=True):
        if "error" in outcome:
            raise UserError("demo.step", f"{step.run} failed: {outcome['error']}", "repeat the command")
    return [outcome["result"] for outcome in outcomes]


def _row(labels: int | None, top1: dict[tuple[int | None, str, int], float], seeds: int) -> dict[str, Any]:
    scores = {start: [top1[labels, start, seed] for seed in range(seeds)] for start in STARTS}
    gains = [pretrained - scratch for scratch, pretrained in zip(*scores.values(), strict=True)]
    measured = {name: over_seeds(values)._asdict() for name, values in (scores | {"gain": gains}).items()}
    return {"labels": labels or "all", **measured}


# The results ---------------------------------------------------------------------------------------------------------


def conclusion(row: dict[str, Any]) -> str:
    """Return one sentence on the gain by pretraining, with its 95% interval, which may contain 0.

    Args:
        row: A row of the table.
    """
    runs = len(row["gain"]["seeds"])
    return verdict(row["gain"], f"{row['labels']} labels per class", f"{runs} fine-tuning runs from one encoder")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Top-1 in %: mean over the seeds [its 95% interval]", title_justify="left")
    table.add_column("labels per class")
    for name in ("from scratch", "pretrained", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        scores = [with_interval(row["scratch"]), with_interval(row["pretrained"]), with_interval(row["gain"], "+")]
        table.add_row(str(row["labels"]), *scores)
    return table
