"""What scores are of: these weights, and these images with their labels."""

import hashlib
from pathlib import Path

from mae_kit.data.index import open_index
from mae_kit.data.remote import Place
from mae_kit.encoder_file import FILE


def fingerprints(encoder: Path, train: Place, val: Place) -> dict[str, str]:
    """Of the `weights`, and of the samples and labels of `train` and `val`.

    Args:
        encoder: Of ours.
        train: Labelled shards to learn from.
        val: Labelled shards to score on.
    """
    file = encoder / FILE if encoder.is_dir() else encoder
    weights = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return {"weights": weights, "train": open_index(train).fingerprint, "val": open_index(val).fingerprint}
