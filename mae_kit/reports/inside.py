"""The pictures of a model's inside that `inspect` has drawn, whichever are there."""

from html import escape
from pathlib import Path

from mae_kit.reports.html import image, note, section

ABOUT = {
    "attention": (
        "Attention",
        "Where a patch looks, and how far the heads of each layer look on average. After masked pretraining heads of "
        "late layers may well look less far than those of the first; after training with labels it is the other way "
        "round.",
    ),
    "features": (
        "Features",
        "The first three principal components of the patch features as red, green and blue: like color, like feature.",
    ),
    "losses": (
        "Loss of each patch",
        "Averaged over many draws of what is hidden; bright is hard to predict.",
    ),
    "ratios": (
        "Reconstructions over the share that is hidden",
        "Above what the model sees, below its prediction pasted into it.",
    ),
    "positions": (
        "Positions",
        "For each patch, at its place, a map of how alike its position embedding is to all others.",
    ),
}


def inside(folder: Path) -> str:
    shown = "".join(_picture(folder / f"{name}.png", *about) for name, about in ABOUT.items())
    return section("Inside the model", shown) if shown else ""


def _picture(path: Path, title: str, about: str) -> str:
    if not path.is_file():
        return ""
    picture = f"<figure class=paper>{image(path.read_bytes(), 'png', title)}</figure>"
    return f"<h3>{escape(title)}</h3>{note(about)}{picture}"
