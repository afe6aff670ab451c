"""What a comparison of objectives found: scores, differences, failures, everyone's pictures, curves and cost."""

import json
from html import escape
from pathlib import Path

from mae_kit.reports.comparison import score_cell
from mae_kit.reports.curves import ABOUT_KNN
from mae_kit.reports.folder import read_labels_per_class
from mae_kit.reports.html import image, note, section, table, text_row
from mae_kit.reports.race import COSTS, race, runs_of
from mae_kit.reports.reconstructions import latest
from mae_kit.training.metrics import Row

SCORE = "Top-1, or mean average precision where images have any number of classes"
SCRATCH = "What is not pretrained is judged frozen as its fine-tuning began."
FINETUNED = "fine-tuned"
UNLIKE = "The encoders differ: the scores compare recipes, not objectives alone."
COST_HEADINGS = ("Steps", "Images seen", "Minutes", "Core-minutes", "TFLOPs")
STAGES = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}  # by verb
NAMES = {FINETUNED: "Fine-tuned", "knn": "kNN", "probe": "Linear probe"}


def entries(folder: Path, compared: Row) -> str:
    """Of compare.json in that folder."""
    rows = compared.get("entries", [])
    if not rows:
        return ""
    told = said_alike(compared["budget"])
    parts = (_differences(rows), _failures(rows), _pictures(folder, rows), race(folder, rows), _costs(rows, told))
    return _scores(rows, f"{told}. {_labels(folder, rows)}") + "".join(parts) + _recipes(rows)


def said_alike(budget: Row) -> str:
    """What all pretrainings had alike, in one line.

    Args:
        budget: Its `kind` and `amount`, of compare.json.
    """
    amount = budget["amount"]
    told = {
        "images_seen": f"sees {amount:,.0f} images",
        "minutes": f"has {amount:g} minutes of this machine, at the speed of a short trial",
        "flops": f"has {amount / 1e12:,.4g} TFLOPs",
    }
    return f"Every pretraining {told[budget['kind']]}"


def said_of_scratch(rows: list[Row]) -> str:
    """What frozen scores of entries that are not pretrained are of, if there are any."""
    return SCRATCH if any("pretrain" not in row["recipes"] and "knn" in row["scores"] for row in rows) else ""


def _scores(rows: list[Row], told: str) -> str:
    about = note(
        f"{told}{SCORE}: mean over the seeds, 95% interval, and the value of each seed. {said_of_scratch(rows)}"
    )
    knn = note(ABOUT_KNN) if any("knn" in row["scores"] for row in rows) else ""
    return section("Compared", _grid(rows, "scores", ".1f", "%"), about, knn, "" if alike(rows) else note(UNLIKE))


def _labels(folder: Path, rows: list[Row]) -> str:
    """Told where scores side by side had other numbers of labels."""
    runs = [run for row in rows if FINETUNED in row["scores"] for run in runs_of(folder, row, "finetune")]
    taken = {read_labels_per_class(run) for run in runs if (run / "config.yaml").is_file()}
    if taken <= {None}:
        return ""
    fine = f"{taken.pop()} labels a class" if len(taken) == 1 else "the labels that each recipe takes"
    return f"Fine-tuned on {fine}; linear probe and kNN have all labels. "


def alike(rows: list[Row]) -> bool:
    """Whether all entries that are pretrained have the same encoder."""
    encoders = [row["encoder"] for row in rows if row["encoder"]]
    return all(encoder == encoders[0] for encoder in encoders)


def _differences(rows: list[Row]) -> str:
    others = [row | {"name": f"{row['name']} against {row['against']}"} for row in rows if row["differences"]]
    about = note("In points, taken seed by seed. An interval that holds 0 says that it may be chance.")
    return section("Differences", _grid(others, "differences", "+.1f"), about) if others else ""


def _grid(rows: list[Row], what: str, style: str, unit: str = "") -> str:
    known = list(dict.fromkeys(name for row in rows for name in row[what]))
    lines = []
    for row in rows:
        cells = (score_cell(row[what][n], style, unit) if n in row[what] else "<td>-</td>" for n in known)
        lines.append(f"<tr><td><b>{escape(row['name'])}</b></td>{''.join(cells)}</tr>")
    headings = (NAMES.get(name) or f"{name.replace('fewshot', 'Few-shot,')} a class" for name in known)
    return table(("Entry", *headings), "".join(lines))


def _recipes(rows: list[Row]) -> str:
    """What was compared: the recipes by name, and what the comparison's file changes in them."""
    lines = (
        text_row((row["name"], *(_recipe(row["recipes"].get(verb)) for verb in STAGES), _encoder(row))) for row in rows
    )
    about = note("A recipe and what the comparison changes in it; the runs' config.yaml have all settings.")
    return section("Entries", table(("Entry", *STAGES.values(), "Encoder pretrained"), "".join(lines)), about)


def _recipe(recipe: Row | None) -> str:
    if recipe is None:
        return "-"
    changed = (f"{key} {json.dumps(value)}" for key, value in recipe["overrides"].items())
    return ", ".join((Path(recipe["config"]).stem, *changed))


def _encoder(row: Row) -> str:
    """Timm's name and what is not as timm has it."""
    given = dict((row["encoder"] or {}).get("init_args", {}))
    name = given.pop("name", "-")
    return ", ".join((name, *(f"{key} {value}" for key, value in given.items() if value is not None)))


def _costs(rows: list[Row], told: str) -> str:
    about = note(
        f"{told}; as measured, a mean over the seeds, with scores and pictures. TFLOPs: 10^12 operations of the matrix "
        "products, forwards and backwards. What is made beforehand, as BEiT's tokenizer, is not counted."
    )
    tables = "".join(_cost_table(rows, stage, COSTS[verb]) for verb, stage in STAGES.items())
    return section("Cost", tables, about) if tables else ""


def _cost_table(rows: list[Row], stage: str, cost: str) -> str:
    lines = "".join(text_row((row["name"], *cost_cells(row[cost]))) for row in rows if row[cost])
    return table((f"{stage} of", *COST_HEADINGS), lines) if lines else ""


def cost_cells(cost: Row) -> tuple[str, ...]:
    """Of a row's `pretraining` or `finetuning`, under the headings of `COST_HEADINGS`."""
    clocks = (f"{cost[name] / 60:,.1f}" for name in ("seconds", "core_seconds"))
    flops = "unknown" if cost["flops"] is None else f"{cost['flops'] / 1e12:,.4g}"
    return f"{cost['steps']:,.0f}", f"{cost['images']:,.0f}", *clocks, flops


def _failures(rows: list[Row]) -> str:
    failed = [(row["name"], failure) for row in rows for failure in row["failures"]]
    lines = "".join(text_row((name, str(one["seed"]), one["verb"], one["error"])) for name, one in failed)
    return section("Failed", table(("Entry", "Seed", "Step", "Why"), lines)) if failed else ""


def _pictures(folder: Path, rows: list[Row]) -> str:
    """Of the first seed that has one: the same images, as every objective hides and predicts them."""
    drawn = {row["name"]: [latest(run / "reconstructions") for run in runs_of(folder, row, "pretrain")] for row in rows}
    found = {name: next(filter(None, paths), None) for name, paths in drawn.items()}
    shown = "".join(_picture(name, path) for name, path in found.items() if path)
    return section("Reconstructions side by side", f"<div class=beside>{shown}</div>") if shown else ""


def _picture(name: str, path: Path) -> str:
    drawn = image(path.read_bytes(), "png", f"Reconstructions of {name}")
    return f"<figure><figcaption>{escape(name)}</figcaption><div class=paper>{drawn}</div></figure>"
