"""What the page of a comparison says of its scores."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mae_kit.reporting.curves import curves
from mae_kit.reporting.entries import FINETUNED, entries

SCORE = {"mean": 0.5, "low": 0.4, "high": 0.6, "seeds": [0.5]}


def compared(names: list[str]) -> dict[str, Any]:
    row = {"encoder": None, "scores": {FINETUNED: SCORE}, "differences": {}, "pretraining": {}, "finetuning": {}}
    rows = [row | {"name": name, "failures": [], "seeds": 1, "recipes": {}} for name in names]
    return {"budget": {"kind": "images_seen", "amount": 128}, "entries": rows}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([None, None], ""),
        ([50, 50], "Fine-tuned on 50 labels a class; linear probe and kNN have all labels."),
        ([50, None], "Fine-tuned on the labels that each recipe takes; linear probe and kNN have all labels."),
    ],
)
def test_scores_of_other_numbers_of_labels_are_told_apart(tmp_path: Path, labels: list[int | None], told: str):
    for name, number in zip("ab", labels, strict=True):
        run = tmp_path / f"{name}-seed0" / "finetune"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump({"data": {"labels_per_class": number}}))
    page = entries(tmp_path, compared(["a", "b"]))
    assert told in page and ("labels a class" in page or "labels that" in page) == bool(told)


@pytest.mark.parametrize("collapsed", [0, 1])
def test_a_codebook_that_has_collapsed_is_named(undrawn: None, collapsed: int):
    page = curves([{"step": 1, "perplexity": 2.0, "collapsed": 1 - collapsed}, {"step": 2, "collapsed": collapsed}])
    assert ("The codebook has collapsed" in page) == bool(collapsed)
