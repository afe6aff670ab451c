"""The result of a comparison: scores, differences, failures, reconstructions, learning curves and cost."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mae_kit.data.index.labels import describe_labels
from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.curves import ABOUT_KNN
from mae_kit.reports.evaluation import method_name
from mae_kit.reports.folder import read_labels
from mae_kit.reports.images import latest
from mae_kit.reports.learning_curves import COSTS, learning_curves, runs_of
from mae_kit.reports.render import data_uri, render
from mae_kit.training.metrics import Row

SCORE = "Top-1 accuracy, mean average precision for multi-label images, mean IoU for masks, or R2 for numbers"
SCRATCH = "Entries without pretraining: the frozen scores are of the encoder at the start of fine-tuning."
FINETUNED = "fine-tuned"
UNLIKE = "The encoders differ: the scores compare recipes, not objectives alone."
COST_HEADINGS = ("Steps", "Images seen", "Minutes", "Core-minutes", "TFLOPs")
STAGES = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}  # by verb


def comparison(folder: Path, compared: Row) -> Markup:
    """Show compare.json in a folder."""
    rows = compared.get("entries", [])
    if not rows:
        return Markup()
    length = describe_length(compared["images_seen"])
    against = [row | {"name": f"{row['name']} against {row.get('against', '-')}"} for row in rows if row["differences"]]
    return render(
        "comparison.html",
        length=length,
        scores_of_entries=_grid(rows, "scores"),
        differences=_grid(against, "differences"),
        about=f"{length}. {_labels(folder, rows)}{SCORE}",
        scratch=describe_scratch(rows),
        about_knn=ABOUT_KNN if any("knn" in row["scores"] for row in rows) else "",
        unlike="" if have_same_encoder(rows) else UNLIKE,
        failures=[
            (row["name"], *(str(one[k]) for k in ("seed", "verb", "error"))) for row in rows for one in row["failures"]
        ],
        reconstructions=_reconstructions(folder, rows),
        curves=learning_curves(folder, rows),
        costs=_costs(rows),
        cost_headings=COST_HEADINGS,
        recipes=[(row["name"], *(_recipe(row["recipes"].get(verb)) for verb in STAGES), _encoder(row)) for row in rows],
        recipe_headings=("Entry", *STAGES.values(), "Encoder pretrained"),
    )


def describe_length(images_seen: int) -> str:
    """The length of every pretraining, in one sentence without its period."""
    return f"Every pretraining sees {images_seen:,} images"


def describe_scratch(rows: list[Row]) -> str:
    """What the frozen scores of entries without pretraining are, if there are any."""
    return SCRATCH if any("pretrain" not in row["recipes"] and "knn" in row["scores"] for row in rows) else ""


def _labels(folder: Path, rows: list[Row]) -> str:
    """A sentence on the number of labels, where the scores in a row differ in it."""
    runs = [run for row in rows if FINETUNED in row["scores"] for run in runs_of(folder, row, "finetune")]
    taken = {read_labels(run) for run in runs if RunFolder(run).config.is_file()}
    if taken <= {describe_labels(None, None)}:
        return ""
    fine = taken.pop() if len(taken) == 1 else "as many labels as each recipe takes"
    return f"Fine-tuned on {fine}; linear probe and kNN use all labels. "


def have_same_encoder(rows: list[Row]) -> bool:
    """Whether all pretrained entries have the same encoder."""
    encoders = [row["encoder"] for row in rows if row["encoder"]]
    return all(encoder == encoders[0] for encoder in encoders)


def _grid(rows: list[Row], what: str) -> dict[str, Any]:
    """Headings, and for each entry a score or None under each of them."""
    known = list(dict.fromkeys(name for row in rows for name in row[what]))
    headings = ["Fine-tuned" if name == FINETUNED else method_name(name) for name in known]
    return {"headings": headings, "rows": [(row["name"], [row[what].get(name) for name in known]) for row in rows]}


def _recipe(recipe: Row | None) -> str:
    """The name of a recipe and what the comparison changes in it."""
    if recipe is None:
        return "-"
    changed = (f"{key} {json.dumps(value)}" for key, value in recipe["overrides"].items())
    return ", ".join((Path(recipe["config"]).stem, *changed))


def _encoder(row: Row) -> str:
    """Timm's name of the encoder, and the arguments that differ from timm's."""
    given = dict((row["encoder"] or {}).get("init_args", {}))
    name = given.pop("name", "-")
    return ", ".join((f"{name}", *(f"{key} {value}" for key, value in given.items() if value is not None)))


def _costs(rows: list[Row]) -> dict[str, list[tuple[str, ...]]]:
    found = {
        STAGES[verb]: [(row["name"], *cost_cells(row[cost])) for row in rows if row[cost]]
        for verb, cost in COSTS.items()
    }
    return {stage: cells for stage, cells in found.items() if cells}


def cost_cells(cost: Row) -> tuple[str, ...]:
    """Format a row's `pretraining` or `finetuning` for the columns `COST_HEADINGS`."""
    clocks = (f"{cost[name] / 60:,.1f}" for name in ("seconds", "core_seconds"))
    flops = "unknown" if cost["flops"] is None else f"{cost['flops'] / 1e12:,.4g}"
    return f"{cost['steps']:,.0f}", f"{cost['images']:,.0f}", *clocks, flops


def _reconstructions(folder: Path, rows: list[Row]) -> dict[str, str]:
    """The same images as every objective hides and predicts them, of the first seed that has any."""
    drawn = {row["name"]: [latest(RunFolder(run)) for run in runs_of(folder, row, "pretrain")] for row in rows}
    found = {name: next(filter(None, paths), None) for name, paths in drawn.items()}
    return {name: data_uri(path.read_bytes(), "png") for name, path in found.items() if path}
