"""The files of a run: every name is spelled here, once."""

from pathlib import Path
from typing import Any


def weights_name(kind: str) -> str:
    """Name the file of an encoder, a model, a classifier or a tokenizer."""
    return f"{kind}.safetensors"


class _Named:
    """A file or folder in another folder, by its name."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, folder: Any, kind: Any = None) -> Path:
        return folder.path / self.name


class RunFolder:
    """The folder of a run, or of a comparison or demo, and the files in it.

    Args:
        path: The folder; it need not exist.
    """

    config = _Named("config.yaml")  # the complete recipe; `--config` takes it
    metrics = _Named("metrics.jsonl")  # one JSON line for each interval, score and audited epoch
    tensorboard = _Named("tensorboard")
    checkpoints = _Named("checkpoints")
    quarantine = _Named("quarantine.jsonl")  # one JSON line for each sample that did not decode
    complete = _Named("complete.json")  # written last: how many steps the training had when all its files were there
    encoder = _Named(weights_name("encoder"))
    encoder_config = _Named("encoder.json")
    model = _Named(weights_name("model"))  # encoder and decoder of a pretraining
    tokenizer = _Named(weights_name("tokenizer"))
    result = _Named("result.json")  # the scores of a complete fine-tuning
    trials = _Named("trials.json")  # their scores so far
    tuning = _Named("tuning.json")  # the setting that trials of a fine-tuning chose
    scratch = _Named("scratch")  # the same fine-tuning from scratch
    score = _Named("score.json")  # in `best`: the step of the weights, and their score
    evaluation = _Named("evaluation.json")
    untrained_evaluation = _Named("evaluation-untrained.json")
    comparison = _Named("compare.json")
    demo = _Named("demo.json")
    report = _Named("report.html")
    reconstructions = _Named("reconstructions")  # plots of the same images over the steps of a run
    mistakes = _Named("mistakes")  # thumbnails of the mistakes that result.json lists
    predictions = _Named("predictions")  # pictures of what a fine-tuned model predicts, next to the truth
    attention = _Named("attention")  # pictures of where the queries of a detector look
    inside = _Named("inside")  # plots of `mae-kit inspect`

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def best(self) -> "RunFolder":
        """The weights with the best score; they have the names of the last ones."""
        return RunFolder(self.path / "best")

    def training(self, entry: str, seed: int, command: str) -> Path:
        """The folder of one run of a comparison."""
        return self.path / f"{entry}-seed{seed}" / command

    def recipe(self, entry: str, kind: str) -> Path:
        """A comparison's copy of a recipe."""
        return self.path / "recipes" / f"{entry}-{kind}.yaml"

    def reconstruction(self, step: int) -> Path:
        return self.reconstructions / f"step-{step:08d}.png"

    def mistake(self, number: int) -> Path:
        return self.mistakes / f"{number:02d}.jpg"

    def plot(self, name: str) -> Path:
        return self.inside / f"{name}.png"


class CheckpointFolder:
    """The folder of one checkpoint, `step-00000500`; it need not exist."""

    state = _Named("state.pt")  # tensors and plain values
    manifest = _Named("manifest.json")  # written last: the sha256 of the state

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def step(self) -> int:
        return int(self.path.name.removeprefix("step-"))
