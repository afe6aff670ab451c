"""The page of a run: what it shows, that it is self-contained, and that nothing of a file is markup."""
# Also tests commands/report.py, reports/cards.py, reports/classes.py, reports/folder.py, reports/page.py,
# reports/render.py.

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.errors import raises

from mae_kit.commands.report import report
from mae_kit.errors import UserError
from mae_kit.plots.reconstructions import save_png

VOID = {"meta", "br", "img", "path", "use", "rect", "line"}


class Page(HTMLParser):
    """The text, the headings and the loads of a page; fails where tags do not nest."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in VOID else [tag]
        assert tag not in {"script", "link", "iframe", "object"}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "data", "action"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


CONFIG = """
objective: {}  # <script>alert(1)</script>
data: {path: my photos/train-*.tar, flip: false}
optimization: {epochs: 8.0}
"""


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def training_line(step: int, **more: float) -> dict:
    pace = {"lr": 1e-4 * step, "images_per_second": 235.0, "data_wait": 0.031, "skipped_steps": 0, "bad_samples": 2}
    clocks = {"seconds": 60.0 * step, "core_seconds": 30.0 * step}
    return {"step": step, "epoch": step / 10, "loss": 1 / step, "gradient_norm": 0.5, **clocks, **pace, **more}


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    run = tmp_path / "digits & co"
    rows = [training_line(step) for step in range(1, 40)]
    run.mkdir()
    write_lines(run / "metrics.jsonl", [*rows, training_line(40, knn_top1=0.4321)])
    for step in (10, 20, 40):
        save_png(run / "reconstructions" / f"step-{step:08d}.png", np.full((60, 90, 3), step, np.uint8))
    write_lines(
        run / "quarantine.jsonl",
        [{"shard": "train-000.tar", "key": f"{i:04d}", "offset": 512 * i, "reason": "<b>cut</b>"} for i in range(60)],
    )
    (run / "config.yaml").write_text(CONFIG)
    encoder = {"model": "vit_tiny_patch16_224", "model_args": {"img_size": 32, "patch_size": 8, "in_chans": 1}}
    (run / "encoder.json").write_text(json.dumps(encoder))
    return run


@pytest.fixture
def finetuned(tmp_path: Path) -> Path:
    run = tmp_path / "finetuned"
    run.mkdir()
    scores = [{"step": s, "val_top1": s / 50, "val_top5": s / 40, "val_loss": 1.0} for s in range(5, 31, 5)]
    write_lines(run / "metrics.jsonl", [training_line(step) for step in range(1, 31)] + scores)
    result = {"top1": 0.7, "top5": 0.95, "samples": 30, "encoder": "runs/a", "images_per_second": 190.0}
    shares = {"cat": 0.8, "dog": 0.7, "a <i>fox</i>": 0.6}
    confusion = [[8, 1, 1], [2, 7, 1], [4, 0, 6]]
    (run / "result.json").write_text(
        json.dumps(result | {"classes": list(shares), "per_class": shares, "confusion": confusion})
    )
    return run


def read(run: Path) -> Page:
    return Page(Path(report(run)["report"]).read_text("utf-8"))


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_a_pretraining_has_its_numbers_pictures_and_commands(pretrained: Path) -> None:
    page = read(pretrained)
    assert page.headings == ["Curves", "Reconstructions at step 40", "Bad samples", "Recipe", "Next steps"]
    for number in ("43.2%", "0.0253", "epoch 4.0 of 8", "40 min 20 min of CPU time", "235/s", "3.1%", "60 listed"):
        assert number in page.words
    assert f"mae-kit reconstruct '{pretrained}' IMAGES" in page.words
    assert page.words.count("train-000.tar") == 50
    assert sum(load.startswith("data:image/png") for load in page.loads) == 1
    assert sum(load.startswith("data:image/jpeg") for load in page.loads) == 2


@pytest.mark.slow
def test_the_page_is_self_contained_and_escapes_the_contents_of_files(pretrained: Path) -> None:
    page = read(pretrained)
    html = (pretrained / "report.html").read_text("utf-8")
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r"base64,[\w+/=]+", "", html))
    assert len(set(page.ids)) == len(page.ids)
    assert "<script>alert(1)</script>" in page.words
    assert "<b>cut</b>" in page.words
    assert "Pretraining: digits & co" in page.words


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_a_finetuning_ranks_classes_and_confusions(finetuned: Path) -> None:
    page = read(finetuned)
    assert page.headings == ["Curves", "Accuracy of each class", "Confusion matrix", "Next steps"]
    assert "Top-1 70.0% 95% interval 52.1–83.3%, from a pretrained encoder" in page.words
    assert "cat 80.0% dog 70.0% a <i>fox</i> 60.0%" in page.words
    assert "Fraction a <i>fox</i> cat 4 40.0% dog cat 2 20.0%" in page.words
    assert f"mae-kit predict {finetuned} IMAGES" in page.words
    assert "--resume" not in page.words


def test_the_page_of_a_finetuning_shows_what_it_is_worth_and_its_mistakes(finetuned: Path) -> None:
    result = json.loads((finetuned / "result.json").read_text())
    ends = {"metric": "top1", "low": 0.5, "high": 0.75}
    result |= {"verdict": "Pretraining gives +9.0 <points>.", "chosen": "ridge", "labeled_images": 1200}
    result["candidates"] = [
        {"method": "ridge", "cross_validated": 0.625, "top1": 0.6, **ends},
        {"method": "finetune", "cross_validated": 0.5, "top1": 0.7, **ends},
    ]
    mistake = {"file": "cat/<1>.jpg", "label": "cat", "predicted": "dog", "probability": 0.925}
    result["mistakes"] = [mistake, mistake | {"file": "lost.jpg"}]
    (finetuned / "result.json").write_text(json.dumps(result))
    (finetuned / "mistakes").mkdir()
    (finetuned / "mistakes" / "00.jpg").write_bytes(b"jpeg")
    page = read(finetuned)
    assert page.headings[0] == "What the fine-tuning is worth" and "Most confident mistakes" in page.headings
    assert "Pretraining gives +9.0 <points>." in page.words
    assert "62.5% 60.0% (50.0 to 75.0) Fine-tuned 50.0% 70.0% (50.0 to 75.0)" in page.words
    assert "Training images 1,200 with labels; 30 to score on" in page.words
    assert "cat , predicted dog (92.5%) cat/<1>.jpg" in page.words and "lost.jpg" not in page.words


def test_the_page_of_a_multi_label_finetuning_shows_the_worst_classes_first(finetuned: Path) -> None:
    rows = [
        {"name": "sea", "images": 1200, "precision": 0.9, "recall": 0.8, "f1": 0.847, "average_precision": 0.91},
        {"name": "<b>boat</b>", "images": 7, "precision": 0.5, "recall": 0.25, "f1": 0.333, "average_precision": 0.4},
        {"name": "moon", "images": 0, "precision": None, "recall": None, "f1": None, "average_precision": None},
    ]
    write_lines(finetuned / "metrics.jsonl", [{"step": s, "val_map": s / 50, "val_macro_f1": 0.5} for s in (5, 10)])
    result = {"map": 0.655, "macro_f1": 0.59, "samples": 1300, "of_classes": rows, "encoder": "none"}
    (finetuned / "result.json").write_text(json.dumps(result))
    page = read(finetuned)
    assert page.headings == ["Curves", "Class by class", "Next steps"]
    assert "Mean average precision 65.5% from scratch Macro-F1 59.0% mean over classes" in page.words
    assert "<b>boat</b> 7 50.0% 25.0% 33.3% 40.0% sea 1,200 90.0% 80.0% 84.7% 91.0% moon 0 - - - -" in page.words


@pytest.mark.parametrize(
    ("encoder", "model", "start"),
    [
        ("runs/a", None, "from a pretrained encoder"),
        ("none", {"name": "vit_tiny_patch16_224", "weights": None}, "from scratch"),
        ("none", {"name": "resnet50", "weights": "timm"}, "from the weights timm"),
    ],
)
def test_the_page_of_a_finetuning_names_its_initial_weights(
    tmp_path: Path, encoder: str, model: dict | None, start: str
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"encoder": encoder, "model": model}))
    (tmp_path / "result.json").write_text(json.dumps({"encoder": encoder, "top1": 0.5, "samples": 4}))
    assert f"95% interval 15.0–85.0%, {start}" in read(tmp_path).words


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_an_unfinished_finetuning_has_its_latest_score_and_how_to_resume(finetuned: Path) -> None:
    (finetuned / "result.json").unlink()
    (finetuned / "config.yaml").write_text("encoder: none\n")
    page = read(finetuned)
    assert "Fine-tuning: finetuned" in page.words
    assert "Validation top-1 60.0% best 60.0%, step 30" in page.words
    assert f"mae-kit finetune --resume {finetuned}" in page.words
    assert "mae-kit predict" not in page.words


@pytest.mark.usefixtures("undrawn")
def test_the_page_names_the_best_weights(finetuned: Path) -> None:
    (finetuned / "best").mkdir()
    (finetuned / "best/score.json").write_text(json.dumps({"step": 1020, "metric": "val_top1", "value": 0.713}))
    assert f"Best weights 71.3% Validation top-1, step 1,020, in {finetuned}/best" in read(finetuned).words


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("count", [13, 51])
def test_many_classes_show_colors_without_counts(finetuned: Path, count: int) -> None:
    classes = [f"class {i}" for i in range(count)]
    confusion = (977 * np.eye(count, dtype=int)).tolist()
    shares = dict.fromkeys(classes, 1.0)
    (finetuned / "result.json").write_text(
        json.dumps(
            {"top1": 1.0, "samples": 977 * count, "classes": classes, "per_class": shares, "confusion": confusion}
        )
    )
    page = read(finetuned)
    assert "977" not in page.words
    assert "Most confused" not in page.words
    assert any(load.startswith("data:image/png") for load in page.loads) == (count == 51)
    assert ("The 20 best and the 20 worst of 51 classes" in page.words) == (count == 51)


def score(mean: float, low: float | None, high: float | None, *seeds: float) -> dict:
    return {"mean": mean, "low": low, "high": high, "seeds": seeds}


@pytest.mark.usefixtures("undrawn")
def test_the_demo_table_and_the_pretraining_it_names(tmp_path: Path) -> None:
    scratch, pretrained = score(0.7, 0.68, 0.72, 0.69, 0.71), score(0.842, 0.82, 0.86, 0.83, 0.85)
    few = {"labels": 10, "scratch": scratch, "pretrained": pretrained, "gain": score(0.142, 0.1, 0.18, 0.14, 0.144)}
    once = {"labels": "all", **dict.fromkeys(("scratch", "pretrained", "gain"), score(0.5, None, None, 0.5))}
    about = {"pretraining": "pretrain", "rows": [few, once], "conclusion": "Pretraining gives <much>."}
    (tmp_path / "demo.json").write_text(json.dumps(about))
    (tmp_path / "pretrain").mkdir()
    write_lines(tmp_path / "pretrain" / "metrics.jsonl", [training_line(step) for step in range(1, 40)])
    page = read(tmp_path)
    assert (
        "10 70.0% (68.0 to 72.0%) 69.0%, 71.0% 84.2% (82.0 to 86.0%) 83.0%, 85.0% +14.2 (+10.0 to +18.0)" in page.words
    )
    assert "all 50.0% 50.0% 50.0% 50.0% +50.0 +50.0" in page.words and "Pretraining gives <much>." in page.words
    assert page.headings[:3] == ["Pretrained against scratch", "Pretraining in numbers", "Curves"]


def test_values_that_are_not_finite_are_skipped(tmp_path: Path) -> None:
    losses = (0.75, float("nan"), float("inf"), None)
    write_lines(tmp_path / "metrics.jsonl", [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)])
    words = read(tmp_path).words
    assert "Loss 0.7500" in words
    assert "nan" not in words


@pytest.mark.parametrize(("least", "epochs"), [(0, 8), (60, 8), (200, 20)])
def test_a_run_that_min_steps_stretches_has_its_own_length(tmp_path: Path, least: int, epochs: int) -> None:
    write_lines(tmp_path / "metrics.jsonl", [training_line(40)])
    (tmp_path / "config.yaml").write_text(f"optimization: {{epochs: 8.0, min_steps: {least}}}\n")
    assert f"epoch 4.0 of {epochs}" in read(tmp_path).words


@pytest.mark.parametrize(("epochs", "told"), [(4.412, "4.3"), (0.2, "0.333")])
def test_a_run_is_as_long_as_its_whole_steps(tmp_path: Path, epochs: float, told: str) -> None:
    """16 of 48 images a step."""
    write_lines(tmp_path / "metrics.jsonl", [{"step": 3, "epoch": 1.0, "loss": 1.0}])
    (tmp_path / "config.yaml").write_text(f"optimization: {{epochs: {epochs}}}\n")
    assert f"epoch 1.0 of {told}" in read(tmp_path).words


@pytest.mark.parametrize(
    ("images", "after", "told"),
    [(40, 0.55, ", which may be chance"), (4000, 0.55, ""), (4000, 0.45, ", which may be chance")],
)
def test_a_knn_score_stands_beside_that_of_untrained_weights(
    tmp_path: Path, images: int, after: float, told: str
) -> None:
    scores = [(0, 0.5), (8, after)]
    rows = [{"step": step, "knn_top1": score, "knn_images": images} for step, score in scores]
    write_lines(tmp_path / "metrics.jsonl", rows)
    words = read(tmp_path).words
    assert f"50.0% before training{told}" in words and ("chance" in words) == bool(told)


def test_cpu_time_may_decrease_when_workers_end(tmp_path: Path) -> None:
    clocks = [(1800, 900), (7200, 7500), (8400, 7200)]
    rows = [{"step": i, "seconds": wall, "core_seconds": cores} for i, (wall, cores) in enumerate(clocks)]
    write_lines(tmp_path / "metrics.jsonl", rows)
    assert "Time 2 h 20 min 2 h 5 min of CPU time" in read(tmp_path).words


@pytest.mark.parametrize("name", ["nowhere", "empty", "file.txt"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no run")
    with raises("report.folder", "report.empty"):
        report(tmp_path / name)
    assert not (tmp_path / "empty" / "report.html").exists()


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\xff"])
def test_a_damaged_recipe_is_the_users_error(pretrained: Path, content: bytes) -> None:
    (pretrained / "config.yaml").write_bytes(content)
    with pytest.raises(UserError):
        report(pretrained)


@pytest.mark.usefixtures("undrawn")
def test_a_page_that_cannot_be_written_is_the_users_error(pretrained: Path) -> None:
    (pretrained / "report.html").mkdir()
    with raises("report.write"):
        report(pretrained)
    assert not list(pretrained.glob(".report*"))


@pytest.mark.slow
def test_a_pretraining_ends_with_its_page(trained: Path) -> None:
    assert "mae-kit finetune" in Page((trained / "report.html").read_text("utf-8")).words
