"""bf16 where the device supports it, else fp16 on a GPU, and fp32 on a processor; and what is slow in it."""

from typing import Any, Literal

import torch
from pytorch_lightning.plugins.precision import MixedPrecision

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_LIGHTNINGS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class ScaledHalf(MixedPrecision):
    """fp16 autocast with a loss scale; callbacks see unscaled gradients, also those of a fused optimizer.

    A step whose gradient is not finite in fp16 is left out, and halves the scale.

    Args:
        device: "cuda" or "cpu".
    """

    def __init__(self, device: str):
        super().__init__("16-mixed", device)

    def optimizer_step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        optimizer._step_supports_amp_scaling = False  # a fused one would unscale after the callbacks
        return super().optimizer_step(optimizer, *args, **kwargs)


def resolve(precision: Precision, device: str | None = None) -> str:
    """Lightning's name of the precision: "bf16-mixed", "16-mixed" or "32-true"; see `resolve_with_reason`."""
    return resolve_with_reason(precision, device)[0]


def resolve_with_reason(precision: Precision, device: str | None = None) -> tuple[str, str]:
    """Lightning's name of the precision, and why, for the log.

    Args:
        precision: "auto" measures nothing and asks the device; the others are taken at their word.
        device: "cpu", "cuda" or "mps"; None for the one that Lightning's accelerator "auto" takes.
    """
    if precision != "auto":
        cast = {"fp32": "", "bf16": " autocast", "fp16": " autocast with loss scaling"}[precision]
        return _LIGHTNINGS[precision], f"{precision}{cast}, as requested"
    device = device or best_device()
    if _computes_bf16(device):
        return "bf16-mixed", f"bf16 autocast: this {device} supports it"
    if device == "cuda":
        return "16-mixed", "fp16 autocast with loss scaling: this GPU does not support bf16"
    return "32-true", f"fp32: this {device} has no bf16 arithmetic, emulating it would be slower"


def precision_plugins(precision: Precision) -> list[MixedPrecision]:
    """The plugin of the Trainer that computes in this precision."""
    found, device = resolve(precision), best_device()
    if found == "16-mixed":
        return [ScaledHalf(device)]
    return [MixedPrecision("bf16-mixed", device)] if found == "bf16-mixed" else []


def half_type(precision: Precision, device: str | None = None) -> torch.dtype | None:
    """The type that autocast computes in; None for fp32."""
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(resolve(precision, device))


def fused_attention_is_slow(precision: Precision, device: str | None = None) -> bool:
    """Whether attention is trained faster written out: torch's kernel for processors needs in bf16, backward, two to
    nine times the time of the products that it fuses (tests/benchmarks/attention.py; recipes/LOG.md, 2026-11-22).

    Args:
        precision: As in a recipe.
        device: As of `resolve_with_reason`.
    """
    device = device or best_device()
    return device == "cpu" and half_type(precision, device) is torch.bfloat16


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
