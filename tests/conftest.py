"""Fixtures: real data next to the project, tiny shards, command lines as processes, and one tiny run."""

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis

# Loaded here, since jaxtyping's import hook makes whatever mae_kit imports first be compiled from its source.
import matplotlib.figure  # noqa: F401
import pytest
import pytorch_lightning  # noqa: F401
import timm  # noqa: F401
import torch._dynamo  # noqa: F401
import torchmetrics  # noqa: F401
from support.pages import DRAW, undraw
from support.photo_shards import write_shards
from support.processes import Programs

from mae_kit.cli import main as cli

pytest_plugins = ["support.gates"]

hypothesis.settings.register_profile("busy machine", deadline=None, print_blob=True)
hypothesis.settings.load_profile("busy machine")

PRETRAIN = """
objective:
  class_path: mae_kit.objectives.MAE
  init_args:
    encoder:
      class_path: mae_kit.encoders.vit.ViT
      init_args: {name: vit_tiny_patch16_224, img_size: 32, patch_size: 8, embed_dim: 48, depth: 2, num_heads: 3}
    decoder_dim: 32
    decoder_depth: 1
    decoder_heads: 2
data: {batch_size: 16}
optimization: {epochs: 3, warmup_epochs: 0.5, learning_rate: 1.0e-3}
intervals: {log_every_n_steps: 3, checkpoint_every_n_steps: 5, eval_every_n_steps: 1000}
machine: {num_workers: 0, precision: fp32}
"""
"""18 steps of 16 images; metrics and checkpoints are deliberately at different steps."""

FINETUNE = """
model: {name: vit_tiny_patch16_224, args: {patch_size: 8, embed_dim: 48, depth: 2, num_heads: 3}}
data: {batch_size: 16, image_size: 32, crop_scale: [0.3, 1.0]}
augmentation: {mixup: 0.8, cutmix: 1.0, erasing: 0.25, color_jitter: 0.2}
drop_path: 0.2
ema: 0.9
optimization: {epochs: 3, warmup_epochs: 0.5, learning_rate: 1.0e-3, layer_decay: 0.75, clip: 1.0}
intervals: {log_every_n_steps: 3, checkpoint_every_n_steps: 5, eval_every_n_steps: 1000}
machine: {num_workers: 0, precision: fp32}
"""


def pytest_configure() -> None:
    """Imports are millions of objects, which stay: the garbage collector need not look for them at each step.

    Pages have no drawings but where a test asks for them.
    """
    gc.disable()
    undraw()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else nanobind reports what is left as leaks


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages as users see them."""
    monkeypatch.setenv(DRAW, "1")


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in fp32 on a processor with bf16, too."""
    monkeypatch.setattr("mae_kit.training.precision._cpu_computes_bf16", lambda: False)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make text that is read without an encoding ASCII, as on a machine without UTF-8."""
    read = Path.read_text

    def read_text(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
        return read(path, encoding or "ascii", errors)

    monkeypatch.setattr(Path, "read_text", read_text)


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command line that ends with a user's mistake, in one line on stderr; returns its key."""
    found: list[str] = []
    complain = cli._complain
    monkeypatch.setattr(cli, "_complain", lambda error: found.append(getattr(error, "key", "")) or complain(error))

    def key(*words: str | Path) -> str:
        code = cli.main([str(word) for word in words])
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 and len(lines) == 1 and lines[0].startswith("mae-kit: error: "), lines
        return found.pop()

    return key


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data next to a developer's checkout; the project does not depend on it."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("no shared data folder beside the project")
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of shards, not to be changed: 96 labeled images in train-*.tar, 32 in val-0.tar."""
    return write_shards(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Starter of command lines as processes."""
    programs = Programs(tmp_path_factory.mktemp("programs"))
    yield programs
    programs.close()


@pytest.fixture
def forked(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the child processes of this one fork from a process that has imported everything."""
    monkeypatch.setattr(sys, "executable", str(programs.python))


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with pretrain.yaml and finetune.yaml, both tiny."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "pretrain.yaml").write_text(PRETRAIN)
    (folder / "finetune.yaml").write_text(FINETUNE)
    return folder


@pytest.fixture(scope="session")
def trained(programs: Programs, photos: Path, recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a completed pretraining, not to be changed."""
    run = tmp_path_factory.mktemp("trained") / "run"
    words = ["--config", recipes / "pretrain.yaml", "--data.path", photos / "train-*.tar"]
    ended = programs.run("pretrain", *words, "--run", run, **{DRAW: 1})
    assert ended.code == 0, ended.err
    return run
