"""A run folder -> one HTML page that needs nothing else: no network, no script, readable on a phone and on paper."""

import base64
import io
import json
import math
import os
import re
import shlex
from collections import Counter
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from PIL import Image

from mae_kit.console import say
from mae_kit.errors import UserError

POINTS = 200  # of a curve; where there are more steps they are averaged, and their range is shaded
EARLIER_PICTURES = 6
CLASSES_IN_BARS = 40  # of more classes, the bars show the best and the worst
CLASSES_WITH_COUNTS = 12  # a larger confusion matrix shows its counts only under the pointer
CLASSES_IN_TABLE = 50  # a still larger one is a picture
CONFUSED_PAIRS = 10
BAD_SAMPLES = 50
INK = "#010203"  # in a drawing, replaced by the page's own text colour
COLOURS = ("#3b82f6", "#f59e0b", "#10b981")  # read on white and on black

Row = dict[str, Any]


class Curve(NamedTuple):
    """One panel: metrics and what the legend calls them; values are drawn times `scale`, `from_zero` or not."""

    title: str
    unit: str
    names: dict[str, str]
    scale: float = 1
    from_zero: bool = False


CURVES = (
    Curve("Loss", "loss", {"loss": "training", "val_loss": "validation"}),
    Curve("Accuracy", "accuracy (%)", {"val_top1": "top-1", "val_top5": "top-5", "knn_top1": "kNN top-1"}, 100),
    Curve("Learning rate", "learning rate", {"lr": "learning rate"}),
    Curve("Throughput", "images per second", {"images_per_second": "throughput"}, 1, True),
    Curve("Waiting for data", "share of the time (%)", {"data_wait": "waiting"}, 100, True),
)
ABOUT_KNN = "A low kNN score is normal for masked pretraining; fine-tuning tells what the encoder is worth."
NEXT = {
    "Pretraining": (
        ("Go on, also after a crash", "mae-kit pretrain --resume {run}"),
        ("Train a classifier on it", "mae-kit finetune --config recipes/downstream/NAME.yaml --encoder {run}"),
        ("See it fill in your own images", "mae-kit reconstruct {run} IMAGES --out grid.png"),
    ),
    "Fine-tuning": (
        ("Go on, also after a crash", "mae-kit finetune --resume {run}"),
        ("Classify images", "mae-kit predict {run} IMAGES"),
    ),
    "Demo": (("The same on your own class folders", "mae-kit demo --images DIR"),),
}


def report(run: Path) -> dict[str, str]:
    """Write RUN/report.html: numbers, curves, reconstructions, confusions and recipe of a run on one page.

    Args:
        run: The run folder that pretrain, finetune or demo wrote; the run may still be going.

    Returns:
        {"report": path of the page}.

    Raises:
        UserError: There is no such folder, nothing of a run in it, or the page cannot be written there.
    """
    if not run.is_dir():
        raise UserError(f"{run} is no folder", "give the run folder that pretrain, finetune or demo wrote")
    path = run / "report.html"
    _write(path, _page(run))
    say(f"report: {path}")
    return {"report": str(path)}


def read_metrics(path: Path) -> list[Row]:
    """The lines of metrics.jsonl by step; where a resumed run repeats a step, its last values win."""
    steps: dict[int, Row] = {}
    for row in _json_lines(path):
        if isinstance(row.get("step"), int):
            steps.setdefault(row["step"], {}).update(row)
    return [steps[step] for step in sorted(steps)]


def _page(run: Path) -> str:
    rows, result, demo = read_metrics(run / "metrics.jsonl"), _json(run / "result.json"), _json(run / "demo.json")
    kind = "Demo" if demo else "Fine-tuning" if result or _series(rows, "val_top1")[0].size else "Pretraining"
    sections = (
        _headline(rows, result),
        _demo(demo),
        _curves(rows),
        _reconstructions(run / "reconstructions"),
        _per_class(result),
        _confusion(result),
        _bad_samples(_json_lines(run / "quarantine.jsonl")),
        _recipe(run / "config.yaml"),
    )
    if not any(sections):
        raise UserError(f"{run} holds no run", "give a folder with metrics.jsonl, result.json or config.yaml in it")
    title = f"{escape(kind)}: {escape(run.resolve().name)}"
    written = f"<footer>Written by mae_kit, {datetime.now():%Y-%m-%d %H:%M}</footer>"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{title}</h1>{''.join(sections)}{_next_steps(run, kind)}{written}</main></body></html>\n"
    )


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written", f"{error.strerror}; free space there or make it writable"
        ) from error


