"""One step, the same for pretraining and fine-tuning: learning rate, keyed seeds, a guard on the gradient."""

import logging
from abc import abstractmethod
from dataclasses import asdict

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.randomness import combine
from mae_kit.tensors import Batch
from mae_kit.training.audit import Audit, Epoch
from mae_kit.training.checkpoint import KEPT, State, load_latest
from mae_kit.training.config import Optimization, Plan
from mae_kit.training.optimizer import Group, build_optimizer
from mae_kit.training.run import Run
from mae_kit.training.schedule import learning_rate

log = logging.getLogger(__name__)

ROLLBACK_AFTER = 3  # steps in a row without a finite gradient
ROLLBACKS = 3
COUNTS = ("skipped_steps", "skipped_in_a_row", "rollbacks", "bad_samples")
_SAME = "continue it with the recipe it was started with"
MOST_BAD = 0.2  # share of bad samples among those shown that ends a run, once it could not be bad luck


class Training(LightningModule):
    """What every training has in common. Subclasses say what the loss is and which parameters learn how fast.

    All randomness of a step (drop path, mixup, color) comes from torch's generator, which is seeded anew at each
    step from (seed, step, rank): a resumed run needs no generator state and draws the same.

    Args:
        optimization: The recipe's part.
        plan: The length of the run.
        run: Its folder, where checkpoints are.
    """

    def __init__(self, optimization: Optimization, plan: Plan, run: Run):
        super().__init__()
        self.optimization, self.plan, self.run = optimization, plan, run
        self.peak = optimization.peak(plan.batch_size)
        self.start = 0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.gradient_norm = torch.zeros(())
        self._sums: dict[str, Tensor] = {}  # of what is logged, over the steps since `_sums_since`
        self._sums_since = 0
        self._optimizer_state: State | None = None
        self._audit = Audit(plan)

    @abstractmethod
    def groups(self) -> list[Group]:
        """Parameter groups, each with its `lr_scale`."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`loss` and what else is to be logged, all scalars."""

    def resume(self, state: State, allow_data_change: bool = False) -> None:
        """Continue from a checkpoint.

        Args:
            state: What it holds.
            allow_data_change: Go on with other samples than it was made with.

        Raises:
            UserError: It is of other data, another batch size or another model; names what differs.
        """
        self.plan.must_continue(state["plan"], self.run.path, allow_data_change)
        self.start, self.counts = state["step"], dict(state["counts"])
        self._sums, self._sums_since = dict(state["sums"]), state["sums_since"]
        try:
            self.load_state_dict(state["model"], strict=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(
                "module.resume", f"the checkpoint in {self.run.path} is of another model ({reason})", _SAME
            ) from None
        self._optimizer_state = state["optimizer"]
        if not self.plan.has_data_of(state["plan"]):
            self._audit = Audit.begun_at(self.plan, self.start)
            return
        self._audit = Audit(self.plan, state["audit_first"])
        if self.run.rank == 0:
            self._audit.resume(self.start, state["audit"])

    def bytes_to_write(self) -> int:
        """Of the results, and of the checkpoints that are kept while the next one is written."""
        sizes = {name: t.numel() * t.element_size() for name, t in self.state_dict().items()}
        moments = 2 * sum(sizes[name] for name, p in self.named_parameters() if p.requires_grad)
        return (KEPT + 1) * (sum(sizes.values()) + moments) + 2 * sum(sizes.values())

    @property
    def step(self) -> int:
        """Optimizer steps done since the run began, over all resumptions."""
        return self.start + self.trainer.global_step

    def step_is_done(self) -> bool:
        """Whether the micro-batch that just ended was the last of its step."""
        return (self.trainer.fit_loop.batch_idx + 1) % self.trainer.accumulate_grad_batches == 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = build_optimizer(self.groups(), self.optimization.optimizer, betas=self.optimization.betas)
        if self._optimizer_state:
            optimizer.load_state_dict(self._optimizer_state)
            self._optimizer_state = None
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        part = batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(int(combine(self.plan.seed, self.step, part, self.global_rank)) % 2**63)
        rate = self.learning_rate()
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate * group["lr_scale"]

    def learning_rate(self) -> float:
        """The absolute rate of this step."""
        o = self.optimization
        return learning_rate(
            self.plan.epoch(self.step),
            peak=self.peak,
            floor=o.min_learning_rate,
            warmup_epochs=o.warmup_epochs,
            epochs=o.epochs,
            decay=o.decay,
            steps=o.steps,
        )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        if batch.bad:
            self._quarantine(batch.bad)
        parts = self.trainer.accumulate_grad_batches
        self._audit.see(batch.seeds, self.step, self.global_rank, self.trainer.world_size, batch_idx % parts, parts)
        values = self.loss(batch)
        for name, value in values.items():  # here, since Lightning scales what it hands to callbacks
            part = value.detach().float() / parts
            self._sums[name] = self._sums[name].to(part.device) + part if name in self._sums else part
        return values

    def _quarantine(self, lines: list[str]) -> None:
        self.run.append("quarantine.jsonl", lines)
        self.counts["bad_samples"] += len(lines)
        shown = max(self.plan.samples, (self.step + 1) * self.plan.batch_size) / self.trainer.world_size
        if self.counts["bad_samples"] > MOST_BAD * shown:
            raise UserError(
                "module.quarantine",
                f"more than {MOST_BAD:.0%} of the images do not decode, see {self.run.path / 'quarantine.jsonl'}",
                "mend the shards: `mae-kit index` names every damaged one",
            )

    def interval_means(self) -> dict[str, float]:
        """Means over ranks and over the steps since the last call, which all ranks make at the same step."""
        means = {name: value / (self.step - self._sums_since) for name, value in self._reduced_sums().items()}
        self._sums, self._sums_since = {}, self.step
        return {name: value.item() for name, value in means.items()}

    def _reduced_sums(self) -> dict[str, Tensor]:
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name] for name in names]) if names else torch.zeros(0)
        if self.trainer.world_size > 1 and names:
            sums = self.trainer.strategy.reduce(sums, reduce_op="mean")
        return dict(zip(names, sums.unbind(), strict=True))  # type: ignore[union-attr]

    def audited(self) -> list[Epoch]:
        """The epochs that ended with the last step, usually none; all ranks ask at the same step."""
        ended = self._audit.over(self.step - 1)
        if not ended:
            return []
        sums = self.summed(self._audit.take(ended))
        return [self._audit.result(epoch, row) for epoch, row in zip(ended, sums.unbind(), strict=True)]

    def summed(self, values: Tensor) -> Tensor:
        """Over all processes, which all call it."""
        if self.trainer.world_size == 1:
            return values
        return self.trainer.strategy.reduce(values.to(self.device, copy=True), reduce_op="sum").cpu()  # type: ignore[union-attr]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip, and skip the step if the gradient is not finite; after an all-reduce all ranks see the same norm."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = self.optimization.clip or float("inf")
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        if torch.isfinite(self.gradient_norm):
            self.counts["skipped_in_a_row"] = 0
            return
        optimizer.zero_grad(set_to_none=True)  # an optimizer passes over parameters without a gradient
        self.counts["skipped_steps"] += 1
        self.counts["skipped_in_a_row"] += 1
        log.warning(f"step {self.step}: the loss or its gradient is not finite; the step is skipped")
        if self.counts["skipped_in_a_row"] == ROLLBACK_AFTER:
            self._roll_back(optimizer)

    def _roll_back(self, optimizer: torch.optim.Optimizer) -> None:
        """Weights and optimizer of the last checkpoint; the data goes on, past the batches that did the damage."""
        self.counts["skipped_in_a_row"] = 0
        self.counts["rollbacks"] += 1
        state = load_latest(self.run.checkpoints)
        if state is None or self.counts["rollbacks"] > ROLLBACKS:
            raise UserError(
                "module.roll_back",
                f"the loss is not finite at step {self.step}, {ROLLBACK_AFTER} times in a row",
                "lower optimization.base_learning_rate, or give optimization.clip 1",
            )
        self.load_state_dict(state["model"], strict=True)
        optimizer.load_state_dict(state["optimizer"])
        log.warning(f"step {self.step}: back to the weights of step {state['step']}")

    def checkpoint_state(self) -> State:
        """Everything a resumed run needs: tensors and plain values."""
        return {
            "step": self.step,
            "plan": asdict(self.plan),
            "model": self.state_dict(),
            "optimizer": self.optimizers().optimizer.state_dict(),  # type: ignore[union-attr]
            "counts": self.counts,
            "sums": self._reduced_sums(),
            "sums_since": self._sums_since,
            "audit": self.summed(self._audit.under_way(self.step)),
            "audit_first": self._audit.first,
        }

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        tensors = [t.to(device, non_blocking=True) if isinstance(t, Tensor) else t for t in batch]
        return Batch(*tensors)  # type: ignore[arg-type]
