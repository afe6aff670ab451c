"""A run folder as one self-contained HTML page: no network, no scripts, readable on a phone and on paper."""

from collections import Counter
from pathlib import Path

from markupsafe import Markup

from mae_kit.errors import UserError
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.cards import cards
from mae_kit.reports.classes import classes
from mae_kit.reports.commands import Command, commands_after, next_steps
from mae_kit.reports.comparison import comparison
from mae_kit.reports.curves import curves
from mae_kit.reports.evaluation import evaluation
from mae_kit.reports.few_labels import mistakes, worth
from mae_kit.reports.folder import Folder, read_folder
from mae_kit.reports.images import plots, reconstructions
from mae_kit.reports.numbers import numbers
from mae_kit.reports.predictions import boxes, masks
from mae_kit.reports.render import page, render
from mae_kit.training.metrics import Row

SHOWN = 50  # bad samples


def write_report(run: Path) -> tuple[Path, list[Command]]:
    """Write report.html into a run folder; return its path and the commands that come next.

    Raises:
        UserError: There is no such folder, no run in it, or the page cannot be written there.
    """
    if not run.is_dir():
        fix = "give the run folder that pretrain, finetune or demo wrote"
        raise UserError("report.folder", f"{run} is not a folder", fix)
    folder = read_folder(run)
    sections = _sections(folder)
    if not any(sections):
        fix = "give a folder that contains metrics.jsonl, result.json or config.yaml"
        raise UserError("report.empty", f"{run} contains no run", fix)
    path, text = RunFolder(run).report, page(f"{folder.kind}: {run.resolve().name}", *sections, next_steps(folder))
    try:
        replace_text(path, text)
    except OSError as error:
        fix = f"{error.strerror}; free space there or make it writable"
        raise UserError("report.write", f"{path} cannot be written", fix) from error
    return path, commands_after(folder)


def _sections(folder: Folder) -> tuple[Markup, ...]:
    """What the folder has data for, from top to bottom; the others are empty."""
    return (
        demo(folder.demo),
        comparison(folder.path, folder.compared),
        cards(folder),
        worth(folder.result),
        evaluation(folder.evaluation, folder.untrained, folder.step),
        curves(folder.metrics),
        reconstructions(folder.training),
        plots(folder.training),
        classes(folder.result),
        mistakes(RunFolder(folder.path), folder.result),
        masks(folder.result, folder.training),
        boxes(folder.result, folder.training),
        numbers(folder.result),
        bad_samples(folder.quarantine),
        recipe(folder),
    )


def demo(result: Row) -> Markup:
    """Show demo.json: a table of pretrained against scratch."""
    rows, conclusion = result.get("rows"), result.get("conclusion", "")
    return render("demo.html", rows=rows, conclusion=conclusion) if rows else Markup()


def bad_samples(samples: list[Row]) -> Markup:
    """Show the images that training could not decode, and why."""
    if not samples:
        return Markup()
    shown = [[str(sample.get(name, "")) for name in ("shard", "key", "offset", "reason")] for sample in samples[:SHOWN]]
    reason = Counter(str(sample.get("reason", "")) for sample in samples).most_common(1)[0][0]
    return render("bad_samples.html", count=len(samples), samples=shown, reason=reason)


def recipe(folder: Folder) -> Markup:
    """Show config.yaml."""
    path = folder.training.config
    return render("recipe.html", text=path.read_text("utf-8", errors="replace")) if path.is_file() else Markup()
