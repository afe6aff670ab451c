"""The headline: a card for each number that one looks for first."""

from html import escape

import numpy as np

from mae_kit.evaluation.bootstrap import wilson
from mae_kit.reports.folder import Folder
from mae_kit.reports.html import percent, section
from mae_kit.training.metrics import Row, clock, is_finite, series

UNDER_WAY = {
    "val_top1": "Validation top-1",
    "val_map": "Validation mean average precision",
    "knn_top1": "kNN top-1",
    "knn_map": "kNN mean average precision",
}
EVERY_CLASS = {"macro_f1": "Macro-F1", "balanced_accuracy": "Balanced accuracy"}


def cards(folder: Folder) -> str:
    rows = folder.metrics
    found = [*_score_cards(folder), *_progress_cards(rows, folder.config), *_health_cards(rows)]
    shown = f"<dl class=cards>{''.join(found)}</dl>" if any(found) else ""
    return section("Pretraining in numbers", shown) if folder.demo and shown else shown


def _score_cards(folder: Folder) -> list[str]:
    """The result, once there is one; until then the latest scores on the way."""
    result, rows = folder.result, folder.metrics
    if is_finite(result.get("map")):
        return [card("Mean average precision", percent(result["map"]), _start(folder)), *_class_cards(result)]
    if not is_finite(result.get("top1")):
        return [_score_card(rows, name, label) for name, label in UNDER_WAY.items()]
    n = result.get("samples")
    about = f"95% interval {interval(result['top1'], n)}, {_start(folder)}" if n else _start(folder)
    top5 = card("Top-5", percent(result["top5"]), f"of {n:,} images" if n else "") if "top5" in result else ""
    return [card("Top-1", percent(result["top1"]), about), top5, *_class_cards(result)]


def _class_cards(result: Row) -> list[str]:
    """What does not hide the rare classes."""
    known = {name: label for name, label in EVERY_CLASS.items() if is_finite(result.get(name))}
    return [card(label, percent(result[name]), "every class counts alike") for name, label in known.items()]


def _start(folder: Folder) -> str:
    """Where the weights came from."""
    if folder.result.get("encoder", "none") != "none":
        return "from a pretrained encoder"
    weights = (folder.config.get("model") or {}).get("weights")
    return f"from the weights {weights}" if weights else "from scratch"


def _score_card(rows: list[Row], name: str, label: str) -> str:
    steps, values = series(rows, name)
    if not values.size:
        return ""
    return card(label, percent(values[-1]), f"best {percent(values.max())}, step {int(steps[values.argmax()]):,}")


def _progress_cards(rows: list[Row], config: Row) -> list[str]:
    if not rows:
        return []
    loss, epoch, seconds = (series(rows, name)[1] for name in ("loss", "epoch", "seconds"))
    last = loss[-max(1, loss.size // 20) :]
    epochs = config.get("optimization", {}).get("epochs")
    where = f"epoch {epoch[-1]:,.1f}{f' of {epochs:,.4g}' if is_finite(epochs) else ''}" if epoch.size else ""
    averaged = f"mean of the last {len(last)} logged" if len(last) > 1 else ""
    cores = clock(rows, "core_seconds")
    worked = f"{_duration(cores)} of processor time" if cores else ""
    return [
        card("Loss", f"{last.mean():.4f}", averaged) if loss.size else "",
        card("Step", f"{rows[-1]['step']:,}", where),
        card("Time", _duration(clock(rows, "seconds")), worked) if seconds.size else "",
    ]


def _health_cards(rows: list[Row]) -> list[str]:
    rate, wait = series(rows, "images_per_second")[1], series(rows, "data_wait")[1]
    skipped, bad = series(rows, "skipped_steps")[1], series(rows, "bad_samples")[1]
    return [
        card("Throughput", f"{np.median(rate):,.0f}/s", "images per second, median") if rate.size else "",
        card("Waiting for data", percent(float(np.median(wait))), "of the time, median") if wait.size else "",
        card("Skipped steps", f"{skipped[-1]:,.0f}", "loss or gradient not finite") if skipped.any() else "",
        card("Bad samples", f"{bad[-1]:,.0f}", "replaced and listed below") if bad.any() else "",
    ]


def card(name: str, value: str, about: str = "") -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class=note>{escape(about)}</dd></div>"


def interval(share: float, samples: int) -> str:
    """Wilson's 95% interval of a share of `samples` draws."""
    low, high = wilson(share, samples)
    return f"{100 * low:.1f}–{percent(high)}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
