"""The best weights by a score, kept in a folder of their own, and the end of a training that gets no better."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.run_records import read_record
from mae_kit.training.config import Intervals
from mae_kit.training.ranges import POSITIVE, check_ranges

log = logging.getLogger(__name__)

Keep = Literal["last", "best"]


class Best:
    """Keeps the weights with the best score in `RUN/best`, a folder that commands take as they take a run.

    What it knows is in that folder, so that a resumed run keeps what an uninterrupted one would.

    Args:
        run: Of the training.
        every: Steps between two scores.
        patience: Scores without a better one after which the training ends; None = never.
        write: Writes the weights of a step to a folder.
    """

    def __init__(
        self, run: RunFolder, every: int, patience: int | None = None, write: Callable[[Path, int], Any] | None = None
    ):
        self.run, self.every, self.patience, self.write = run, every, patience, write

    def found(self) -> dict[str, Any]:
        """`step`, `metric` and `value` of the weights that are kept; empty where there are none."""
        return read_record(self.run.best.score)

    def offer(self, step: int, metric: str, value: float) -> None:
        """Keep the present weights if none had a better score."""
        known = self.found().get("value")
        if self.write is None or not value > (float("-inf") if known is None else known):
            return
        folder = self.run.best
        try:
            folder.path.mkdir(exist_ok=True)
            self.write(folder.path, step)
            replace_text(folder.score, json.dumps({"step": step, "metric": metric, "value": value}))
        except OSError as error:
            log.warning(f"the best weights, of step {step}, were not kept ({error.strerror}): free some space")

    def is_over(self, step: int) -> bool:
        """Whether the scores up to this step have exhausted the patience."""
        best = self.found().get("step")
        return self.patience is not None and best is not None and step - best >= self.patience * self.every


def is_over(step: int, steps: int, best: Best | None) -> bool:
    """Whether a training of so many steps ends at this one."""
    return step >= steps or (best is not None and best.is_over(step))


def best_of(
    run: RunFolder,
    keep: Keep,
    patience: int | None,
    intervals: Intervals,
    write: Callable[[Path, int], Any] | None = None,
) -> Best | None:
    """What keeps the best weights, where a command is asked to."""
    check_ranges({"patience": patience}, patience=POSITIVE)
    if keep == "last" and patience is None:
        return None
    return Best(run, intervals.eval_every_n_steps, patience, write)


def told_best(best: Best | None) -> dict[str, Any]:
    """Log where the best weights are; `best`, their step, metric and value, for the result of a command."""
    if best is None or not (found := best.found()):
        return {}
    log.info(f"best {found['metric']} {found['value']:.1%}, after step {found['step']}: {best.run.best.path}")
    return {"best": found}
