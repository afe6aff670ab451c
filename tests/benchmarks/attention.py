"""Attention forward and backward on this processor: torch's fused kernel against the products written out.

    python tests/benchmarks/attention.py --shapes "[[256,3,17,64],[256,4,65,32]]"

In turn, in one process. This is what `mae_kit.training.precision.fused_attention_is_slow` rests on.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from command import run
from torch import Tensor

from mae_kit.training.memory import keep_freed_memory

SHAPES = [[256, 3, 17, 64], [256, 4, 65, 32], [128, 3, 65, 64], [32, 12, 50, 64], [32, 12, 197, 64]]
WARM_UP = 2


def attention(shapes: list[list[int]] = SHAPES, threads: int = 0, rounds: int = 7) -> dict[str, Any]:
    """Time both, forward and backward.

    Args:
        shapes: Images, heads, tokens and width of a head.
        threads: Of torch; 0 leaves its default.
        rounds: Measured rounds; medians count.

    Returns:
        A row for each shape and type, with seconds of (forward, backward) of both.
    """
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads; milliseconds forward + backward")
    rows = [_row(shape, kind, rounds) for shape in shapes for kind in (torch.bfloat16, torch.float32)]
    for row in rows:
        told = [f"{1e3 * row[way][0]:7.1f} + {1e3 * row[way][1]:6.1f}" for way in ("fused", "written out")]
        ratio = sum(row["fused"]) / sum(row["written out"])
        print(f"{row['shape']!s:20} {row['type']:8}  fused {told[0]}  written out {told[1]}  {ratio:.1f} times as fast")
    return {"threads": torch.get_num_threads(), "rows": rows}


def _row(shape: list[int], kind: torch.dtype, rounds: int) -> dict[str, Any]:
    images, heads, tokens, width = shape
    qkv = torch.randn(images, tokens, 3, heads, width, dtype=kind)
    ways = {"fused": F.scaled_dot_product_attention, "written out": _written_out}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(WARM_UP + rounds):
        for name, way in ways.items():
            times[name].append(_timed(way, qkv))
    medians = {name: [statistics.median(part) for part in zip(*t[WARM_UP:], strict=True)] for name, t in times.items()}
    return {"shape": shape, "type": str(kind).removeprefix("torch."), **medians}


def _written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As timm does where it may not use the kernel."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def _timed(way: Callable[..., Tensor], qkv: Tensor) -> tuple[float, float]:
    leaf = qkv.detach().requires_grad_()
    q, k, v = leaf.permute(2, 0, 3, 1, 4).unbind(0)
    gradient = torch.ones_like(qkv[:, :, 0]).transpose(1, 2)
    started = time.perf_counter()
    out = way(q, k, v)
    forward = time.perf_counter()
    out.backward(gradient)
    return forward - started, time.perf_counter() - forward


if __name__ == "__main__":
    run(attention)
