"""The process group of processes that train together."""

import os
from datetime import timedelta
from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from torch import distributed

PATIENCE = timedelta(minutes=10)  # until a process that is waited for counts as stuck


class RestartableDDP(DDPStrategy):
    """DDP whose processes torchrun's agent may restart.

    Without a rendezvous backend the agent keeps its store, and in it the addresses of the processes before: whoever
    reads one of these waits for ever for its peer. So each attempt has keys of its own.

    Gradients lie in the buckets that are reduced, so that there is one copy of them.
    """

    def __init__(self, **options: Any):
        super().__init__(gradient_as_bucket_view=True, **options)

    def setup_distributed(self) -> None:
        if attempt := int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):
            store, rank, size = next(distributed.rendezvous("env://", timeout=PATIENCE))
            own = distributed.PrefixStore(f"attempt {attempt}", store)
            backend = self._get_process_group_backend()
            distributed.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
        super().setup_distributed()
