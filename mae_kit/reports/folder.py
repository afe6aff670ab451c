"""The contents of a run folder, as far as they exist: a run may not have ended."""

from pathlib import Path
from typing import NamedTuple

from mae_kit.data.index.labels import describe_labels
from mae_kit.errors import UserError
from mae_kit.files.plain_types import mismatch
from mae_kit.files.recipe_file import read_recipe
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.run_records import Config, read_record
from mae_kit.training.metrics import Row, json_lines, read_metrics

_FIX = "restore it; it is written when a training starts"
LINES = 5000  # of metrics that a page is made from, however long the run


class Folder(NamedTuple):
    """What a page is made from.

    Attributes:
        path: The folder.
        kind: Demo, Comparison, Fine-tuning, Evaluation, Tokenizer or Pretraining.
        training: The folder of the training that is shown: `path`, or the pretraining of a demo.
        metrics: Rows of its metrics.jsonl, by step.
        config: Its recipe.
        encoder: encoder.json, once a pretraining has ended.
        quarantine: Its bad samples.
        result: result.json, once a fine-tuning has ended.
        best: best/score.json, of a training that keeps its best weights.
        demo: demo.json.
        compared: compare.json.
        evaluation: evaluation.json.
        untrained: evaluation-untrained.json.
    """

    path: Path
    kind: str
    training: RunFolder
    metrics: list[Row]
    config: Row
    encoder: Row
    quarantine: list[Row]
    result: Row
    best: Row
    demo: Row
    compared: Row
    evaluation: Row
    untrained: Row

    @property
    def step(self) -> int | None:
        """The last step of a pretraining that has ended; it may have been extended since."""
        return max([self.encoder.get("step", 0), *(row["step"] for row in self.metrics)]) if self.encoder else None


def read_folder(path: Path) -> Folder:
    """Read all files; those that are missing are empty.

    Raises:
        UserError: One of them is damaged, or holds something else.
    """
    run = RunFolder(path)
    result, demo, compared = map(read_record, (run.result, run.demo, run.comparison))
    evaluation, untrained = map(read_record, (run.evaluation, run.untrained_evaluation))
    training = RunFolder(path / demo.get("pretraining", ""))
    config = read_config(training.path)
    return Folder(
        path,
        _kind(demo, compared, result, evaluation or untrained, config),
        training,
        read_metrics(training.path, LINES),
        config,
        read_record(training.encoder_config),
        json_lines(training.quarantine),
        result,
        read_record(run.best.score),
        demo,
        compared,
        evaluation,
        untrained,
    )


def _kind(demo: Row, compared: Row, result: Row, evaluation: Row, config: Row) -> str:
    if demo or compared:
        return "Demo" if demo else "Comparison"
    if result or "encoder" in config:
        return "Fine-tuning"
    if evaluation and not config:
        return "Evaluation"
    return "Tokenizer" if "relaxation" in config else "Pretraining"


def read_batch_size(run: Path) -> int:
    """Read the images per step from the recipe of a run."""
    size = read_config(run).get("data", {}).get("batch_size")
    if size is None:
        raise UserError("config.batch_size", f"{RunFolder(run).config} has no data.batch_size", _FIX)
    return size


def read_labels(run: Path) -> str:
    """Read from the recipe of a fine-tuning how many labels it has, in words."""
    data = read_config(run).get("data", {})
    return describe_labels(data.get("labels_per_class"), data.get("labels_fraction"))


def read_config(run: Path) -> Row:
    """Read the recipe of a run; empty where it has not started.

    Raises:
        UserError: It is no recipe, or its values are of other types.
    """
    file = RunFolder(run).config
    config = read_recipe(file) if file.is_file() else {}
    if fault := mismatch(config, Config):
        raise UserError("config.damaged", f"{file} is malformed: {fault}", _FIX)
    return config
