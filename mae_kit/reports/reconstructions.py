"""The probe images that pretraining draws every so often: the latest large, some earlier ones small."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from mae_kit.reports.html import image, section

EARLIER = 6
SMALL = 560  # px, twice the width it is shown at


def latest(folder: Path) -> Path | None:
    """The last picture that was drawn there."""
    return max(folder.glob("step-*.png"), key=_step, default=None)


def reconstructions(folder: Path) -> str:
    paths = sorted(folder.glob("step-*.png"), key=_step)
    if not paths:
        return ""
    *earlier, last = paths
    chosen = np.linspace(0, len(earlier) - 1, min(EARLIER, len(earlier))).round().astype(int)
    large = f"<figure class=paper>{image(last.read_bytes(), 'png', _alt(last))}</figure>"
    strip = "".join(_small(earlier[i]) for i in chosen)
    return section(f"Reconstructions at step {_step(last):,}", large, f"<div class=strip>{strip}</div>")


def _small(path: Path) -> str:
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((SMALL, SMALL))
    small.save(buffer, format="JPEG", quality=85)
    shown = image(buffer.getvalue(), "jpeg", _alt(path))
    return f"<figure>{shown}<figcaption>step {_step(path):,}</figcaption></figure>"


def _alt(path: Path) -> str:
    return f"Reconstructions at step {_step(path)}"


def _step(path: Path) -> int:
    digits = re.search(r"\d+", path.stem)
    return int(digits[0]) if digits else 0
