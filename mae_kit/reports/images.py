"""The images in a run folder: reconstructions drawn during pretraining, and the plots of `inspect`."""

import io
import re
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.render import data_uri, render

EARLIER = 6
SMALL = 560  # px, twice the width it is shown at
PLOTS = {
    "reconstructions": ("Reconstructions", "Input, what the encoder sees, the prediction, and both combined."),
    "attention": (
        "Attention",
        "Which patches a patch attends to, and how far the heads of each layer look on average. After masked "
        "pretraining, heads of late layers may look less far than those of the first; after supervised training it is "
        "the other way round.",
    ),
    "features": (
        "Features",
        "The first three principal components of the patch features as red, green and blue: patches of similar color "
        "have similar features.",
    ),
    "map": ("Map", "Images in the plane, by t-SNE: those close together have similar features."),
    "losses": ("Loss of each patch", "Mean over many random masks; bright patches are hard to predict."),
    "ratios": (
        "Reconstructions at several mask ratios",
        "Top: what the model sees. Bottom: the visible patches and its prediction combined.",
    ),
    "positions": (
        "Position embeddings",
        "For each patch, at its place, a map of the cosine similarity of its position embedding to all others.",
    ),
}


def latest(run: RunFolder) -> Path | None:
    """The reconstructions that were drawn last."""
    return max(run.reconstructions.glob("*.png"), key=_step, default=None)


def reconstructions(run: RunFolder) -> Markup:
    """Show the latest reconstructions large, and some earlier ones small."""
    paths = sorted(run.reconstructions.glob("*.png"), key=_step)
    if not paths:
        return Markup()
    *earlier, last = paths
    chosen = np.linspace(0, len(earlier) - 1, min(EARLIER, len(earlier))).round().astype(int)
    small = [(_step(earlier[i]), _thumbnail(earlier[i])) for i in chosen]
    return render("reconstructions.html", step=_step(last), latest=data_uri(last.read_bytes(), "png"), earlier=small)


def plots(run: RunFolder) -> Markup:
    """Show the plots that `inspect` has drawn."""
    found = {name: run.plot(name) for name in PLOTS}
    shown = [
        (*PLOTS[name], data_uri(path.read_bytes(), "png"), _width(path))
        for name, path in found.items()
        if path.is_file()
    ]
    return render("plots.html", plots=shown) if shown else Markup()


def _width(path: Path) -> int:
    """Width on the page in CSS pixels, at which a plot of 120 dots per inch has the font size of the page."""
    with Image.open(path) as image:
        return round(image.width * 0.8)


def _thumbnail(path: Path) -> str:
    buffer = io.BytesIO()
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((SMALL, SMALL))
    small.save(buffer, format="JPEG", quality=85)
    return data_uri(buffer.getvalue(), "jpeg")


def _step(path: Path) -> int:
    digits = re.search(r"\d+", path.stem)
    return int(digits[0]) if digits else 0
