"""What a GPU does with MAE's pretraining, in minutes: nothing is downloaded, all images are made.

python tests/benchmarks/gpu.py --minutes 9 --out DIR          --tiny: the same of tiny models, on a processor too
python tests/benchmarks/gpu.py --minutes 40 --out DIR --photos SHARDS --parts photos        a whole pretraining, scored

Rewrites DIR/gpu.json after each part, so that what was measured is kept where time runs out.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from command import run
from made import make_shards
from theirs import same_model
from torch import Tensor, nn

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import Loader, TrainBatches
from mae_kit.encoders import ViT
from mae_kit.objectives import MAE
from mae_kit.training.footprint import footprint
from mae_kit.training.metrics import read_metrics
from mae_kit.training.optimizer import build_optimizer, parameter_groups
from mae_kit.training.precision import half_type

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP, STEPS = 3, 10
SEEDS = 4096


class Size(NamedTuple):
    """A model, its images in a step, and how it is built."""

    name: str
    batch: int
    image_size: int = 224
    patch_size: int = 16
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    def mae(self) -> MAE:
        torch.manual_seed(0)
        encoder = ViT(self.name, img_size=self.image_size, patch_size=self.patch_size)
        width, depth, heads = self.decoder_dim, self.decoder_depth, self.decoder_heads
        return MAE(encoder, decoder_dim=width, decoder_depth=depth, decoder_heads=heads)


SIZES = [
    Size("vit_base_patch16_224", 256),
    Size("vit_large_patch16_224", 128),
    Size("vit_huge_patch14_224", 64, patch_size=14),
]
TINY = [Size("vit_tiny_patch16_224", 4, 32, 8, 32, 1, 2)]

PHOTOS = (
    "mae_vit_s16_quick --objective.encoder.img_size=224 --objective.mask_ratio=0.75 --data.batch_size=1024 --epochs=200"
    " --optimization.warmup_epochs=20",
    "vit_b16 --model=null --epochs=50 --optimization.warmup_epochs=5",
)
"""Words of pretraining and of fine-tuning: 200 epochs of ViT-S/16 at 224 px."""
FEW_PHOTOS = (
    "mae_vit_tiny_64px_quick --epochs=2 --optimization.warmup_epochs=1 --data.batch_size=16",
    "vit_tiny_64px_quick --epochs=2 --optimization.warmup_epochs=1 --optimization.min_steps=0 --data.batch_size=16",
)


def gpu(
    out: Path, minutes: float = 9.0, tiny: bool = False, workers: int = 8, photos: str = "", parts: str = ""
) -> dict[str, Any]:
    """Measure matrix products, MAE of three sizes, the loader, compiled masks, and a kill with its resumption.

    Args:
        out: Folder of gpu.json.
        minutes: After which no further part is started.
        tiny: Tiny models and few images, to test this file.
        workers: Processes that decode.
        photos: Labeled shards to pretrain on, and to score the encoder by, frozen and fine-tuned.
        parts: Only these, separated by commas.

    Returns:
        What was measured, by part.
    """
    out.mkdir(parents=True, exist_ok=True)
    end, found = time.monotonic() + 60 * minutes, _about()
    chosen = [(name, part) for name, part in _parts(tiny, workers, photos) if not parts or name in parts.split(",")]
    for name, part in chosen:
        if time.monotonic() > end:
            found[name] = "no time was left"
            continue
        started = time.monotonic()
        found[name] = part(found)
        found["seconds"] = {**found.get("seconds", {}), name: time.monotonic() - started}
        (out / "gpu.json").write_text(json.dumps(found, indent=1))
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    return found


def _about() -> dict[str, Any]:
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "processor"
    return {"device": name, "torch": torch.__version__, "half": str(half_type("auto"))}


def _parts(tiny: bool, workers: int, photos: str) -> Iterator[tuple[str, Callable[[dict[str, Any]], Any]]]:
    """The parts in the order of their worth."""
    sizes = TINY if tiny else SIZES
    yield "teraflops", lambda _: matmul_rate(256 if tiny else 8192)
    yield "masks", lambda _: {mask: same_masks(sizes[0], mask, tiny) for mask in ("random", "block", "grid")}
    for size in sizes:
        yield size.name, lambda found, size=size: paces(size, found["teraflops"], tiny)
    yield "images_per_second_loaded", lambda _: loaded(64 if tiny else 4096, 1 if tiny else workers)
    yield "resumed", lambda _: resumed()
    if photos:
        yield "photos", lambda _: on_photos(photos, tiny)


def matmul_rate(side: int) -> float:
    """10^12 operations a second of products of square matrices in the type that trainings use."""
    kind = half_type("auto") or torch.float32
    one, two = (torch.randn(side, side, device=DEVICE, dtype=kind) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: one @ two) / 1e12


def same_masks(size: Size, mask: Any, tiny: bool) -> bool:
    """Whether compiled masks are those drawn without a compiler."""
    hide = MAE(size.mae().encoder, mask=mask).hide
    seeds = torch.arange(SEEDS, device=DEVICE)
    compiled = torch.compile(hide, backend=_backend(tiny))
    return torch.equal(compiled(seeds), hide(seeds))


def paces(size: Size, teraflops: float, tiny: bool) -> dict[str, dict[str, float]]:
    """Images a second, their part of the rate of matrix products, and gigabytes, of each way to train."""
    with torch.device("meta"):
        flops = footprint(size.mae().train(), half=True).flops
    found = {}
    for name, make in _ways(size, tiny):
        model, loss, fused = make()
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        pace = size.batch / _seconds(_step(model, loss, fused))
        held = torch.cuda.max_memory_allocated() / 1e9 if DEVICE.type == "cuda" else 0.0
        found[name] = {"images_per_second": pace, "of_peak": pace * flops / teraflops / 1e12, "gigabytes": held}
        del model, loss
        torch.compiler.reset()
    return found


def _ways(size: Size, tiny: bool) -> Iterator[tuple[str, Callable[[], tuple[nn.Module, Callable[[], Tensor], bool]]]]:
    images = torch.randn(size.batch, 3, size.image_size, size.image_size, device=DEVICE)

    def ours(compiled: bool) -> tuple[nn.Module, Callable[[], Tensor], bool]:
        model = size.mae().to(DEVICE).train()
        if compiled:
            model.compile(backend=_backend(tiny))
        return model, lambda: model(images).loss, True

    def theirs(attention: str, fused: bool) -> tuple[nn.Module, Callable[[], Tensor], bool]:
        model = same_model(size.mae()).to(DEVICE)
        model.set_attn_implementation(attention)
        return model, lambda: model(images).loss, fused

    yield "mae_kit", lambda: ours(False)
    yield "mae_kit, compiled", lambda: ours(True)
    yield "transformers", lambda: theirs("sdpa", True)
    yield "a plain loop: attention written out, AdamW by tensor", lambda: theirs("eager", False)


def _step(model: nn.Module, loss: Callable[[], Tensor], fused: bool) -> Callable[[], None]:
    if fused:
        optimizer = build_optimizer(parameter_groups(model, 0.05))
    else:
        optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), foreach=False)
    half = half_type("auto")

    def step() -> None:
        with torch.autocast(DEVICE.type, half, enabled=half is not None):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def loaded(count: int, workers: int) -> float:
    """Images a second that workers read, decode and crop to 224 pixels, from photos of 500 x 375."""
    with tempfile.TemporaryDirectory() as folder:
        index = open_index(make_shards(Path(folder), count))
        batch = min(256, count // 2)
        batches = TrainBatches(index, np.arange(len(index)), batch, (224, 224))
        items = 2 * workers + 8
        loader = Loader(batches, 0, items, workers, pin=DEVICE.type == "cuda")
        ready = iter(loader)
        for _ in range(2 * workers):  # made ahead
            next(ready)
        started = time.perf_counter()
        for _ in range(items - 2 * workers):
            next(ready)
        seconds = time.perf_counter() - started
        loader.close()
    return (items - 2 * workers) * batch / seconds


def resumed() -> dict[str, float]:
    """The last loss of a run, and of the same that was killed and resumed: equal on a processor, close on a GPU."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shards = make_shards(place, 64)
        lengths = {"epochs": 4, "optimization.warmup_epochs": 1, "data.batch_size": 16}
        often = {"intervals.checkpoint_every_n_steps": 2, "intervals.log_every_n_steps": 1, "machine.num_workers": 0}
        options = [f"--{key}={value}" for key, value in (lengths | often).items()]
        words = [sys.executable, "-m", "mae_kit", "pretrain"]
        start = [*words, "mae_vit_tiny_64px_quick", *options, f"--data={shards}"]
        subprocess.run([*start, f"--run={place / 'whole'}"], check=True, stderr=subprocess.DEVNULL)
        with subprocess.Popen([*start, f"--run={place / 'killed'}"], stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not (place / "killed/checkpoints/step-00000004").exists():
                time.sleep(0.01)
            process.kill()
        subprocess.run([*words, "--resume", place / "killed"], check=True, stderr=subprocess.DEVNULL)
        losses = {run: read_metrics(place / run)[-1]["loss"] for run in ("whole", "killed")}
        return losses | {"killed_after_a_checkpoint": float(process.returncode < 0)}


def on_photos(shards: str, tiny: bool) -> dict[str, Any]:
    """Scores in percent after a pretraining on these photos, and the minutes of its parts."""
    pretraining, finetuning = (words.split() for words in (FEW_PHOTOS if tiny else PHOTOS))
    with tempfile.TemporaryDirectory() as name:
        run, classifier = f"{name}/run", f"{name}/classifier"
        parts = {
            "pretrain": ["pretrain", *pretraining, f"--data={shards}", f"--run={run}"],
            "evaluate": ["evaluate", run, f"--data={shards}", "--methods=knn,probe"],
            "finetune": ["finetune", *finetuning, f"--data={shards}", f"--encoder={run}", f"--run={classifier}"],
        }
        found = {}
        for part, words in parts.items():
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "mae_kit", *words, "--json"], check=True, stdout=subprocess.PIPE
            )
            found[part] = json.loads(done.stdout) | {"minutes": (time.monotonic() - started) / 60}
    return found


def _backend(tiny: bool) -> str:
    return "eager" if tiny else "inductor"


def _seconds(turn: Callable[[], Any]) -> float:
    """The median of some turns, the device waited for."""
    seconds = []
    for number in range(WARM_UP + STEPS):
        started = time.perf_counter()
        turn()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    run(gpu)
