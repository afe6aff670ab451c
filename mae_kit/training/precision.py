"""bf16 where the device supports it, fp32 where it would only be emulated; and what is slow in it."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def resolve(precision: Precision, device: str | None = None) -> str:
    """Lightning's name of the precision: "bf16-mixed" or "32-true"; see `resolve_with_reason`."""
    return resolve_with_reason(precision, device)[0]


def resolve_with_reason(precision: Precision, device: str | None = None) -> tuple[str, str]:
    """Lightning's name of the precision, and why, for the log.

    Args:
        precision: "auto" measures nothing and asks the device; the other two are taken at their word.
        device: "cpu", "cuda" or "mps"; None for the one that Lightning's accelerator "auto" takes.
    """
    if precision == "fp32":
        return "32-true", "fp32, as requested"
    if precision == "bf16":
        return "bf16-mixed", "bf16 autocast, as requested"
    device = device or best_device()
    if _computes_bf16(device):
        return "bf16-mixed", f"bf16 autocast: this {device} supports it"
    return "32-true", f"fp32: this {device} has no bf16 arithmetic, emulating it would be slower"


def fused_attention_is_slow(precision: Precision, device: str | None = None) -> bool:
    """Whether attention is trained faster written out: torch's kernel for processors needs in bf16, backward, two to
    nine times the time of the products that it fuses (tests/benchmarks/attention.py; recipes/LOG.md, 2026-11-22).

    Args:
        precision: As in a recipe.
        device: As of `resolve_with_reason`.
    """
    device = device or best_device()
    return device == "cpu" and resolve(precision, device) == "bf16-mixed"


def best_device() -> str:
    """Name the device that Lightning's accelerator "auto" takes: "cpu", "cuda" or "mps"."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "cpu"


def _computes_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and _cpu_computes_bf16()


def _cpu_computes_bf16() -> bool:
    """AVX512-BF16 or AMX; torch has a public question for it only since 2.11 or so."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)
