"""A run folder -> one HTML page that needs nothing else: no network, no script, readable on a phone and on paper."""

import logging
from collections import Counter
from pathlib import Path

from markupsafe import Markup

from mae_kit.durable import replace_text
from mae_kit.errors import UserError
from mae_kit.reports.cards import cards
from mae_kit.reports.classes import classes
from mae_kit.reports.commands import next_steps
from mae_kit.reports.comparison import comparison
from mae_kit.reports.curves import curves
from mae_kit.reports.demo import demo
from mae_kit.reports.evaluation import evaluation
from mae_kit.reports.folder import Folder, read_folder
from mae_kit.reports.images import plots, reconstructions
from mae_kit.reports.render import page, render
from mae_kit.training.metrics import Row

log = logging.getLogger(__name__)

PLOTS = "inside"  # folder of a run
SHOWN = 50  # bad samples


def report(run: Path) -> dict[str, str]:
    """Write RUN/report.html: numbers, curves, reconstructions, evaluation, confusions and recipe on one page.

    Args:
        run: The folder that pretrain, finetune, evaluate, demo or compare wrote; the run may still be going.

    Returns:
        {"report": path of the page}.

    Raises:
        UserError: There is no such folder, nothing of a run in it, or the page cannot be written there.
    """
    if not run.is_dir():
        raise UserError(
            "page.report", f"{run} is no folder", "give the run folder that pretrain, finetune or demo wrote"
        )
    folder = read_folder(run)
    sections = _sections(folder)
    if not any(sections):
        raise UserError(
            "page.report", f"{run} holds no run", "give a folder with metrics.jsonl, result.json or config.yaml in it"
        )
    path = run / "report.html"
    _write(path, page(f"{folder.kind}: {run.resolve().name}", *sections, next_steps(folder)))
    log.info(f"report: {path}")
    return {"report": str(path)}


def _sections(folder: Folder) -> tuple[Markup, ...]:
    """What the folder has data for, from top to bottom; the others are empty."""
    return (
        demo(folder.demo),
        comparison(folder.path, folder.compared),
        cards(folder),
        evaluation(folder.evaluation, folder.untrained, folder.step),
        curves(folder.metrics),
        reconstructions(folder.training / "reconstructions"),
        plots(folder.training / PLOTS),
        classes(folder.result),
        bad_samples(folder.quarantine),
        recipe(folder),
    )


def bad_samples(samples: list[Row]) -> Markup:
    """Show the images that training could not decode, and why."""
    if not samples:
        return Markup()
    shown = [[str(sample.get(name, "")) for name in ("shard", "key", "offset", "reason")] for sample in samples[:SHOWN]]
    reason = Counter(str(sample.get("reason", "")) for sample in samples).most_common(1)[0][0]
    return render("bad_samples.html", count=len(samples), samples=shown, reason=reason)


def recipe(folder: Folder) -> Markup:
    """Show config.yaml."""
    path = folder.training / "config.yaml"
    return render("recipe.html", text=path.read_text("utf-8", errors="replace")) if path.is_file() else Markup()


def _write(path: Path, text: str) -> None:
    try:
        replace_text(path, text)
    except OSError as error:
        raise UserError(
            "page.write", f"{path} cannot be written", f"{error.strerror}; free space there or make it writable"
        ) from error
