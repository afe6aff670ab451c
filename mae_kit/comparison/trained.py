"""What an encoder is worth to a training: of attention that pools, of some last blocks, or of the whole."""

from pathlib import Path
from typing import Any

from mae_kit.comparison.ledger import Record, complete, recorded
from mae_kit.comparison.process import stoppable
from mae_kit.comparison.stage import Stage, digest
from mae_kit.data.remote.filesystem import Place
from mae_kit.errors import UserError
from mae_kit.evaluation.bootstrap import MAP, Score, headline, score_share
from mae_kit.recipe_file import find_recipe, read_recipe
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import is_encoder

ATTENTIVE, WHOLE = "attentive", "finetune"
_FINGERPRINTED = ("--data.path", "--data.val", "--encoder")
_PROBE = ["--blocks", "0", "--model.args", "{global_pool: map}"]

Trainings = dict[str, list[str]]
"""The words that tell one `mae-kit finetune` from the others, by method: `attentive`, `blocks 4`, `finetune`."""


def plan_trainings(attentive: str | None, finetune: str | None, blocks: list[int | None] | None) -> Trainings:
    """Which trainings are asked for, the cheapest first as a rule.

    Args:
        attentive: Recipe of the attentive probe.
        finetune: Recipe of the fine-tunings.
        blocks: A fine-tuning of so many last blocks each; None for the whole encoder.

    Raises:
        UserError: There is no such recipe, or blocks are given without one, or fewer than none.
    """
    if blocks and not finetune:
        raise UserError(
            "trained.plan_trainings",
            "blocks are given, and no recipe to train them",
            "add --finetune RECIPE, as vit_tiny_64px",
        )
    if min(filter(None, blocks or ()), default=0) < 0:
        raise UserError(
            "trained.plan_trainings",
            f"blocks are {blocks}",
            "give numbers from 0, the head alone, or null for the whole encoder",
        )
    for recipe in filter(None, (attentive, finetune)):
        find_recipe(recipe, "downstream")
    asked = {ATTENTIVE: ["--config", attentive, *_PROBE]} if attentive else {}
    for count in (blocks or [None]) if finetune else []:
        more = [] if count is None else ["--blocks", str(count)]
        asked[WHOLE if count is None else f"blocks {count}"] = ["--config", str(finetune), *more]
    return asked


def prepare(
    trainings: Trainings,
    encoder: Any,
    given: Path | None,
    train: Place,
    val: Place,
    prints: dict[str, str],
    seed: int,
    folder: Path,
) -> dict[str, Stage]:
    """What is to be done of each, under an encoder that lasts, since a training that goes on reads it again.

    Args:
        trainings: By method.
        encoder: That is evaluated, as `load_encoder` returns it.
        given: Where the user has it; None if it was made here. An encoder of ours stays where it is, any other is
            saved below `folder`.
        train: Labeled shards.
        val: Labeled shards to score on.
        prints: Fingerprints of the encoder and these two.
        seed: Of weights, order and augmentation.
        folder: For a folder each; of this process alone.

    Raises:
        UserError: A training was begun with other settings: asked before anything is replaced.
    """
    lasting = given if given and is_encoder(given) else folder / "encoder"
    words = ["--data.path", str(train), "--data.val", str(val), "--encoder", str(lasting)]
    words += ["--model.name", encoder.name, "--seed", str(seed)]
    stages = {
        method: _stage(recipe, words, prints, folder / method.replace(" ", "-")) for method, recipe in trainings.items()
    }
    for stage in stages.values():
        recorded(stage)
    if lasting != given:
        lasting.mkdir(exist_ok=True)
        save_encoder(lasting, encoder.model.state_dict(), encoder.pretrained_cfg)
    return stages


def train_all(stages: dict[str, Stage]) -> list[Record]:
    """Do what is left of each in a process of its own; one that fails does not stop the others.

    Returns:
        Of each its `method`, and its `top1` with `low` and `high` (0..1), or its `map` without these, which do not
        follow from it, and its `macro_f1`; or its `error`.

    Raises:
        SystemExit: A signal stopped it.
    """
    with stoppable():
        return [{"method": method, **_outcome(complete(stage))} for method, stage in stages.items()]


def _stage(own: list[str], common: list[str], prints: dict[str, str], folder: Path) -> Stage:
    recipe = digest(read_recipe(find_recipe(own[1], "downstream")))
    words = ["finetune", *own, *common, "--run", str(folder / "finetune")]
    return Stage(words, {"recipe": recipe, **prints}, folder, _FINGERPRINTED)


def _outcome(record: Record) -> dict[str, Any]:
    if "error" in record:
        return {"error": record["error"]}
    result = record["result"]
    metric, value = headline(result)
    found = Score(MAP, value) if metric == MAP else score_share(value, result["samples"])
    return found._replace(macro_f1=result["macro_f1"]).record()
