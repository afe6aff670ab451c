"""What the JSON files of a run hold, and their reader: one that was bent or made up is refused by its name.

A key that is not named here may have any value: nothing reads it.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypedDict

from mae_kit.errors import UserError
from mae_kit.files.json_file import read_json

Fraction = Annotated[float, (0, 1)]
Count = Annotated[int, (0, 2**53)]
Positive = Annotated[float, (1e-9, 1e30)]
Pixels = Annotated[int, (1, 1_000_000)]
Name = Annotated[str, re.compile(r"\w[\w.+-]*")]
"""Of a folder below that of the file: never a path."""
Nothing = dict[str, NoReturn]


class OneSeed(TypedDict):
    mean: float
    low: None
    high: None
    seeds: list[float]


class SeveralSeeds(TypedDict):
    mean: float
    low: float
    high: float
    seeds: list[float]


OverSeeds = OneSeed | SeveralSeeds
"""`SeedScore` as a mapping."""


class _ClassScores(TypedDict, total=False):
    precision: Fraction | None
    recall: Fraction | None
    average_precision: Fraction | None


class ClassRow(_ClassScores):
    """A class of a result."""

    name: str
    images: Count
    f1: Fraction | None


class _Candidate(TypedDict, total=False):
    top1: Fraction
    map: Fraction


class CandidateRow(_Candidate):
    """A way to use an encoder with few labels."""

    method: str
    cross_validated: Fraction
    low: Fraction | None
    high: Fraction | None


class MistakeRow(TypedDict):
    """An image that got another class than its label."""

    file: str
    label: str
    predicted: str
    probability: Fraction


class NumberRow(TypedDict):
    """A number of a regression."""

    name: str
    r2: float
    mae: float
    mean: float


class BoxRow(TypedDict):
    """A class of objects."""

    name: str
    objects: Count
    ap: Fraction | None
    ap50: Fraction | None


class _Result(TypedDict, total=False):
    top1: Fraction
    top5: Fraction
    map: Fraction
    map50: Fraction
    ap_of_classes: list[BoxRow]
    miou: Fraction
    pixel_accuracy: Fraction
    r2: float
    mae: float
    of_numbers: list[NumberRow]
    predicted: list[list[float]]
    true: list[list[float]]
    macro_f1: Fraction
    balanced_accuracy: Fraction
    encoder: str
    val: str
    classes: list[str]
    per_class: dict[str, Fraction]
    of_classes: list[ClassRow]
    confusion: list[list[Count]]
    labeled_images: Count
    candidates: list[CandidateRow]
    chosen: str
    verdict: str
    mistakes: list[MistakeRow]


class Result(_Result):
    """result.json: a complete fine-tuning."""

    samples: Annotated[int, (1, 2**53)]


class _Unscored(TypedDict, total=False):
    top1: None
    map: None
    error: str


class _Headline(TypedDict, total=False):
    top1: Fraction
    map: Fraction
    map50: Fraction
    miou: Fraction
    r2: float
    macro_f1: float | None
    macro_low: float | None
    macro_high: float | None


class _Scored(_Headline):
    low: float
    high: float


class _Trained(TypedDict):
    method: str


class _Frozen(_Trained):
    layer: Count
    token: Literal["mean", "class", "patches"]


class _FrozenScored(_Frozen, _Scored):
    pass


class _FrozenUnscored(_Frozen, _Unscored):
    pass


class _TrainedScored(_Trained, _Scored):
    pass


class _TrainedUnscored(_Trained, _Unscored):
    pass


class Extent(TypedDict):
    """Rank of the features of a layer."""

    layer: Count
    token: Literal["mean", "class"]
    rank: float
    dim: Count
    spread: float
    collapsed: bool


class Evaluation(TypedDict, total=False):
    """evaluation.json and evaluation-untrained.json."""

    encoder: str
    step: Count
    fingerprints: dict[str, str]
    scores: list[_FrozenScored | _FrozenUnscored]
    extents: list[Extent]
    trained: list[_TrainedScored | _TrainedUnscored]


class Cost(TypedDict):
    """Of a training, the mean over the seeds."""

    seconds: float
    core_seconds: float
    steps: float
    images: Positive
    flops: float | None


class Recipe(TypedDict):
    """A recipe of an entry, and what the comparison changes in it."""

    config: str
    overrides: dict[str, Any]


class _Recipes(TypedDict, total=False):
    pretrain: Recipe
    finetune: Recipe


class Failure(TypedDict):
    """A step of an entry that ended with an error."""

    seed: Any
    verb: Any
    error: Any


class EncoderClass(TypedDict):
    """Class and arguments of an encoder."""

    init_args: dict[str, Any]


class _Against(TypedDict, total=False):
    against: str


class Entry(_Against):
    """A row of compare.json."""

    name: Name
    seeds: Annotated[int, (1, 10_000)]
    recipes: _Recipes
    scores: dict[str, OverSeeds]
    differences: dict[str, OverSeeds]
    failures: list[Failure]
    encoder: EncoderClass | None
    pretraining: Cost | Nothing
    finetuning: Cost | Nothing


class _Known(TypedDict, total=False):
    prints: dict[str, str]


class Compared(_Known):
    """compare.json."""

    images_seen: int
    entries: list[Entry]


class DemoRow(TypedDict):
    """Scores with so many labels per class."""

    labels: int | str
    scratch: OverSeeds
    pretrained: OverSeeds
    gain: OverSeeds


class _Images(TypedDict, total=False):
    images: str | None
    conclusion: str


class Demo(_Images):
    """demo.json."""

    pretraining: Name
    rows: list[DemoRow]


class _ModelArgs(TypedDict, total=False):
    img_size: Pixels | list[Pixels] | None


class _EncoderSize(TypedDict, total=False):
    image_size: list[Pixels] | None
    step: Count


class EncoderRecord(_EncoderSize):
    """encoder.json."""

    model: str
    model_args: _ModelArgs


class _Data(TypedDict, total=False):
    path: str
    batch_size: Annotated[int, (1, 2**31)]
    labels_per_class: int | None
    labels_fraction: Fraction | None


class Config(TypedDict, total=False):
    """config.yaml, as far as pages and costs are made from it."""

    data: _Data
    optimization: dict[str, Any]
    model: dict[str, Any] | None
    finetune: str | None


class KeptWeights(TypedDict):
    """score.json, next to the best weights of a training."""

    step: Count
    metric: str
    value: float


class Tuning(TypedDict):
    """tuning.json."""

    head: Literal["recipe", "ridge"]
    learning_rate: Positive
    layer_decay: Fraction
    cross_validated: Fraction


class TrialScores(TypedDict):
    """trials.json: 0 to 1, by the setting and the fold."""

    scores: dict[str, Fraction]


KINDS: dict[str, Any] = {
    "result.json": Result,
    "evaluation.json": Evaluation,
    "evaluation-untrained.json": Evaluation,
    "compare.json": Compared,
    "demo.json": Demo,
    "encoder.json": EncoderRecord,
    "trials.json": TrialScores,
    "tuning.json": Tuning,
    "score.json": KeptWeights,
}


def read_record(file: Path) -> dict[str, Any]:
    """Read a JSON file of a run, whose name says what it has to hold; empty where there is none.

    Raises:
        UserError: `NAME.damaged`: it is damaged, or holds something else.
    """
    if not file.is_file():
        return {}
    fix, key = "restore it, or remove it and run the command that wrote it again", f"{file.stem}.damaged"
    content = read_json(file, key, fix, KINDS[file.name])
    rows = content.get("confusion", [])
    sides = {len(side) for side in (rows, *rows)}
    if rows and sides != {len(content.get("classes", []))}:
        raise UserError(key, f"{file} is malformed: confusion is not classes x classes", fix)
    return content
