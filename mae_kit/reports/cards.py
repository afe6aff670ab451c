"""The headline of a page: one card for each number that a reader looks for first."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from mae_kit.evaluation.bootstrap import wilson
from mae_kit.evaluation.verdict import may_be_chance
from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.folder import Folder
from mae_kit.reports.render import percent, render
from mae_kit.training.metrics import KNN_IMAGES, Row, clock, is_finite, series
from mae_kit.training.progress import told_epochs

DURING_TRAINING = {
    "val_top1": "Validation top-1",
    "val_map": "Validation mean average precision",
    "val_miou": "Validation mean IoU",
    "val_map50": "Validation mAP50",
    "val_r2": "Validation R2",
    "knn_top1": "kNN top-1",
    "knn_map": "kNN mean average precision",
}
CLASS_MEANS = {"macro_f1": "Macro-F1", "balanced_accuracy": "Balanced accuracy"}


class Card(NamedTuple):
    """A number with its name and a few words on it."""

    name: str
    value: str
    about: str = ""


def cards(folder: Folder) -> Markup:
    """Show scores, progress, time and throughput of a run."""
    found = [*_scores(folder), *_best(folder), *_progress(folder.metrics, folder.config), *_health(folder.metrics)]
    return (
        render("cards.html", cards=found, heading="Pretraining in numbers" if folder.demo else "")
        if found
        else Markup()
    )


def _scores(folder: Folder) -> Iterator[Card]:
    """The final result, or the latest scores of a run that has not ended."""
    result, start = folder.result, _start(folder)
    if is_finite(result.get("map50")):
        yield Card("mAP50", percent(result["map50"]), start)
    if is_finite(result.get("miou")):
        yield Card("Mean IoU", percent(result["miou"]), start)
        yield Card("Pixel accuracy", percent(result["pixel_accuracy"]), "of the pixels that are not ignored")
    elif is_finite(result.get("r2")):
        yield Card("R2", f"{result['r2']:.3f}", start)
        yield Card(
            "Mean absolute error", f"{result['mae']:.4g}", "mean over the numbers" * (len(result["of_numbers"]) > 1)
        )
    elif is_finite(result.get("map")):
        yield Card("Mean average precision", percent(result["map"]), start)
    elif is_finite(result.get("top1")):
        n = result.get("samples")
        yield Card(
            "Top-1", percent(result["top1"]), f"95% interval {interval(result['top1'], n)}, {start}" if n else start
        )
        if "top5" in result:
            yield Card("Top-5", percent(result["top5"]), f"of {n:,} images" if n else "")
    else:
        yield from _latest_scores(folder.metrics)
        return
    for name, label in CLASS_MEANS.items():
        if is_finite(result.get(name)):
            yield Card(label, percent(result[name]), "mean over classes")
    if "labeled_images" in result:
        held_out = f"with labels; {result['samples']:,} to score on"
        yield Card("Training images", f"{result['labeled_images']:,}", held_out)


def _start(folder: Folder) -> str:
    """Where the weights came from."""
    if folder.result.get("encoder", "none") != "none":
        return "from a pretrained encoder"
    weights = (folder.config.get("model") or {}).get("weights")
    return f"from the weights {weights}" if weights else "from scratch"


def _latest_scores(rows: list[Row]) -> Iterator[Card]:
    for name, label in DURING_TRAINING.items():
        steps, values = series(rows, name)
        if values.size:
            best = f"best {percent(values.max())}, step {int(steps[values.argmax()]):,}"
            yield Card(label, percent(values[-1]), best + _gain(rows, name))


def _gain(rows: list[Row], name: str) -> str:
    """What a kNN score has gained, as the command says it at its end."""
    (steps, values), (_, images) = series(rows, name), series(rows, KNN_IMAGES)
    if not name.startswith("knn") or len(values) < 2 or steps[0]:
        return ""
    before, after = values[[0, -1]].tolist()
    chance = may_be_chance(before, after, int(images[-1]) if images.size else 0)
    return f"; {percent(before)} before training" + ", which may be chance" * chance


def _best(folder: Folder) -> Iterator[Card]:
    """The weights that a training with `--keep best` has kept."""
    if best := folder.best:
        metric = DURING_TRAINING.get(best["metric"], best["metric"])
        yield Card(
            "Best weights",
            percent(best["value"]),
            f"{metric}, step {best['step']:,}, in {RunFolder(folder.path).best.path}",
        )


def _progress(rows: list[Row], config: Row) -> Iterator[Card]:
    loss, epoch, seconds = (series(rows, name)[1] for name in ("loss", "epoch", "seconds"))
    if loss.size:
        last = loss[-max(1, loss.size // 20) :]
        yield Card("Loss", f"{last.mean():.4f}", f"mean of the last {len(last)} logged" if len(last) > 1 else "")
    if rows:
        steps = rows[-1]["step"]
        about = f"epoch {epoch[-1]:,.1f}{_of_epochs(config, epoch[-1], steps)}" if epoch.size else ""
        yield Card("Step", f"{steps:,}", about)
    if seconds.size:
        cores = clock(rows, "core_seconds")
        yield Card("Time", _duration(clock(rows, "seconds")), f"{_duration(cores)} of CPU time" if cores else "")


def _of_epochs(config: Row, epoch: float, step: int) -> str:
    """The length of the run in whole steps, which `min_steps` stretches on few images."""
    optimization = config.get("optimization", {})
    epochs, least = optimization.get("epochs"), optimization.get("min_steps", 0)
    if not (is_finite(epochs) and is_finite(least) and step and epoch):
        return ""
    return f" of {told_epochs(max(1, least, round(epochs * step / epoch)) * epoch / step)}"


def _health(rows: list[Row]) -> Iterator[Card]:
    rate, wait = series(rows, "images_per_second")[1], series(rows, "data_wait")[1]
    skipped, bad = series(rows, "skipped_steps")[1], series(rows, "bad_samples")[1]
    if rate.size:
        yield Card("Throughput", f"{np.median(rate):,.0f}/s", "images per second, median")
    if wait.size:
        yield Card("Waiting for data", percent(float(np.median(wait))), "of the time, median")
    if skipped.any():
        yield Card("Skipped steps", f"{skipped[-1]:,.0f}", "loss or gradient not finite")
    if bad.any():
        yield Card("Bad samples", f"{bad[-1]:,.0f}", "replaced and listed below")


def interval(fraction: float, samples: int) -> str:
    """Format Wilson's 95% interval of a fraction of `samples` independent draws."""
    low, high = wilson(fraction, samples)
    return f"{100 * low:.1f}–{percent(high)}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
