"""The section on what an encoder is worth, from made-up evaluations."""
# Also tests reports/tables.py.

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from mae_kit.commands.report import report
from mae_kit.reports.evaluation import evaluation


def scores(layers: tuple[int, ...], shift: float = 0.0) -> list[dict[str, Any]]:
    """Of two methods and two numbers of labels, one of which is too large."""
    tops = {"knn": 0.3, "fewshot 1": 0.1, "fewshot 5": 0.2, "fewshot 25": None, "probe": 0.4}
    return [
        {"method": method, "layer": layer, "token": token, **score(top1, shift)}
        for method, top1 in tops.items()
        for layer in layers
        for token in ("mean", "class")
    ]


def score(top1: float | None, shift: float = 0.0) -> dict[str, float | None]:
    ends = {"top1": 0.0, "low": -0.02, "high": 0.02}
    return {name: None if top1 is None else top1 + shift + end for name, end in ends.items()}


def found(*layers: int, shift: float = 0.0, **more: Any) -> dict[str, Any]:
    extent = {"layer": layers[-1], "dim": 48, "rank": 31.25, "spread": 0.5, "collapsed": False}
    return {"scores": scores(layers, shift), "extents": [extent | {"token": "mean"}], "trained": [], **more}


def words(html: str) -> str:
    """Without the drawings."""
    return " ".join(unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", html, flags=re.DOTALL)).split())


@pytest.mark.usefixtures("undrawn")
def test_scores_with_intervals_and_the_extent():
    shown = words(evaluation(found(12), {}))
    assert "Frozen Mean of patches Class token kNN 30.0% (28.0 to 32.0) 30.0%" in shown
    assert "Ridge, 1 label per class 10.0% (8.0 to 12.0)" in shown
    assert "Ridge, 25 labels per class too few labels too few labels" in shown
    assert "layer 12, mean of patches 31.2 of 48 0.5" in shown and "collapsed" not in shown


@pytest.mark.slow
def test_one_layer_is_drawn_over_labels_several_also_over_layers():
    assert re.findall("<figcaption>(.*?)</figcaption>", evaluation(found(12), {})) == ["Few labels, %"]
    several = evaluation(found(6, 12), {})
    titles = ["kNN by layer, %", "Linear probe by layer, %", "Few labels, %"]
    assert re.findall("<figcaption>(.*?)</figcaption>", several) == titles
    assert "kNN 6 30.0%" in words(several) and len(set(re.findall(r'\bid="(.+?)"', several))) == several.count(' id="')


def test_the_untrained_stand_beside():
    both = evaluation(found(12), found(12, shift=-0.05))
    assert "Untrained, mean of patches" in words(both) and "25.0% (23.0 to 27.0)" in words(both)
    assert "stroke-dasharray" in both and "stroke-dasharray" not in evaluation(found(12), {})


@pytest.mark.usefixtures("undrawn")
def test_the_untrained_of_another_encoder_or_other_images_do_not():
    def of(encoder: str, weights: str, val: str = "v") -> dict[str, Any]:
        prints = {"weights": weights, "architecture": "x", "val": val}
        return found(12, encoder=encoder, fingerprints=prints) | {"scores": scores((12,))[:2]}

    trained, fresh = of("runs/a", "1"), of("./runs/a/model.safetensors", "2")
    assert "Untrained" in evaluation(trained, fresh) and "not shown" not in evaluation(trained, fresh)
    for stranger in (of("runs/b", "2"), of("runs/a", "2", "w"), fresh | {"fingerprints": {}}):
        shown = words(evaluation(trained, stranger))
        assert "Untrained" not in shown and "is of another encoder or of other images" in shown
    assert "Frozen Untrained" in words(evaluation({}, fresh))


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_has_gone_on_says_so(tmp_path: Path):
    (tmp_path / "evaluation.json").write_text(json.dumps(found(12, step=7)))
    (tmp_path / "encoder.json").write_text(json.dumps({"model": "vit_tiny_patch16_224", "model_args": {}, "step": 7}))
    for step, outrun in ((7, False), (1400, True)):
        (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")
        page = words(Path(report(tmp_path)["report"]).read_text("utf-8"))
        assert ("Of the encoder at step 7; the run has since come to step 1,400." in page) == outrun


@pytest.mark.usefixtures("undrawn")
def test_trainings_and_those_that_failed():
    trained = [{"method": "attentive", **score(0.5)}, {"method": "finetune", "error": "blocks is 9 <b>"}]
    shown = evaluation(found(12, trained=trained), found(12, trained=trained[:1]))
    assert "Attentive probe 50.0% (48.0 to 52.0) 50.0%" in words(shown) and "<b>:" not in shown
    assert "Fine-tuned failed" in words(shown) and "Fine-tuned: blocks is 9 <b>" in words(shown)


@pytest.mark.usefixtures("undrawn")
def test_a_collapse_is_said_aloud():
    fallen = found(12)
    fallen["extents"][0]["collapsed"] = True
    assert "The features of layer 12, mean of patches have collapsed" in words(evaluation(fallen, {}))


@pytest.mark.usefixtures("undrawn")
def test_a_page_of_an_evaluation_alone(tmp_path: Path):
    (tmp_path / "evaluation.json").write_text(json.dumps(found(12)))
    page = Path(report(tmp_path)["report"]).read_text("utf-8")
    assert f"Evaluation: {tmp_path.name}" in page and "Next steps" not in page
