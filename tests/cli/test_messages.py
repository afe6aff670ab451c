"""What the command line answers to words that it does not know, by the verbs as they are."""

from pathlib import Path

import pytest

from mae_kit.cli import main as cli

PRETRAIN = "pretrain --config mae_vit_tiny_64px --data.path x --run r"
FINETUNE = "finetune --config vit_tiny_64px --data.path x --data.val y --run r"


def complaint(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert cli.main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("mae-kit: error: ")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (f"{PRETRAIN} --lr 1", "unknown option --lr: see `mae-kit pretrain --help`"),
        (f"{PRETRAIN} --optimization.lr 1", "unknown option --optimization.lr: see `mae-kit pretrain --help`"),
        (
            f"{PRETRAIN} --objective SimMIM",
            "the recipe is of MAE, and the objective SimMIM: begin with a recipe of SimMIM: no setting of another is "
            "kept",
        ),
        (
            f"{PRETRAIN} --objective [",
            "objective: Expected a dot import path string: [: see `mae-kit pretrain --help`",
        ),
        (
            f"{PRETRAIN} --config beit_tiny_64px",
            "the recipe is of MAE, and the objective BEiT: begin with a recipe of BEiT: no setting of another is kept",
        ),
        (
            "pretrain --config beit_tiny_64px --data.path x --run y",
            "objective.tokenizer is missing: add --objective.tokenizer, see --objective.help CLASS",
        ),
        (f"{PRETRAIN} --model x", "unknown option --model: see `mae-kit pretrain --help`"),
        ("shard a b --config c", "unknown option --config: see `mae-kit shard --help`"),
        (
            f"{PRETRAIN} --optimization.epoch 1",
            "unknown option --optimization.epoch: did you mean --optimization.epochs?",
        ),
        (
            f"{PRETRAIN} --optimization.epoch 1",
            "unknown option --optimization.epoch: did you mean --optimization.epochs?",
        ),
        (f"{PRETRAIN} --batch_size 1", "unknown option --batch_size: did you mean --data.batch_size?"),
        (f"{PRETRAIN} --data.mean 0.5", "data.mean does not take '0.5': give a list, as [.5,.5,.5]"),
        (f"{FINETUNE} --data.mean 0.5", "data.mean does not take '0.5': give a list, as [.5,.5,.5] or null"),
        (f"{FINETUNE} --model resnet18", "model does not take 'resnet18': did you mean --model.name resnet18?"),
        (f"{FINETUNE} --model.nam x", "unknown key model.nam: did you mean model.name?"),
        (
            f"{FINETUNE} --model.args patch_size=8",
            "model.args does not take 'patch_size=8': give keys, as {patch_size: 8}",
        ),
        (
            f"{PRETRAIN} --intervals 5",
            "intervals is not '5', it holds keys: give one of --intervals.log_every_n_steps, "
            "--intervals.checkpoint_every_n_steps, --intervals.eval_every_n_steps",
        ),
        (
            "pretrain --config vit_tiny_64px",
            "vit_tiny_64px is a recipe of finetune: did you mean pretrain/beit_tiny_64px or "
            "pretrain/mae_vit_tiny_64px or pretrain/igpt_tiny_16px?",
        ),
    ],
)
def test_words_that_are_not_known(capsys: pytest.CaptureFixture[str], words: str, error: str):
    assert complaint(capsys, *words.split()) == error


@pytest.mark.parametrize(
    ("verb", "other", "key"),
    [
        ("pretrain", "finetune", "augmentation"),
        ("finetune", "pretrain", "objective"),
        ("pretrain", "tokenizer", "relaxation"),
    ],
)
def test_a_run_goes_on_by_the_verb_that_began_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, other: str, key: str
):
    (tmp_path / "config.yaml").write_text(f"{key}: {{}}")
    line = complaint(capsys, verb, "--resume", tmp_path)
    assert line == f"{tmp_path} is a run of {other}: mae-kit {other} --resume {tmp_path}"
