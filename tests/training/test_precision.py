"""bf16 where the device computes in it; and attention written out where torch's kernel is slow in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mae_kit.cli import main as cli
from mae_kit.training.precision import Precision, fused_attention_is_slow, half_type, resolve


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A processor that has what is named, and no GPU."""

    def has(**features: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)

    return has


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16"])
def test_a_processor_is_asked(processor: Callable[..., None], feature: str):
    processor(**{feature: True})
    assert resolve("auto") == "bf16-mixed" and fused_attention_is_slow("auto")
    assert resolve("fp32") == "32-true" and not fused_attention_is_slow("fp32")
    processor(**{feature: False})
    assert resolve("auto") == "32-true" and not fused_attention_is_slow("auto")
    assert resolve("bf16") == "bf16-mixed" and fused_attention_is_slow("bf16")


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_a_gpu_keeps_its_kernel(monkeypatch: pytest.MonkeyPatch, precision: Precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert not fused_attention_is_slow(precision, "cuda")


def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch: pytest.MonkeyPatch):
    for supported, found in ((True, "bf16-mixed"), (False, "16-mixed")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, supported=supported: supported)
        assert resolve("auto", "cuda") == found
    assert half_type("fp16") == torch.float16 and half_type("fp32") is None


@pytest.mark.skipif(torch.accelerator.is_available(), reason="trains on the processor")
@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("bf16", False)])
def test_what_trains_on_a_processor(
    monkeypatch: pytest.MonkeyPatch, photos: Path, recipes: Path, tmp_path: Path, precision: Precision, fused: bool
):
    calls: list[Any] = []
    kernel = torch.nn.functional.scaled_dot_product_attention
    counted = lambda *args, **options: (calls.append(args), kernel(*args, **options))[1]  # noqa: E731
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    words = ["--config", recipes / "pretrain.yaml", "--data.path", photos / "train-*.tar", "--run", tmp_path / "run"]
    length = ["--optimization.epochs", "0.2", "--optimization.warmup_epochs", "0"]
    assert cli.main([str(word) for word in ("pretrain", *words, *length, "--machine.precision", precision)]) == 0
    assert bool(calls) == fused
