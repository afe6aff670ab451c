"""Names for the predictions of images in one folder."""

from collections import Counter
from pathlib import Path


class PredictedFiles:
    """Images of one name get a number behind it.

    Args:
        folder: Made if it is absent.
    """

    def __init__(self, folder: Path):
        self.folder, self.taken = folder, Counter[str]()
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, image: str, *endings: str) -> list[Path]:
        """A file of each ending for an image."""
        stem = Path(image).stem
        self.taken[stem] += 1
        own = stem if self.taken[stem] == 1 else f"{stem}-{self.taken[stem]}"
        return [self.folder / f"{own}{ending}" for ending in endings]
