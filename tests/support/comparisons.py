"""Comparisons without trainings: command lines that are parsed, and made-up results in real run folders."""

import json
from pathlib import Path
from typing import Any

import yaml

from mae_kit.cli.main import read
from mae_kit.comparison.orchestrate import Children, Failed, Step
from mae_kit.files.run_folder import RunFolder

TOP1 = {"mae": 0.6, "simmim": 0.5, "scratch": 0.4, "new": 0.3}


def arguments(words: list[str]) -> dict[str, Any]:
    """What a command line stands for."""
    return read(words[0], words[1:])


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "compare.yaml"
    path.write_text(json.dumps(content))
    return path


def settings(words: list[str]) -> dict[str, Any]:
    """Settings of a training's command line, a recipe's by its content; parsing them all takes seconds."""
    given = {option: yaml.safe_load(value) for option, value in zip(words[2::2], words[3::2], strict=True)}
    recipe = yaml.safe_load(Path(words[1]).read_text())
    encoder = {"init_args": {"name": "vit", "depth": given.get("--objective.encoder.depth", 2)}}
    return {
        "recipe": recipe,
        "objective": {"init_args": {"encoder": encoder}},
        **{"data.path" if option == "--data" else option.removeprefix("--"): value for option, value in given.items()},
    }


def dry_run(steps: list[Step]) -> dict[str, dict[str, Any]]:
    """Stand for the dry run of a comparison."""
    return {step.command: settings(step.start) for step in steps if step.command != "evaluate"}


class Commands:
    """Stand for child processes: made-up results in run folders, failures, and a signal after so many."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.broken: tuple[str, ...] = ()
        self.stop_at = 1000

    def __call__(self, words: list[str], log_file: Path, _: Children, __: bool) -> tuple[dict[str, Any], list[str]]:
        self.words.append(words)
        run = log_file.with_suffix("")
        run.mkdir(exist_ok=True)
        if words[0] != "evaluate" and "--resume" not in words:
            (run / "config.yaml").write_text(yaml.safe_dump(settings(words)))
        if len(self.words) == self.stop_at:
            raise SystemExit(143)
        name, seed = run.parent.name.split("-seed")
        if f"{words[0]} {name}" in self.broken:
            raise Failed("the loss is nan")
        top1 = TOP1[name] + 0.01 * int(seed)
        shots = {"method": "fewshot 1", "layer": 2, "token": "mean", "top1": None}
        knn = {"method": "knn", "layer": 2, "top1": top1 / 2, "low": 0.0, "high": 1.0}
        scores = [knn | {"token": token} for token in ("class", "mean")]
        result = {"top1": top1, "samples": 100, "scores": [*scores, shots]}
        folder = RunFolder(run)
        evaluation = folder.untrained_evaluation if "--untrained" in words else folder.evaluation
        outputs = {"pretrain": folder.model, "finetune": folder.result, "evaluate": evaluation}
        outputs[words[0]].write_text(json.dumps(result))
        return result, ["done"]

    def said(self) -> list[str]:
        """Command and entry of each, in the order of their coming."""
        runs = [
            next(Path(word) for word in reversed(words) if "-seed" in Path(word).parent.name) for words in self.words
        ]
        return [f"{words[0]} {run.parent.name}" for words, run in zip(self.words, runs, strict=True)]
