"""Comparisons with made-up results, and one that is real."""
# Also tests commands/compare.py, comparison/entries.py.

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from support.boxed_folders import some_boxes, write_coco
from support.comparisons import Commands, write
from support.errors import raises
from support.photo_shards import write_shard
from support.shapes import write_shapes

import mae_kit as mk
from mae_kit.commands import compare as command
from mae_kit.commands.compare import compare
from mae_kit.comparison.orchestrate import Step
from mae_kit.errors import UserError
from mae_kit.reports.comparison import SCRATCH, UNLIKE, describe_scratch
from mae_kit.reports.evaluation import method_name
from mae_kit.training.lock import alone

Content = dict[str, Any]


def run(content: Content, folder: Path) -> dict[str, Any]:
    return compare(write(folder, content), folder / "out")


def run_until(stop_at: int, content: Content, folder: Path, commands: Commands) -> None:
    """Begin a comparison that a signal stops at so many commands."""
    commands.stop_at = stop_at
    with pytest.raises(SystemExit):
        run(content, folder)
    commands.words, commands.stop_at = [], 1000


def test_means_and_paired_differences(content: Content, commands: Commands, tmp_path: Path):
    result = run(content, tmp_path)
    mae, simmim, scratch = result["entries"]
    assert mae["scores"]["fine-tuned"]["seeds"] == [0.6, 0.61] and list(mae["scores"]) == ["fine-tuned", "knn"]
    assert mae["scores"]["knn"]["mean"] == pytest.approx(0.3025)
    gain = simmim["differences"]["fine-tuned"]
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx((-0.1, -0.1, -0.1)), "seed by seed"
    assert list(scratch["scores"]) == list(scratch["differences"]) == ["fine-tuned", "knn"]
    assert simmim["against"] == "mae" and not mae["differences"]
    written = json.loads((tmp_path / "out/compare.json").read_text())
    assert written["images_seen"] == 64 and written["entries"] == result["entries"]
    page = (tmp_path / "out/report.html").read_text()
    assert SCRATCH in page and "simmim against mae" in page and "-20.0" in page and "Failed" not in page


def test_the_same_command_again_repeats_nothing(content: Content, commands: Commands, tmp_path: Path):
    first = run(content, tmp_path)
    assert len(commands.words) == 16 and run(content, tmp_path)["entries"] == first["entries"]
    assert len(commands.words) == 16


def test_a_failure_does_not_stop_the_others_and_is_retried(content: Content, commands: Commands, tmp_path: Path):
    commands.broken = ("pretrain mae", "finetune simmim")
    result = run(content, tmp_path)
    mae, simmim, scratch = result["entries"]
    assert result["failed"] == 4
    assert mae["scores"] == {} and mae["failures"][1] == {"seed": 1, "verb": "pretrain", "error": "the loss is nan"}
    assert list(simmim["scores"]) == ["knn"] and simmim["differences"] == {}
    assert len(scratch["scores"]["fine-tuned"]["seeds"]) == 2
    assert "the loss is nan" in (tmp_path / "out/report.html").read_text()
    commands.broken, commands.words = (), []
    mended = run(content, tmp_path)["entries"]
    assert not any(row["failures"] for row in mended) and mended[1]["differences"]["knn"]
    again = ["pretrain mae", "finetune mae", "evaluate mae", "finetune simmim"]
    assert commands.said() == [f"{step}-seed{seed}" for seed in range(2) for step in again]


