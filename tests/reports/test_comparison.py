"""What the page of a comparison says of its scores."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mae_kit.reports.comparison import FINETUNED, comparison
from mae_kit.reports.curves import curves

SCORE = {"mean": 0.5, "low": 0.4, "high": 0.6, "seeds": [0.5]}


def compared(names: list[str]) -> dict[str, Any]:
    row = {"encoder": None, "scores": {FINETUNED: SCORE}, "differences": {}, "pretraining": {}, "finetuning": {}}
    rows = [row | {"name": name, "failures": [], "seeds": 1, "recipes": {}} for name in names]
    return {"images_seen": 128, "entries": rows}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([{}, {"labels_per_class": None}], ""),
        ([{"labels_fraction": 0.1}] * 2, "Fine-tuned on 10% of the labels; linear probe and kNN use all labels."),
        ([{"labels_per_class": 50}] * 2, "Fine-tuned on 50 labels per class; linear probe and kNN use all labels."),
        (
            [{"labels_per_class": 50}, {}],
            "Fine-tuned on as many labels as each recipe takes; linear probe and kNN use all labels.",
        ),
    ],
)
def test_scores_of_other_numbers_of_labels_are_told_apart(tmp_path: Path, labels: list[dict], told: str):
    for name, given in zip("ab", labels, strict=True):
        run = tmp_path / f"{name}-seed0" / "finetune"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump({"data": given}))
    page = comparison(tmp_path, compared(["a", "b"]))
    assert told in page and ("Fine-tuned on" in page) == bool(told)


def test_a_seed_that_failed_leaves_the_others_picture_and_labels(tmp_path: Path):
    content = compared(["a", "b"])
    for row in content["entries"]:
        row["seeds"] = 2
    for name, seed in (("a", 1), ("b", 0)):
        run = tmp_path / f"{name}-seed{seed}"
        for folder in ("finetune", "pretrain/reconstructions"):
            (run / folder).mkdir(parents=True)
        (run / "finetune/config.yaml").write_text(yaml.safe_dump({"data": {"labels_per_class": 2}}))
        Image.new("RGB", (4, 4)).save(run / "pretrain/reconstructions/step-0000001.png")
    page = comparison(tmp_path, content)
    assert "Fine-tuned on 2 labels per class;" in page
    assert 'alt="Reconstructions of a"' in page and 'alt="Reconstructions of b"' in page


@pytest.mark.parametrize("collapsed", [0, 1])
def test_a_codebook_that_has_collapsed_is_named(undrawn: None, collapsed: int):
    page = curves([{"step": 1, "perplexity": 2.0, "collapsed": 1 - collapsed}, {"step": 2, "collapsed": collapsed}])
    assert ("The codebook has collapsed" in page) == bool(collapsed)
