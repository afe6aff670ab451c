"""What a run writes for people waits where a disk is full, and does not end the run."""

import logging
from collections import deque
from collections.abc import Callable

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.errors import UserError
from mae_kit.training.progress import find

log = logging.getLogger(__name__)

Action = Callable[[], None]


class Outbox(Callback):
    """Writes metrics, plots and lists in their order, and keeps what a full disk does not take until it does."""

    def __init__(self) -> None:
        self._waiting: deque[Action] = deque()
        self._reason = ""

    def put(self, action: Action) -> None:
        """Write something now, or later with what is before it; an action that fails leaves nothing behind."""
        self._waiting.append(action)
        self._try()

    def _try(self) -> None:
        while self._waiting:
            try:
                self._waiting[0]()
            except OSError as error:
                if not self._reason:
                    log.warning(
                        f"{error.filename} cannot be written ({error.strerror}): free some space; the run continues"
                    )
                self._reason = f"{error.filename} cannot be written ({error.strerror})"
                return
            self._waiting.popleft()
        self._reason = ""

    def close(self) -> None:
        """Try once more.

        Raises:
            UserError: Something is not written still.
        """
        self._try()
        if self._waiting:
            raise UserError("run.not_written", self._reason, "free some space; a run resumes with --resume")


def deliver(trainer: Trainer, action: Action) -> None:
    """Write something through the `Outbox` of a trainer; at once where it has none."""
    outbox = find(trainer, Outbox)
    outbox.put(action) if outbox else action()
