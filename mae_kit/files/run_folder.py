"""The files of a run: every name is spelled here, once."""

from pathlib import Path


def weights_name(kind: str) -> str:
    """Name the file of an encoder, a model, a classifier or a tokenizer."""
    return f"{kind}.safetensors"


class RunFolder:
    """The folder of a run, or of a comparison or demo, and the files in it.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """The complete recipe; `--config` takes it."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON line for each interval, score and audited epoch."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def quarantine(self) -> Path:
        """One JSON line for each sample that did not decode."""
        return self.path / "quarantine.jsonl"

    @property
    def encoder(self) -> Path:
        return self.path / weights_name("encoder")

    @property
    def encoder_config(self) -> Path:
        return self.path / "encoder.json"

    @property
    def model(self) -> Path:
        """Encoder and decoder of a pretraining."""
        return self.path / weights_name("model")

    @property
    def classifier(self) -> Path:
        return self.path / weights_name("classifier")

    @property
    def tokenizer(self) -> Path:
        return self.path / weights_name("tokenizer")

    @property
    def result(self) -> Path:
        """The scores of a complete fine-tuning."""
        return self.path / "result.json"

    @property
    def tuning(self) -> Path:
        """The setting that trials of a fine-tuning chose."""
        return self.path / "tuning.json"

    @property
    def complete(self) -> Path:
        """Written last: how many steps the training had when all its files were there."""
        return self.path / "complete.json"

    @property
    def best(self) -> "RunFolder":
        """The weights with the best score; they have the names of the last ones."""
        return RunFolder(self.path / "best")

    @property
    def score(self) -> Path:
        """In `best`: the step of the weights, and their score."""
        return self.path / "score.json"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def untrained_evaluation(self) -> Path:
        return self.path / "evaluation-untrained.json"

    @property
    def comparison(self) -> Path:
        return self.path / "compare.json"

    def training(self, entry: str, seed: int, command: str) -> Path:
        """The folder of one run of a comparison."""
        return self.path / f"{entry}-seed{seed}" / command

    def recipe(self, entry: str, kind: str) -> Path:
        """A comparison's copy of a recipe."""
        return self.path / "recipes" / f"{entry}-{kind}.yaml"

    @property
    def scratch(self) -> Path:
        """The folder of the same fine-tuning from scratch."""
        return self.path / "scratch"

    @property
    def demo(self) -> Path:
        return self.path / "demo.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def reconstructions(self) -> Path:
        """Plots of the same images over the steps of a run."""
        return self.path / "reconstructions"

    def reconstruction(self, step: int) -> Path:
        return self.reconstructions / f"step-{step:08d}.png"

    @property
    def mistakes(self) -> Path:
        """Thumbnails of the mistakes that result.json lists."""
        return self.path / "mistakes"

    def mistake(self, number: int) -> Path:
        return self.mistakes / f"{number:02d}.jpg"

    @property
    def predictions(self) -> Path:
        """Pictures of what a fine-tuned model predicts, next to the truth."""
        return self.path / "predictions"

    @property
    def inside(self) -> Path:
        """Plots of `mae-kit inspect`."""
        return self.path / "inside"

    def plot(self, name: str) -> Path:
        return self.inside / f"{name}.png"


class CheckpointFolder:
    """The folder of one checkpoint, `step-00000500`; it need not exist."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def step(self) -> int:
        return int(self.path.name.removeprefix("step-"))

    @property
    def state(self) -> Path:
        """Tensors and plain values."""
        return self.path / "state.pt"

    @property
    def manifest(self) -> Path:
        """Written last: the sha256 of the state."""
        return self.path / "manifest.json"
