"""Comparisons with trainings that are made up, but for one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import FINETUNE, PRETRAIN
from support.photo_shards import write_shard
from support.processes import Programs
from support.tiny_models import save_run

from mae_kit.commands.compare import compare
from mae_kit.comparison import ledger
from mae_kit.comparison.process import Failed
from mae_kit.encoders import ViT
from mae_kit.errors import UserError
from mae_kit.objectives import MAE
from mae_kit.reports.comparison import SCRATCH, said_alike, said_of_scratch
from mae_kit.training.lock import alone

TOP1 = {"mae": 0.6, "simmim": 0.5, "scratch": 0.4, "new": 0.3}


class Trainings:
    """Stand for the processes: made-up results, a broken entry, and a signal after so many."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.broken: tuple[str, ...] = ()
        self.stop_at = 1000

    def __call__(self, words: list[str], log: Path) -> dict[str, Any]:
        self.words.append(words)
        if len(self.words) == self.stop_at:
            raise SystemExit(143)
        name, _, seed = log.parent.name.partition("-seed")
        if f"{words[0]} {name}" in self.broken:
            raise Failed("the loss is nan")
        top1 = TOP1[name] + 0.01 * int(seed)
        shots = {"method": "fewshot 1", "token": "mean", "top1": None}
        scores = [{"method": "knn", "token": token, "top1": top1 / 2} for token in ("class", "mean")]
        return {"top1": top1, "scores": [*scores, shots]}

    def said(self) -> list[str]:
        """Verb and entry of each, in the order of their coming."""
        trained = [words for words in self.words if "--run" in words]
        return [f"{words[0]} {Path(words[-1]).parent.name}" for words in trained]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    trainings = Trainings()
    monkeypatch.setattr(ledger, "run_command", trainings)
    return trainings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of two objectives and none, two seeds."""
    write_shard(tmp_path / "train.tar", range(40))
    write_shard(tmp_path / "val.tar", range(100, 116))
    (tmp_path / "pre.yaml").write_text(PRETRAIN)
    (tmp_path / "fine.yaml").write_text(FINETUNE)
    recipe = {"config": str(tmp_path / "pre.yaml")}
    content = {
        "shards": str(tmp_path / "train.tar"),
        "val": str(tmp_path / "val.tar"),
        "images_seen": 64,
        "seeds": 2,
        "entries": {"mae": recipe, "simmim": recipe, "scratch": {"config": None}},
        "finetune": {"config": str(tmp_path / "fine.yaml")},
    }
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "compare.yaml"


def begin(run: Path, depth: int = 2) -> Path:
    """As a training leaves its folder that was stopped before its first line."""
    run.mkdir(parents=True)
    encoder = {"init_args": {"name": "vit", "depth": depth}}
    (run / "config.yaml").write_text(yaml.safe_dump({"objective": {"init_args": {"encoder": encoder}}}))
    return run


def change(config: Path, **entries: dict[str, Any]) -> None:
    """Of a comparison's file: keys of its entries, those that are new in front."""
    content = yaml.safe_load(config.read_text())
    old = content["entries"]
    new = {name: keys for name, keys in entries.items() if name not in old}
    content["entries"] = new | {name: keys | entries.get(name, {}) for name, keys in old.items()}
    config.write_text(yaml.safe_dump(content, sort_keys=False))