def test_a_stopped_comparison_resumes_where_its_shards_are_now(
    content: Content, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content["entries"]["simmim"] |= {"overrides": {"machine.threads": 8}}
    run_until(4, content, tmp_path, commands)
    (tmp_path / "elsewhere").mkdir()
    for name, key in (("train", "data"), ("val", "val")):
        (tmp_path / f"{name}.tar").rename(tmp_path / f"elsewhere/{name}.tar")
        content[key] = f"elsewhere/{name}.tar"
    content["entries"]["simmim"] |= {"overrides": {"machine.threads": 1}}
    monkeypatch.chdir(tmp_path)
    run(content, tmp_path)
    verb, option, at, *others = commands.words[0]
    assert (verb, option, at) == ("pretrain", "--resume", str(tmp_path / "out/simmim-seed0/pretrain"))
    given = dict(zip(others[::2], others[1::2], strict=True))
    assert given["--machine.threads"] == "1" and "elsewhere/train.tar" in given.values()
    assert len(commands.words) == 16 - 3


def test_each_entry_may_be_compared_with_its_own(content: Content, commands: Commands, tmp_path: Path):
    content["entries"]["simmim"] |= {"against": "scratch"}
    mae, simmim, scratch = run(content, tmp_path)["entries"]
    gain, loss = (row["differences"]["fine-tuned"]["mean"] for row in (simmim, scratch))
    assert (gain, loss) == (pytest.approx(0.1), pytest.approx(-0.2)) and not mae["differences"]
    page = (tmp_path / "out/report.html").read_text()
    assert "simmim against scratch" in page and "scratch against mae" in page


@pytest.mark.parametrize(
    ("shared", "overrides", "key"),
    [
        ({"images_seen": 80}, {}, "compare.images_seen"),
        ({}, {"ema": 0.5}, "compare.settings"),
        ({}, {"machine.precision": "bf16"}, "compare.settings"),
    ],
)
def test_a_begun_comparison_keeps_its_settings(
    content: Content, commands: Commands, tmp_path: Path, shared: Content, overrides: Content, key: str
):
    """Refused for the last entry, too, before the first step."""
    run(content, tmp_path)
    before, done = (tmp_path / "out/compare.json").read_text(), len(commands.words)
    content["entries"] = {"new": {"config": None}} | content["entries"]
    content["entries"]["scratch"] |= {"overrides": overrides}
    with raises(key):
        run(content | shared, tmp_path)
    assert (tmp_path / "out/compare.json").read_text() == before and len(commands.words) == done


def test_other_images_are_another_comparison(content: Content, commands: Commands, tmp_path: Path):
    run(content, tmp_path)
    write_shard(tmp_path / "val.tar", range(100, 117))
    with raises("compare.prints"):
        run(content, tmp_path)


def test_the_machine_may_change(content: Content, commands: Commands, tmp_path: Path):
    run(content, tmp_path)
    done = len(commands.words)
    for name in ("mae", "scratch"):
        content["entries"][name] |= {"overrides": {"machine.threads": 2}}
    run(content, tmp_path)
    assert len(commands.words) == done


def test_a_new_entry_keeps_the_results_of_the_others(content: Content, commands: Commands, tmp_path: Path):
    run(content, tmp_path)
    content["entries"] = {"new": {"config": None}} | content["entries"]
    run_until(len(commands.words) + 3, content, tmp_path, commands)
    rows = {row["name"]: row for row in json.loads((tmp_path / "out/compare.json").read_text())["entries"]}
    assert len(rows["new"]["scores"]["fine-tuned"]["seeds"]) == 1
    assert all(len(rows[name]["scores"]["fine-tuned"]["seeds"]) == 2 for name in ("mae", "simmim", "scratch"))


def test_a_complete_entry_is_not_refused(
    content: Content, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The weights that it began with may be gone."""

    def refuse(steps: list[Step]) -> None:
        raise UserError("init", "no such file", "")

    run_until(16, content, tmp_path, commands)  # all but the scores of scratch
    del content["entries"]["scratch"]
    monkeypatch.setattr(command, "_dry_run", refuse)
    assert not run(content, tmp_path)["failed"] and not commands.words
    (tmp_path / "out/simmim-seed1/pretrain/evaluation.json").unlink()
    with raises("init") as refused:
        run(content, tmp_path)
    assert refused.value.problem.startswith("entries.simmim: ")


def test_editing_a_recipe_meanwhile_changes_nothing(content: Content, commands: Commands, tmp_path: Path):
    recipe = tmp_path / "pre.yaml"
    original = recipe.read_text()
    run_until(9, content, tmp_path, commands)  # after the first seed
    recipe.write_text(f"# A comment.\n{original}")
    run(content, tmp_path)
    asked = [Path(words[1]) for words in commands.words if words[0] != "evaluate" and "--resume" not in words]
    assert {path.parent for path in asked} == {tmp_path / "out/recipes"} and asked[0].is_file()
    recipe.write_text(original.replace("1.0e-3", "2.0e-3"))
    with raises("compare.settings"):
        run(content, tmp_path)


def test_the_folder_may_be_moved(content: Content, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(content, tmp_path)
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    done = len(commands.words)
    assert not compare(write(tmp_path, content), Path("moved"))["failed"] and len(commands.words) == done


def test_a_second_process_is_refused(content: Content, commands: Commands, tmp_path: Path):
    with alone(tmp_path / "out"), raises("run.in_use"):
        run(content, tmp_path)
    assert not commands.words


def test_a_file_is_no_folder(content: Content, commands: Commands, tmp_path: Path):
    with raises("out"):
        compare(write(tmp_path, content), tmp_path / "train.tar")


@pytest.mark.parametrize("depth", [2, 3])
def test_encoders_that_differ_are_named(content: Content, commands: Commands, tmp_path: Path, depth: int):
    content["entries"]["simmim"] |= {"overrides": {"objective.encoder.depth": depth}, "finetune": {"config": None}}
    content["entries"]["simmim"]["finetune"]["overrides"] = {"model": None}
    run(content, tmp_path)
    page = (tmp_path / "out/report.html").read_text()
    assert (UNLIKE in page) == (depth != 2)
    assert "depth 2" in page


def test_the_page_names_recipes_and_overrides(content: Content, commands: Commands, tmp_path: Path):
    content["entries"]["simmim"] |= {"overrides": {"data.flip": False}}
    content["finetune"]["overrides"] = {"data.batch_size": 8}
    run(content, tmp_path)
    page = (tmp_path / "out/report.html").read_text()
    assert "pre, data.flip false" in page and "fine, data.batch_size 8, optimization.layer_decay 1" in page


def test_scores_of_scratch_are_explained():
    pretrained = {"recipes": {"pretrain": {}}, "scores": {"knn": {}}}
    assert not describe_scratch([pretrained, {"recipes": {}, "scores": {"fine-tuned": {}}}])
    assert describe_scratch([pretrained, {"recipes": {}, "scores": {"knn": {}}}]) == SCRATCH


@pytest.mark.long
@pytest.mark.usefixtures("forked")
def test_a_real_comparison_and_again(content: Content, tmp_path: Path):
    """One entry fails, in its first step: something else is where its checkpoints go."""
    content |= {"seeds": 1}
    content["entries"]["simmim"] |= {"overrides": {"machine.threads": 1}}
    (tmp_path / "out/simmim-seed0/pretrain").mkdir(parents=True)
    (tmp_path / "out/simmim-seed0/pretrain/checkpoints").touch()
    mae, broken, scratch = run(content, tmp_path)["entries"]
    assert [failure["verb"] for failure in broken["failures"]] == ["pretrain"]
    assert {"fine-tuned", "knn", "probe", "fewshot 1"} <= set(mae["scores"]) and mae["pretraining"]["images"] == 64
    assert set(scratch["scores"]) == set(mae["scores"])
    assert mae["finetuning"]["flops"] == scratch["finetuning"]["flops"] > 0
    page = (tmp_path / "out/report.html").read_text()
    assert "Reconstructions side by side" in page and "Loss of mae" in page and "TFLOPs" in page
    del content["entries"]["simmim"]
    assert run(content, tmp_path)["entries"] == [mae, scratch], "the settings are those that the runs have saved"
    content["entries"]["mae"]["overrides"] = {"data.flip": False}
    with raises("compare.settings"):
        run(content, tmp_path)


def masked(folder: Path) -> Path:
    return write_shapes(folder / "in", train=32)


def boxed(folder: Path) -> Path:
    images = {f"{split}/{n}.png": some_boxes(n) for split, many in (("train", 32), ("val", 8)) for n in range(many)}
    return write_coco(folder / "in", images)


def numbered(folder: Path) -> Path:
    """The red pixels of shapes, as a table."""
    lines = ["file,red"]
    for file in sorted((write_shapes(folder / "shapes", train=32, val=8) / "images").glob("*/*.png")):
        lines.append(f"{file.parent.name}/{file.name},{np.asarray(Image.open(file))[..., 0].mean():.3f}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "shapes/images"


DETECTOR = {"detector": "detr", "queries": 6, "layers": [0, 1], "width": 32, "heads": 4, "proposals": True}
JUDGES = {
    "miou": (masked, "segmentation.Segmentation", {"width": 16}, ["patch_knn", "patch_probe"]),
    "map50": (boxed, "detection.Detection", DETECTOR, []),
    "r2": (numbered, "regression.Regression", {}, ["number_knn", "number_probe"]),
}


@pytest.mark.long
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("metric", JUDGES)
def test_objectives_are_judged_by_the_task_of_the_recipe(content: Content, tmp_path: Path, metric: str):
    make, name, settings, frozen = JUDGES[metric]
    table: dict[str, Any] = {"labels": str(tmp_path / "table.csv")} if metric == "r2" else {}
    mk.shard(str(make(tmp_path)), tmp_path / "shards", workers=1, **table)
    task = {"class_path": f"mae_kit.tasks.{name}", "init_args": settings}
    recipe = yaml.safe_load((tmp_path / "fine.yaml").read_text()) | {"task": task, "augmentation": {}}
    recipe |= {"data": {"batch_size": 16, "image_size": 32}}
    (tmp_path / "fine.yaml").write_text(yaml.safe_dump(recipe))
    del content["entries"]["simmim"], content["val"]
    mae, scratch = run(content | {"data": str(tmp_path / "shards"), "seeds": 1}, tmp_path)["entries"]
    assert not mae["failures"] + scratch["failures"]
    assert list(mae["scores"]) == ["fine-tuned", *frozen]
    assert list(scratch["scores"]) == ["fine-tuned"]
    result = json.loads((tmp_path / "out/mae-seed0/finetune/result.json").read_text())
    assert mae["scores"]["fine-tuned"]["mean"] == result[metric]
    assert mae["finetuning"]["flops"] == scratch["finetuning"]["flops"] > 0
    page = (tmp_path / "out/report.html").read_text()
    assert all(method_name(method) in page for method in frozen)
