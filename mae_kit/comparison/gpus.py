"""GPUs as their makers publish them, and what part of that a training has been seen to reach."""

from typing import Literal, NamedTuple

GpuName = Literal["b200", "h200", "h100", "a100", "a100_40gb", "l40s", "l4", "a10", "v100", "v100_16gb", "t4"]


class Gpu(NamedTuple):
    """One GPU.

    Attributes:
        gigabytes: Of memory.
        teraflops: 10^12 operations a second of its tensor cores in bf16, or in fp16 where it has no bf16; dense.
    """

    gigabytes: float
    teraflops: float


GPUS: dict[str, Gpu] = {  # NVIDIA's data sheets; SXM where there are several
    "b200": Gpu(180, 2250),
    "h200": Gpu(141, 989),
    "h100": Gpu(80, 989),
    "a100": Gpu(80, 312),
    "a100_40gb": Gpu(40, 312),
    "l40s": Gpu(48, 362),
    "l4": Gpu(24, 121),
    "a10": Gpu(24, 125),
    "v100": Gpu(32, 125),
    "v100_16gb": Gpu(16, 125),
    "t4": Gpu(16, 65),
}
REACHED = 0.1, 0.3
"""The part of the peak that MAE's pretraining of ViT-L has been seen to reach: 42 hours on 64 V100 (PRETRAIN.md of the
original), 15.4 hours on 128 TPU-v3 cores of 61.5 teraflops (paper, table 2)."""
USABLE = 0.9
"""The part of its memory that tensors can have: the rest is the driver's, and lost between them."""
