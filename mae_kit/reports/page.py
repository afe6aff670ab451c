"""A run folder -> one HTML page that needs nothing else: no network, no script, readable on a phone and on paper."""

import logging
from pathlib import Path

from mae_kit.durable import replace_text
from mae_kit.errors import UserError
from mae_kit.reports.cards import cards
from mae_kit.reports.classes import class_bars, class_table, confusion
from mae_kit.reports.commands import next_steps, recipe
from mae_kit.reports.comparison import comparison
from mae_kit.reports.curves import curves
from mae_kit.reports.entries import entries
from mae_kit.reports.evaluation import evaluation
from mae_kit.reports.folder import Folder, read_folder
from mae_kit.reports.html import page
from mae_kit.reports.inside import inside
from mae_kit.reports.reconstructions import reconstructions
from mae_kit.reports.samples import bad_samples

log = logging.getLogger(__name__)


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


def _sections(folder: Folder) -> tuple[str, ...]:
    """What the folder has something to say about, from top to bottom; the empty ones vanish."""
    return (
        comparison(folder.demo),
        entries(folder.path, folder.compared),
        cards(folder),
        evaluation(folder.evaluation, folder.untrained, folder.step),
        curves(folder.metrics),
        reconstructions(folder.training / "reconstructions"),
        inside(folder.training / "inside"),
        class_bars(folder.result),
        class_table(folder.result),
        confusion(folder.result),
        bad_samples(folder.quarantine),
        recipe(folder),
    )


def _write(path: Path, text: str) -> None:
    try:
        replace_text(path, text)
    except OSError as error:
        raise UserError(
            "page.write", f"{path} cannot be written", f"{error.strerror}; free space there or make it writable"
        ) from error
