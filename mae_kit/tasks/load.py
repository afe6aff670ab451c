"""Finds what a fine-tuning has written."""

from collections.abc import Callable
from pathlib import Path

from mae_kit.files.run_folder import weights_name
from mae_kit.files.tensor_file import CLASSIFIER, DETECTOR, REGRESSOR, SEGMENTER, kind_of
from mae_kit.tasks.boxes import TrainedDetector
from mae_kit.tasks.classes import TrainedClassifier
from mae_kit.tasks.masks import TrainedSegmenter
from mae_kit.tasks.numbers import TrainedRegressor
from mae_kit.tasks.trained import Trained

_KINDS: dict[str, Callable[[Path], Trained]] = {
    SEGMENTER.name: TrainedSegmenter,
    REGRESSOR.name: TrainedRegressor,
    DETECTOR.name: TrainedDetector,
    CLASSIFIER.name: TrainedClassifier,
}


def trained_kind(path: Path) -> str:
    """Name what a fine-tuning has written at a path, such as classifier or segmenter; empty if there is none."""
    files = [path / weights_name(kind) for kind in _KINDS] if path.is_dir() else [path]
    return next((kind for file in files if (kind := kind_of(file)) in _KINDS), "")


def load_trained(path: Path) -> Trained:
    """Rebuild the model of a fine-tuning.

    Args:
        path: A run, or one of its files.

    Raises:
        UserError: `classifier.missing`: there is none; or it is damaged.
    """
    return _KINDS[trained_kind(path) or CLASSIFIER.name](path)
