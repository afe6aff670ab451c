"""What a comparison of objectives found: scores, differences, time, failures, and everyone's pictures."""

from html import escape
from pathlib import Path

from mae_kit.reporting.comparison import score_cell
from mae_kit.reporting.curves import ABOUT_KNN
from mae_kit.reporting.folder import Row
from mae_kit.reporting.page import image, note, section, table
from mae_kit.reporting.reconstructions import latest

NAMES = {"fine-tuned": "Fine-tuned", "knn": "kNN", "probe": "Linear probe"}


def entries(folder: Path, compared: Row) -> str:
    """Of compare.json in that folder."""
    rows = compared.get("entries", [])
    if not rows:
        return ""
    return "".join((_scores(rows), _differences(rows), _times(rows), _failures(rows), _pictures(folder, rows)))


def _scores(rows: list[Row]) -> str:
    about = note("Top-1: mean over the seeds, 95% interval, and the value of each seed.")
    knn = note(ABOUT_KNN) if any("knn" in row["scores"] for row in rows) else ""
    return section("Compared", _grid(rows, "scores", ".1f", "%"), about, knn)


def _differences(rows: list[Row]) -> str:
    others = [row for row in rows[1:] if row["differences"]]
    about = note("In points, taken seed by seed. An interval that holds 0 says that it may be chance.")
    return section(f"Against {rows[0]['name']}", _grid(others, "differences", "+.1f"), about) if others else ""


def _grid(rows: list[Row], what: str, style: str, unit: str = "") -> str:
    known = list(dict.fromkeys(name for row in rows for name in row[what]))
    lines = []
    for row in rows:
        cells = (score_cell(row[what][n], style, unit) if n in row[what] else "<td>-</td>" for n in known)
        lines.append(f"<tr><td><b>{escape(row['name'])}</b></td>{''.join(cells)}</tr>")
    headings = (NAMES.get(name) or f"{name.replace('fewshot', 'Few-shot,')} a class" for name in known)
    return table(("Entry", *headings), "".join(lines))


def _times(rows: list[Row]) -> str:
    timed = [row for row in rows if row["pretraining"]]
    lines = (
        f"<tr><td><b>{escape(row['name'])}</b></td>"
        + "".join(f"<td>{row['pretraining'].get(name, 0) / 60:.1f}</td>" for name in ("seconds", "core_seconds"))
        + "</tr>"
        for row in timed
    )
    names = ("Entry", "Minutes", "Core-minutes")
    return section("Time of a pretraining", table(names, "".join(lines))) if timed else ""


def _failures(rows: list[Row]) -> str:
    lines = "".join(
        f"<tr><td><b>{escape(row['name'])}</b></td><td>{one['seed']}</td><td>{escape(one['verb'])}</td>"
        f"<td>{escape(one['error'])}</td></tr>"
        for row in rows
        for one in row["failures"]
    )
    return section("Failed", table(("Entry", "Seed", "Step", "Why"), lines)) if lines else ""


def _pictures(folder: Path, rows: list[Row]) -> str:
    """Of the first seed: the same images, as every objective hides and predicts them."""
    found = {row["name"]: latest(folder / f"{row['name']}-seed0" / "pretrain/reconstructions") for row in rows}
    shown = "".join(
        f"<figure class=paper><figcaption>{escape(name)}</figcaption>{image(path.read_bytes(), 'png', name)}</figure>"
        for name, path in found.items()
        if path
    )
    return section("Reconstructions side by side", f"<div class=pair>{shown}</div>") if shown else ""
