"""Names for the predictions of images in one folder."""

from collections import Counter
from pathlib import Path

PREDICTED = "predicted"


class PredictedFiles:
    """Images of one name get a number behind it.

    Args:
        folder: Made if it is absent; None for predicted/ in the run.
        run: A run, or one of its files.
    """

    def __init__(self, folder: Path | None, run: Path):
        self.folder, self.taken = folder or (run if run.is_dir() else run.parent) / PREDICTED, Counter[str]()
        self.folder.mkdir(parents=True, exist_ok=True)

    def of(self, image: str, *endings: str) -> list[Path]:
        """A file of each ending for an image."""
        stem = Path(image).stem
        self.taken[stem] += 1
        own = stem if self.taken[stem] == 1 else f"{stem}-{self.taken[stem]}"
        return [self.folder / f"{own}{ending}" for ending in endings]
