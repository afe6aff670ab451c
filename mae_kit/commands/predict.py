"""Predict images with a fine-tuned model."""

from pathlib import Path
from typing import Any

from mae_kit.data.remote.filesystem import Place
from mae_kit.tasks.load import load_trained
from mae_kit.training.ranges import POSITIVE, check_ranges


def predict(
    run: Path, images: list[Place], top: int = 3, limit: int | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Print the most likely classes of images, with probabilities, or the numbers of a regressor; write the masks of a
    segmenter or the boxes of a detector.

    Probabilities are softmax outputs; for multi-label classifiers, independent sigmoid outputs, where an asterisk marks
    the predicted classes (0.5 or more). A mask is a palette PNG of the image's size that holds the class of every
    pixel; an overlay shows it on the image.

    Args:
        run: A fine-tuning run, or its classifier.safetensors, segmenter.safetensors and so on.
        images: Images, folders of images, folders of shards, tars, or URLs of shards; of any size.
        top: Number of classes to print for each image.
        limit: Maximum number of images to read from each source; by default all.
        out: Also write a CSV file: one line per image, with its name and the top classes and their probabilities, or
            the numbers. With a segmenter, the folder for NAME.png and NAME.overlay.png; with a detector, for
            detections.json (COCO's format, with scores) and NAME.boxes.png; by default predicted/ in the run.

    Returns:
        Under `predictions`, for each image, its name and the top classes with probabilities, 0..1, or the numbers;
        `out`, the CSV file. With a segmenter, for each image, the two files and the fraction of the pixels of each
        class; with a detector its picture and boxes; `out`, the folder.

    Raises:
        UserError: The run holds no classifier, or nothing decodes; top or limit is not above 0; `out` is not a .csv.
    """
    check_ranges({"top": top, "limit": limit}, top=POSITIVE, limit=POSITIVE)
    return load_trained(run).predict(images, top, limit, out, run)
