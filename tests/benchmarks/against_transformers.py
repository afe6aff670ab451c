"""Pretraining images per second: mae_kit, its decoding included, against transformers' ViTMAE of the same size.

    python tests/benchmarks/against_transformers.py --task.shards "DIR/train-*.tar"

One step of each in turn, in one process, on the same shards; transformers is fed from memory, and by the usual
pipeline (Pillow, torchvision, DataLoader). Before, both compute the loss of the same images with the same weights and
hidden patches: it must be the same number.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from command import run
from theirs import same_model, usual_batches
from torch import Tensor, nn
from turns import Way, table, take_turns

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import Loader, Replica, TrainBatches
from mae_kit.data.transforms.augment import IMAGENET_MEAN, IMAGENET_STD, PretrainAugment
from mae_kit.encoders.attention import write_out
from mae_kit.encoders.vit import ViT
from mae_kit.objectives import MAE
from mae_kit.objectives.masking import hide_smallest_last, visible_count
from mae_kit.training.memory import keep_freed_memory
from mae_kit.training.optimizer import build_optimizer, parameter_groups
from mae_kit.training.precision import fused_attention_is_slow, resolve_with_reason

RATE = 1e-4
NO_END = sys.maxsize // 2
Source = Literal["from memory", "usual loader"]
Attention = Literal["sdpa", "eager"]


@dataclass(frozen=True)
class Task:
    """What both sides do, and with what.

    Attributes:
        shards: A folder of tar shards, or a pattern.
        name: timm's name of the encoder.
        image_size: Pixels a side.
        patch_size: Pixels a side of a patch.
        decoder_dim: Width of the decoder.
        decoder_depth: Its blocks.
        decoder_heads: Its attention heads.
        batch: Images a step.
        accumulate: Micro-batches of mae_kit's step.
        compile: Compile mae_kit's objective.
        threads: Of torch in each process; 0 leaves its default.
        workers: Loader processes of each.
    """

    shards: str
    name: str = "vit_tiny_patch16_224"
    image_size: int = 64
    patch_size: int = 8
    decoder_dim: int = 128
    decoder_depth: int = 4
    decoder_heads: int = 4
    batch: int = 256
    accumulate: int = 1
    compile: bool = False
    threads: int = 0
    workers: int = 1

    def begin(self) -> MAE:
        """Settings of this process, and the model with the same weights in each."""
        if self.threads:
            torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        encoder = ViT(self.name, img_size=self.image_size, patch_size=self.patch_size)
        width, depth, heads = self.decoder_dim, self.decoder_depth, self.decoder_heads
        return MAE(encoder, decoder_dim=width, decoder_depth=depth, decoder_heads=heads).to(_device())


def against_transformers(task: Task, steps: int = 10) -> dict[str, Any]:
    """Time pretraining steps of mae_kit and of transformers' ViTMAE, in turn.

    Args:
        task: What both do.
        steps: Measured steps of each.

    Returns:
        Losses, precision and a row of the table for each way.
    """
    losses = same_loss(task.begin())
    print(f"loss of the same weights, images and mask: mae_kit {losses[0]:.6f}, transformers {losses[1]:.6f}")
    precision, reason = resolve_with_reason("auto")
    bf16 = precision != "32-true"
    print(f"{reason}; {torch.get_num_threads()} threads, {task.workers} loader workers each, on {_device().type}")
    ways = [Way(f"mae_kit {_short(bf16)}", partial(our_step, task, bf16), task.batch)]
    kinds: list[tuple[bool, Attention]] = [(False, "sdpa"), (True, "sdpa"), (True, "eager")]
    for mixed, attention in kinds if bf16 else kinds[:1]:
        for source in ("from memory", "usual loader"):
            name = f"transformers {_short(mixed)}, {attention}, {source}"
            ways.append(Way(name, partial(their_step, task, source, mixed, attention), task.batch))
    take_turns(ways, steps)
    return {"losses": losses, "precision": reason, "threads": torch.get_num_threads(), "rows": table(ways)}


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _short(bf16: bool) -> str:
    return "bf16" if bf16 else "fp32"


def same_loss(mae: MAE) -> tuple[float, float]:
    """Both sides' loss of the same weights, images and hidden patches, in fp32.

    Raises:
        ValueError: They differ: then the two would not be doing the same work.
    """
    encoder = mae.encoder
    n = encoder.grid[0] * encoder.grid[1]
    images = torch.randn(8, encoder.channels, *encoder.image_size, device=_device())
    noise = torch.rand(8, n, device=_device())
    with torch.no_grad():
        ours = mae.compare(images, hide_smallest_last(noise, visible_count(n, mae.mask_ratio))).loss
        theirs = same_model(mae).to(_device())(images, noise=noise).loss
    if not torch.isclose(ours, theirs, rtol=1e-5):
        raise ValueError(f"mae_kit's loss is {ours:.7f}, transformers' {theirs:.7f}")
    return float(ours), float(theirs)


def our_step(task: Task, bf16: bool) -> Callable[[], float]:
    """Read, decode and crop; flip and normalize on the device; objective, backward, gradient norm, AdamW."""
    mae, device, index = task.begin(), _device(), open_index(Path(task.shards))
    keep_freed_memory()
    replica = Replica(micro_batches=task.accumulate)
    batches = TrainBatches(index, np.arange(len(index)), task.batch, mae.encoder.image_size, replica=replica)
    loader = iter(Loader(batches, 0, NO_END, task.workers, pin=device.type == "cuda"))
    augment = PretrainAugment(IMAGENET_MEAN, IMAGENET_STD).to(device)
    optimizer = build_optimizer(parameter_groups(mae, 0.05))
    if bf16 and fused_attention_is_slow("bf16"):
        write_out(mae)
    if task.compile:
        mae.compile()

    def part() -> Tensor:
        ready = next(loader)
        keys = ready.seeds.to(device, non_blocking=True)
        return mae(augment(ready.images.to(device, non_blocking=True), keys), keys).loss

    return _step(mae, part, optimizer, task.accumulate, bf16)


def their_step(task: Task, source: Source, bf16: bool, attention: Attention) -> Callable[[], float]:
    """A plain loop with the fused AdamW, the fastest of torch's. Their own choice of attention is sdpa, torch's kernel;
    told to be eager it is written out, as ours is where that is faster.
    """
    model = same_model(task.begin()).to(_device())
    model.set_attn_implementation(attention)
    images = from_memory(task) if source == "from memory" else _usual(task)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    return _step(model, lambda: model(next(images).to(_device(), non_blocking=True)).loss, optimizer, 1, bf16)


def _step(
    model: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, parts: int, bf16: bool
) -> Callable[[], float]:
    for group in optimizer.param_groups:
        group["lr"] = RATE

    def step() -> float:
        total = 0.0
        for _ in range(parts):
            with torch.autocast(_device().type, torch.bfloat16) if bf16 else contextlib.nullcontext():
                value = loss() / parts
            value.backward()
            total += value.item()  # waits for the device
        torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


def from_memory(task: Task) -> Iterator[Tensor]:
    """Decoded, cropped and normalized already."""
    images = torch.randn(task.batch, 3, task.image_size, task.image_size, device=_device())
    while True:
        yield images


def _usual(task: Task) -> Iterator[Tensor]:
    return usual_batches(open_index(Path(task.shards)), task.image_size, task.batch, task.workers)


if __name__ == "__main__":
    run(against_transformers)