def _json_lines(path: Path) -> list[Row]:
    """The JSON objects of a file, one a line; a line torn by a kill is left out. No file, no objects."""
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    return [row for line in text.splitlines() if (row := _object(line))]


def _json(path: Path) -> Row:
    return _object(path.read_text("utf-8", errors="replace")) if path.is_file() else {}


def _object(text: str) -> Row:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _series(rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric, without the steps where it is missing or not finite."""
    pairs = [(row["step"], row[name]) for row in rows if _is_finite(row.get(name))]
    both = np.array(pairs, dtype=float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


# Headline ------------------------------------------------------------------------------------------------------------


def _headline(rows: list[Row], result: Row) -> str:
    cards = [card for card in (*_result_cards(result), *_progress_cards(rows), *_health_cards(rows)) if card]
    return f"<dl class=cards>{''.join(cards)}</dl>" if cards else ""


def _card(name: str, value: str, note: str = "") -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class=note>{escape(note)}</dd></div>"


def _result_cards(result: Row) -> list[str]:
    if not _is_finite(result.get("top1")):
        return []
    start = "from a pretrained encoder" if result.get("encoder") else "from scratch"
    n = result.get("samples")
    note = f"95% interval {_interval(result['top1'], n)}, {start}" if n else start
    cards = [_card("Top-1", _percent(result["top1"]), note)]
    if _is_finite(result.get("top5")):
        cards.append(_card("Top-5", _percent(result["top5"]), f"of {n:,} images" if n else ""))
    return cards


def _progress_cards(rows: list[Row]) -> list[str]:
    cards = [_accuracy_card(rows, "val_top1", "Validation top-1"), _accuracy_card(rows, "knn_top1", "kNN top-1")]
    loss = _series(rows, "loss")[1]
    if loss.size:
        last = loss[-max(1, loss.size // 20) :]
        cards.append(
            _card("Loss", f"{last.mean():.4f}", f"mean of the last {len(last)} logged" if len(last) > 1 else "")
        )
    if rows:
        epoch = _series(rows, "epoch")[1]
        cards.append(_card("Step", f"{rows[-1]['step']:,}", f"epoch {epoch[-1]:.4g}" if epoch.size else ""))
        seconds = _series(rows, "seconds")[1]
        cards.append(_card("Time", _duration(_elapsed(seconds))) if seconds.size else "")
    return cards


def _accuracy_card(rows: list[Row], name: str, label: str) -> str:
    steps, values = _series(rows, name)
    if not values.size:
        return ""
    return _card(label, _percent(values[-1]), f"best {_percent(values.max())}, step {int(steps[values.argmax()]):,}")


def _health_cards(rows: list[Row]) -> list[str]:
    rate, wait = _series(rows, "images_per_second")[1], _series(rows, "data_wait")[1]
    skipped, bad = _series(rows, "skipped_steps")[1], _series(rows, "bad_samples")[1]
    return [
        _card("Throughput", f"{np.median(rate):,.0f}/s", "images per second, median") if rate.size else "",
        _card("Waiting for data", _percent(np.median(wait)), "of the time, median") if wait.size else "",
        _card("Skipped steps", f"{skipped[-1]:,.0f}", "the loss was not finite") if skipped.any() else "",
        _card("Bad samples", f"{bad[-1]:,.0f}", "replaced and listed below") if bad.any() else "",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _interval(share: float, samples: int) -> str:
    """Wilson's 95% interval of a share of `samples` draws."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    half = math.sqrt(share * (1 - share) * z2 / samples + (z2 / (2 * samples)) ** 2) / (1 + z2 / samples)
    return f"{100 * (middle - half):.1f}–{_percent(middle + half)}"


def _elapsed(seconds: np.ndarray) -> float:
    """Seconds of all sittings: a clock that a resumed run starts anew is added on."""
    gone = np.diff(seconds, prepend=0)
    return float(np.where(gone < 0, seconds, gone).sum())


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


# Curves --------------------------------------------------------------------------------------------------------------


def _curves(rows: list[Row]) -> str:
    known = [curve for curve in CURVES if any(_series(rows, name)[0].size for name in curve.names)]
    if not known:
        return ""
    large = "".join(_chart(curve, rows, width=4.2) for curve in known[:2])
    small = "".join(_chart(curve, rows, width=3.4 if len(known) > 4 else 4.2) for curve in known[2:])
    averaged = _note("Each point is the mean of several steps; the shade is their range.") if len(rows) > POINTS else ""
    knn = _note(ABOUT_KNN) if _series(rows, "knn_top1")[0].size else ""
    return _section("Curves", f"<div class=charts>{large}</div><div class=charts>{small}</div>", averaged, knn)


def _chart(curve: Curve, rows: list[Row], width: float) -> str:
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with matplotlib.rc_context({**colours, "svg.fonttype": "none", "svg.hashsalt": "mae_kit", "font.size": 9}):
        figure = Figure(figsize=(width, 0.8 + 0.4 * width), layout="constrained")
        axes = figure.subplots()
        for colour, (name, label) in zip(COLOURS, curve.names.items(), strict=False):
            steps, values = _series(rows, name)
            _line(axes, steps, values * curve.scale, colour, label)
        _dress(axes, curve)
        svg = _svg(figure, prefix=curve.title.split()[0].lower())
    return f"<figure><figcaption>{curve.title}</figcaption>{svg}</figure>"


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    if not steps.size:
        return
    several = -(-steps.size // POINTS)
    parts = [slice(start, start + several) for start in range(0, steps.size, several)]
    x, y = [steps[part].mean() for part in parts], [values[part].mean() for part in parts]
    if several > 1:
        low, high = [values[part].min() for part in parts], [values[part].max() for part in parts]
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, y, color=colour, label=label, linewidth=1.6, marker="." if steps.size <= 30 else "")


def _dress(axes: Axes, curve: Curve) -> None:
    axes.set(xlabel="step", ylabel=curve.unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.ticklabel_format(axis="y", scilimits=(-3, 5), useMathText=True)
    if curve.from_zero:
        axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.7)
    if len(curve.names) > 1:
        axes.legend(frameon=False)


def _svg(figure: Figure, prefix: str) -> str:
    """Inline SVG in the page's ink and type; ids get a prefix, since all drawings share one page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :]).replace(INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)


# Pictures ------------------------------------------------------------------------------------------------------------


def _reconstructions(folder: Path) -> str:
    """The latest grid as it is, some of the earlier ones small, in the order of training."""
    paths = sorted(folder.glob("step-*.png"), key=_step)
    if not paths:
        return ""
    *earlier, last = paths
    chosen = np.linspace(0, len(earlier) - 1, min(EARLIER_PICTURES, len(earlier))).round().astype(int)
    latest = f"<figure class=paper>{_image(last.read_bytes(), 'png', last)}</figure>"
    strip = "".join(_small_picture(earlier[i]) for i in chosen)
    return _section(f"Reconstructions at step {_step(last):,}", latest, f"<div class=strip>{strip}</div>")


def _step(path: Path) -> int:
    digits = re.search(r"\d+", path.stem)
    return int(digits[0]) if digits else 0


def _image(data: bytes, kind: str, path: Path) -> str:
    source = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{source}" alt="Reconstructions at step {_step(path)}">'


def _small_picture(path: Path) -> str:
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((560, 560))
    small.save(buffer, format="JPEG", quality=85)
    image = _image(buffer.getvalue(), "jpeg", path)
    return f"<figure>{image}<figcaption>step {_step(path):,}</figcaption></figure>"


# Classes -------------------------------------------------------------------------------------------------------------


def _per_class(result: Row) -> str:
    known = [(name, share) for name, share in result.get("per_class", {}).items() if _is_finite(share)]
    ranked = sorted(known, key=lambda pair: -pair[1])
    if not ranked:
        return ""
    half, note = CLASSES_IN_BARS // 2, ""
    if len(ranked) > CLASSES_IN_BARS:
        note = f"<p class=note>The {half} best and the {half} worst of {len(ranked)} classes.</p>"
        ranked = ranked[:half] + ranked[-half:]
    bars = "".join(
        f'<li><span>{escape(name)}</span><div><i style="width:{share:.2%}"></i></div><b>{_percent(share)}</b></li>'
        for name, share in ranked
    )
    return _section("Accuracy of each class", f"<ol class=bars>{bars}</ol>", note)


def _confusion(result: Row) -> str:
    counts, classes = np.array(result.get("confusion", []), dtype=float), result.get("classes", [])
    if not counts.size:
        return ""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawing = _heat_table(counts, shares, classes) if len(classes) <= CLASSES_IN_TABLE else _heat_picture(shares)
    note = _note("A row is a true class, a column what was predicted; the colour is the share of the row.")
    pairs = _confused_pairs(counts, classes)
    return _section("Confusion matrix", f"<div class=pair><div class=scroll>{drawing}</div>{pairs}</div>", note)


def _heat_table(counts: np.ndarray, shares: np.ndarray, classes: list[str]) -> str:
    head = "".join(f"<th scope=col><span>{escape(name)}</span></th>" for name in classes)
    body = "".join(
        f"<tr><th scope=row>{escape(name)}</th>{_heat_cells(row, share, name, classes)}</tr>"
        for row, share, name in zip(counts, shares, classes, strict=True)
    )
    size = "heat" if len(classes) <= CLASSES_WITH_COUNTS else '"heat fine"'
    return f"<table class={size}><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"


def _heat_cells(counts: np.ndarray, shares: np.ndarray, true: str, classes: list[str]) -> str:
    shown = len(classes) <= CLASSES_WITH_COUNTS
    return "".join(
        f'<td{" class=dark" if share > 0.55 else ""} style="--v:{share:.3f}" '
        f'title="{escape(true)}, predicted {escape(name)}: {count:.0f} ({_percent(share)})">'
        f"{f'{count:.0f}' if shown and count else ''}</td>"
        for count, share, name in zip(counts, shares, classes, strict=True)
    )


def _heat_picture(shares: np.ndarray) -> str:
    """One pixel a pair of classes: blue, as opaque as the share is large."""
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = (37, 99, 235)
    pixels[..., 3] = (255 * shares).round()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class=heat alt="Confusion matrix" src="data:image/png;base64,{source}">'


def _confused_pairs(counts: np.ndarray, classes: list[str]) -> str:
    wrong = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    rows = "".join(
        _text_row((classes[i], classes[j], f"{counts[i, j]:.0f}", _percent(counts[i, j] / counts[i].sum())))
        for i, j in pairs
    )
    table = _table(("True class", "Predicted as", "Times", "Share"), rows)
    return f"<div><h3>Most confused</h3>{table}</div>" if rows else ""


# The rest ------------------------------------------------------------------------------------------------------------


def _demo(demo: Row) -> str:
    """Of `{"rows": [{"labels": 10, "pretrained": score, "scratch": score}]}`, a score being shares of 1:
    `{"mean": 0.9, "low": 0.88, "high": 0.92, "seeds": [0.89, 0.9, 0.91]}`.
    """
    rows = "".join(_demo_row(row["labels"], row["pretrained"], row["scratch"]) for row in demo.get("rows", []))
    names = ("Labels a class", "Pretrained", "From scratch", "Gain, points")
    note = _note("Top-1: mean, 95% interval, and the value of each seed.")
    return _section("Pretrained against scratch", _table(names, rows), note) if rows else ""


def _demo_row(labels: int | str, pretrained: Row, scratch: Row) -> str:
    gain = f"{100 * (pretrained['mean'] - scratch['mean']):+.1f}"
    return f"<tr><td><b>{escape(str(labels))}</b></td>{_score(pretrained)}{_score(scratch)}<td>{gain}</td></tr>"


def _score(score: Row) -> str:
    seeds = ", ".join(_percent(value) for value in score["seeds"])
    interval = f"{100 * score['low']:.1f}–{_percent(score['high'])}"
    return f"<td><b>{_percent(score['mean'])}</b> ({interval})<br><small>{seeds}</small></td>"


def _bad_samples(samples: list[Row]) -> str:
    if not samples:
        return ""
    names = ("shard", "key", "offset", "reason")
    shown = samples[:BAD_SAMPLES]
    rows = "".join(_text_row(tuple(str(sample.get(name, "")) for name in names)) for sample in shown)
    reason = Counter(str(sample.get("reason", "")) for sample in samples).most_common(1)[0][0]
    note = f"{len(samples):,} listed in quarantine.jsonl, most often: {reason}; the first {len(shown)} are here"
    table = _table(tuple(name.capitalize() for name in names), rows)
    return _section("Bad samples", f"<details><summary>{escape(note)}</summary>{table}</details>")


def _recipe(path: Path) -> str:
    if not path.is_file():
        return ""
    text = escape(path.read_text("utf-8", errors="replace"))
    return _section("Recipe", f"<details><summary>{escape(path.name)}, complete</summary><pre>{text}</pre></details>")


def _next_steps(run: Path, kind: str) -> str:
    at = shlex.quote(str(run))
    lines = (f"{_note(why)}<pre>{escape(command.format(run=at))}</pre>" for why, command in NEXT[kind])
    return _section("How to continue", *lines)


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _note(text: str) -> str:
    return f"<p class=note>{escape(text)}</p>"


def _table(names: tuple[str, ...], rows: str) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _text_row(cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1a2030; --faint: #667085; --line: #e3e6ec; --paper: #fff; --card: #f6f7f9; --accent: #2563eb;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --faint: #98a2b3; --line: #2c3340; --paper: #12151b; --card: #1b2028; --accent: #60a5fa }
}
* { box-sizing: border-box }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem }
h1 { font-size: 1.6rem; margin: .5rem 0 1.2rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .8rem; padding-top: .9rem; border-top: 1px solid var(--line) }
h3 { font-size: .95rem; margin: .3rem 0 .6rem }
.note, footer, small { color: var(--faint); font-size: .85rem; margin: .5rem 0 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem; margin: 0 }
.cards div { background: var(--card); border-radius: .6rem; padding: .7rem .9rem }
dt { color: var(--faint); font-size: .85rem }
dd { margin: 0; font-size: 1.4rem; font-weight: 600; white-space: nowrap; font-variant-numeric: tabular-nums }
dd.note { font-size: .78rem; font-weight: 400; white-space: normal; margin: 0 }
figure { margin: 0; min-width: 0 }
figcaption { font-size: .85rem; font-weight: 600; margin-bottom: .2rem }
svg { width: 100%; height: auto; display: block }
svg text { font-family: inherit !important }
img { max-width: 100%; height: auto; display: block }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; margin-bottom: 1rem }
.charts figure { flex: 1 1 18rem; max-width: 33rem }
.paper { background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: .4rem }
.paper { width: fit-content; max-width: 100%; overflow-x: auto }
.paper img { min-width: 26rem }
.strip { display: flex; gap: .7rem; overflow-x: auto; margin-top: .9rem; padding-bottom: .4rem }
.strip figure { flex: 0 0 14rem }
.strip figcaption { font-weight: 400; color: var(--faint) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
thead th { color: var(--faint); font-weight: 500 }
.bars { list-style: none; padding: 0; margin: 0; columns: 24rem; column-gap: 2.5rem }
.bars li { display: grid; grid-template-columns: minmax(6rem, 11rem) 1fr 3.6rem; gap: .7rem; align-items: center }
.bars span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.bars b { font-weight: 500; text-align: right; font-variant-numeric: tabular-nums }
.bars div { background: var(--line); border-radius: .3rem; height: .6rem }
.bars i { display: block; background: var(--accent); border-radius: .3rem; height: 100% }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 3rem }
.pair > div { max-width: 100% }
table.heat { border-spacing: 2px; border-collapse: separate }
.heat th, .heat td { border: 0; padding: .2rem .35rem }
.heat tbody th { font-weight: 400; text-align: right; white-space: nowrap; vertical-align: middle }
.heat thead th { vertical-align: bottom; font-weight: 400; color: inherit }
.heat thead span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap }
.heat tbody td { background: rgb(37 99 235 / calc(var(--v) * .95 + .04)); border-radius: .2rem }
.heat tbody td { min-width: 2.2rem; height: 2rem; text-align: center; vertical-align: middle }
.heat .dark { color: #fff }
.fine { font-size: .72rem }
.heat.fine td, .heat.fine th { padding: 0 .15rem; min-width: 1rem; height: 1rem; line-height: 1 }
img.heat { width: 28rem; image-rendering: pixelated; border: 1px solid var(--line) }
pre { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; margin: .2rem 0 .9rem }
pre { overflow-x: auto; font-size: .82rem }
summary { cursor: pointer; margin-bottom: .5rem }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  body { font-size: 11px }
  h2, h3 { break-after: avoid }
  figure, tr, li, .heat { break-inside: avoid }
  .charts figure { flex-basis: 30% }
  .strip { flex-wrap: wrap }
  pre { white-space: pre-wrap }
  .cards div, pre { border: 1px solid var(--line) }
  details::details-content { content-visibility: visible; block-size: auto }
}
"""