def test_means_and_differences(
    config: Path,
    trainings: Trainings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    result = compare(config, tmp_path / "out")
    mae, simmim, scratch = result["entries"]
    assert mae["scores"]["fine-tuned"]["seeds"] == [0.6, 0.61] and list(mae["scores"]) == ["fine-tuned", "knn"]
    assert mae["scores"]["knn"]["mean"] == pytest.approx(0.3025)
    gain = simmim["differences"]["fine-tuned"]
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx((-0.1, -0.1, -0.1))  # seed by seed
    assert list(scratch["scores"]) == list(scratch["differences"]) == ["fine-tuned", "knn"] and not scratch["failures"]
    assert mae["encoder"] is None  # nothing was trained
    written = json.loads((tmp_path / "out/compare.json").read_text())
    assert written["budget"] == {"kind": "images_seen", "amount": 64} and written["entries"] == result["entries"]
    assert simmim["against"] == "mae" and not mae["differences"]
    printed = capsys.readouterr().out + caplog.text
    assert "$ mae-kit pretrain --config" in printed and "-10.0 [-10.0, -10.0]" in printed
    page = (tmp_path / "out/report.html").read_text()
    assert SCRATCH in page and SCRATCH in printed
    assert "Every pretraining sees 64 images." in page and "Every pretraining sees 64 images" in printed
    assert "Comparison: out" in page and "simmim against mae" in page and "-20.0" in page and "Failed" not in page
    assert compare(config, tmp_path / "out")["entries"] == result["entries"] and len(trainings.words) == 16


def test_a_failure_does_not_stop_the_others_and_is_tried_again(
    config: Path, trainings: Trainings, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    trainings.broken = ("pretrain mae", "finetune simmim")
    result = compare(config, tmp_path / "out")
    mae, simmim, scratch = result["entries"]
    assert result["failed"] == 4
    broken = {"seed": 1, "verb": "pretrain", "error": "the loss is nan"}
    assert mae["scores"] == {} and mae["failures"][1] == broken
    assert list(simmim["scores"]) == ["knn"] and simmim["differences"] == {}
    assert len(scratch["scores"]["fine-tuned"]["seeds"]) == 2
    assert "mae, seed 1: pretrain FAILED: the loss is nan" in caplog.text
    assert "the loss is nan" in (tmp_path / "out/report.html").read_text()
    trainings.broken, trainings.words = (), []
    mended = compare(config, tmp_path / "out")["entries"]
    assert not any(row["failures"] for row in mended) and mended[1]["differences"]["knn"]
    tried = ["pretrain mae", "finetune mae", "finetune simmim"]
    assert trainings.said() == [f"{stage}-seed{seed}" for seed in range(2) for stage in tried]


def test_a_comparison_that_is_stopped_goes_on(config: Path, trainings: Trainings, tmp_path: Path):
    trainings.stop_at = 4
    with pytest.raises(SystemExit):
        compare(config, tmp_path / "out")
    assert trainings.said()[-1] == "pretrain simmim-seed0"
    run = begin(tmp_path / "out/simmim-seed0/pretrain")
    trainings.words, trainings.stop_at = [], 1000
    assert len(compare(config, tmp_path / "out")["entries"][1]["scores"]["knn"]["seeds"]) == 2
    shards = [f"--data.path {tmp_path}/train.tar", f"--data.knn_shards {tmp_path}/val.tar"]
    assert trainings.words[0] == ["pretrain", "--resume", str(run), *" ".join(shards).split()]
    assert len(trainings.words) == 16 - 3


def test_each_entry_may_be_compared_with_its_own(config: Path, trainings: Trainings, tmp_path: Path):
    change(config, simmim={"against": "scratch"})
    mae, simmim, scratch = compare(config, tmp_path / "out")["entries"]
    gain, loss = (row["differences"]["fine-tuned"]["mean"] for row in (simmim, scratch))
    assert (gain, loss) == (pytest.approx(0.1), pytest.approx(-0.2)) and not mae["differences"]
    assert list(simmim["differences"]) == ["fine-tuned", "knn"], "scratch is judged frozen as it began"
    page = (tmp_path / "out/report.html").read_text()
    assert "simmim against scratch" in page and "scratch against mae" in page


@pytest.mark.parametrize(
    ("images", "overrides", "message"),
    [
        (80, {}, "out holds a comparison of another length: choose another --out"),
        (64, {"ema": 0.5}, r"\(--ema nothing then, 0.5 now\): put them back, or remove .*scratch-seed0 to"),
    ],
)
def test_what_has_begun_keeps_its_settings(
    config: Path, trainings: Trainings, tmp_path: Path, images: int, overrides: dict[str, float], message: str
):
    """Asked of the last entry, too, before the first one is touched."""
    compare(config, tmp_path / "out")
    before, done = (tmp_path / "out/compare.json").read_text(), len(trainings.words)
    change(config, new={"config": None}, scratch={"overrides": overrides})
    config.write_text(config.read_text().replace("images_seen: 64", f"images_seen: {images}"))
    with pytest.raises(UserError, match=message):
        compare(config, tmp_path / "out")
    assert (tmp_path / "out/compare.json").read_text() == before and len(trainings.words) == done


def test_on_another_machine_it_goes_on(config: Path, trainings: Trainings, tmp_path: Path):
    change(config, mae={"overrides": {"machine.threads": 1, "machine.num_workers": 0}})
    compare(config, tmp_path / "out")
    done = len(trainings.words)
    change(config, mae={"overrides": {"machine.threads": 2}}, scratch={"overrides": {"machine.num_workers": 1}})
    compare(config, tmp_path / "out")
    assert len(trainings.words) == done
    change(config, mae={"overrides": {"machine.precision": "bf16"}})
    with pytest.raises(UserError, match=r"\(--machine.precision nothing then, bf16 now\)"):
        compare(config, tmp_path / "out")


def test_shards_and_machine_may_be_others_where_it_goes_on(
    config: Path, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    change(config, simmim={"overrides": {"machine.threads": 8}})
    trainings.stop_at = 4
    with pytest.raises(SystemExit):
        compare(config, tmp_path / "out")
    run = begin(tmp_path / "out/simmim-seed0/pretrain")
    (tmp_path / "elsewhere").mkdir()
    for name in ("train", "val"):
        (tmp_path / f"{name}.tar").rename(tmp_path / f"elsewhere/{name}.tar")
    config.write_text(config.read_text().replace(f"{tmp_path}/train", "elsewhere/train"))
    config.write_text(config.read_text().replace(f"{tmp_path}/val", "elsewhere/val"))
    change(config, simmim={"overrides": {"machine.threads": 1}})
    trainings.words, trainings.stop_at = [], 1000
    monkeypatch.chdir(tmp_path)
    compare(config, tmp_path / "out")
    assert len(trainings.words) == 16 - 3
    verb, _, at, *others = trainings.words[0]
    assert (verb, at) == ("pretrain", str(run))
    assert dict(zip(others[::2], others[1::2], strict=True)) == {
        "--data.path": "elsewhere/train.tar",
        "--data.knn_shards": "elsewhere/val.tar",
        "--machine.threads": "1",
    }


def test_a_new_entry_takes_nothing_away(config: Path, trainings: Trainings, tmp_path: Path):
    compare(config, tmp_path / "out")
    change(config, new={"config": None})
    trainings.stop_at = len(trainings.words) + 3
    with pytest.raises(SystemExit):
        compare(config, tmp_path / "out")
    rows = {row["name"]: row for row in json.loads((tmp_path / "out/compare.json").read_text())["entries"]}
    assert len(rows["new"]["scores"]["fine-tuned"]["seeds"]) == 1
    assert all(len(rows[name]["scores"]["fine-tuned"]["seeds"]) == 2 for name in ("mae", "simmim", "scratch"))


def test_weights_that_are_replaced_meanwhile_are_not_mixed_with_the_old_ones(
    config: Path, trainings: Trainings, tmp_path: Path
):
    def write(seed: int) -> Path:
        torch.manual_seed(seed)
        encoder = ViT("vit_tiny_patch16_224", 32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
        return save_run(tmp_path / "run", MAE(encoder, decoder_dim=32, decoder_depth=1, decoder_heads=2))

    change(config, mae={"overrides": {"init": str(write(0))}})
    compare(config, tmp_path / "out")
    done = len(trainings.words)
    write(1)
    config.write_text(config.read_text().replace("seeds: 2", "seeds: 3"))
    with pytest.raises(
        UserError, match=r"mae-seed0/pretrain was begun with other settings \(init\): .* remove .*mae-seed0 to"
    ):
        compare(config, tmp_path / "out")
    assert len(trainings.words) == done


def test_what_an_entry_that_is_done_began_with_may_be_gone(config: Path, trainings: Trainings, tmp_path: Path):
    encoder = ViT("vit_tiny_patch16_224", 32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    weights = save_run(tmp_path / "run", MAE(encoder, decoder_dim=32, decoder_depth=1, decoder_heads=2))
    change(config, simmim={"overrides": {"init": str(weights)}})
    trainings.stop_at = 16  # its scores of the second seed are there, those of scratch are not
    with pytest.raises(SystemExit):
        compare(config, tmp_path / "out")
    shutil.rmtree(weights)
    trainings.words, trainings.stop_at = [], 1000
    assert not compare(config, tmp_path / "out")["failed"] and len(trainings.words) == 1
    (tmp_path / "out/simmim-seed1/evaluate.json").unlink()
    with pytest.raises(UserError, match=r"^entries.simmim: no file .*run"):
        compare(config, tmp_path / "out")


def test_a_recipe_that_is_edited_meanwhile_changes_nothing(config: Path, trainings: Trainings, tmp_path: Path):
    recipe = config.with_name("pre.yaml")
    trainings.stop_at = 9  # after the first seed
    with pytest.raises(SystemExit):
        compare(config, tmp_path / "out")
    asked = trainings.words[0][2]
    recipe.write_text(f"# Better.\n{PRETRAIN}")
    trainings.words, trainings.stop_at = [], 1000
    compare(config, tmp_path / "out")
    assert [words[2] for words in trainings.words if words[0] == "pretrain"] == [asked] * 2
    assert Path(asked).is_file() and Path(asked).parent == tmp_path / "out/recipes"
    recipe.write_text(PRETRAIN.replace("1.0e-3", "2.0e-3"))
    with pytest.raises(
        UserError, match=r"out/mae-seed0/pretrain was begun with .* \(--config .*pre-.*yaml then, .*now"
    ):
        compare(config, tmp_path / "out")


def test_the_folder_may_be_moved(config: Path, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compare(config, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    done = len(trainings.words)
    assert not compare(config, Path("moved"))["failed"] and len(trainings.words) == done


def test_two_at_once_are_one_too_many(config: Path, trainings: Trainings, tmp_path: Path):
    with alone(tmp_path / "out"), pytest.raises(UserError, match="another process is at work in"):
        compare(config, tmp_path / "out")
    assert not trainings.words


def test_what_has_begun_keeps_its_images(config: Path, trainings: Trainings, tmp_path: Path):
    compare(config, tmp_path / "out")
    write_shard(tmp_path / "val.tar", range(100, 117))
    with pytest.raises(UserError, match=r"out holds a comparison of other images: choose another"):
        compare(config, tmp_path / "out")


def test_a_file_is_no_folder(config: Path, trainings: Trainings):
    with pytest.raises(UserError, match=r"train.tar is a file, where --out needs a folder"):
        compare(config, config.parent / "train.tar")
    assert not trainings.words


@pytest.mark.parametrize("depth", [2, 3])
def test_encoders_that_differ_are_named(config: Path, trainings: Trainings, tmp_path: Path, depth: int):
    for name, own in (("mae", 2), ("simmim", depth)):
        begin(tmp_path / f"out/{name}-seed0/pretrain", own)
    compare(config, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert ("The encoders differ" in page) == (depth != 2) and "depth 2" in page


def test_the_page_says_what_was_compared(config: Path, trainings: Trainings, tmp_path: Path):
    content = yaml.safe_load(config.read_text())
    content["entries"]["simmim"] = content["entries"]["mae"] | {"overrides": {"data.flip": False}}
    content["finetune"]["overrides"] = {"data.batch_size": 8}
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    compare(config, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert "pre, data.flip false" in page and "fine, data.batch_size 8, optimization.layer_decay 1" in page


@pytest.mark.slow
def test_equal_operations_are_other_numbers_of_images(config: Path, trainings: Trainings, tmp_path: Path):
    content = yaml.safe_load(config.read_text().replace("images_seen: 64", "flops: 2.0e+9")) | {"seeds": 1}
    sizes = {"patch_size": 8, "embed_dim": 48, "depth": 8, "num_heads": 3}
    tuned = {"config": None, "overrides": {"model.args": sizes}}
    deeper = {"overrides": {"objective.encoder.depth": 8}, "finetune": tuned}
    content["entries"]["simmim"] = content["entries"]["mae"] | deeper
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    compare(config, tmp_path / "out")
    asked = [words for words in trainings.words if words[0] == "pretrain"]
    mae, simmim = (float(words[words.index("--optimization.epochs") + 1]) for words in asked)
    assert mae > 1.5 * simmim > 0
    assert "Every pretraining has 0.002 TFLOPs." in (tmp_path / "out/report.html").read_text()


def test_what_scratch_is_is_said_where_it_was_judged():
    pretrained = {"recipes": {"pretrain": {}}, "scores": {"knn": {}}}
    assert not said_of_scratch([pretrained, {"recipes": {}, "scores": {"fine-tuned": {}}}])
    assert said_of_scratch([pretrained, {"recipes": {}, "scores": {"knn": {}}}]) == SCRATCH


def test_what_is_alike_is_said():
    minutes = said_alike({"kind": "minutes", "amount": 90.0})
    assert minutes == "Every pretraining has 90 minutes of this machine, at the speed of a short trial"


@pytest.mark.slow
def test_trainings_that_are_real(
    config: Path, trained: Path, tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
):
    """One fails, since the weights that it is to start from are removed before its turn has come."""
    init = shutil.copytree(trained, tmp_path / "init")

    def run(words: list[str], log: Path) -> dict[str, Any]:
        shutil.rmtree(init, ignore_errors=True)
        ended = programs.run(*words, "--json")
        if ended.code:
            raise Failed(ended.err.splitlines()[-1])
        return json.loads(ended.out)

    monkeypatch.setattr(ledger, "run_command", run)
    content = yaml.safe_load(config.read_text()) | {"seeds": 1}
    content["entries"]["simmim"] = content["entries"]["mae"] | {"overrides": {"init": str(init)}}
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    mae, broken, scratch = compare(config, tmp_path / "out")["entries"]
    assert {"fine-tuned", "knn", "probe", "fewshot 1"} <= set(mae["scores"]) and mae["pretraining"]["images"] == 64
    assert str(init) in broken["failures"][0]["error"] and set(scratch["scores"]) == set(mae["scores"])
    assert mae["finetuning"]["flops"] == scratch["finetuning"]["flops"] > 0
    page = (tmp_path / "out/report.html").read_text()
    assert "Reconstructions side by side" in page and "Loss of mae" in page and "TFLOPs" in page
