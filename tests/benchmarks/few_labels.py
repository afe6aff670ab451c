"""What few labels give: frozen ridge, kNN and probe, the recipe's fine-tuning and the tuned one; the same from scratch.

python tests/benchmarks/few_labels.py ENCODER RECIPE DATA OUT [LABELS_PER_CLASS] [SEEDS]

Each line is the top-1 in % on the held-out images, its mean over the seeds [95% interval by Student's t]. A run that is
complete is read, one that was stopped resumes.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import mae_kit
from mae_kit.console import messages
from mae_kit.evaluation.seeds import over_seeds, with_interval


def trained(run: Path, recipe: str, **settings: Any) -> dict[str, Any]:
    """result.json of a fine-tuning, which is trained unless it is there."""
    if not (run / "result.json").is_file():
        if (run / "config.yaml").is_file():
            mae_kit.finetune(resume=str(run))
        else:
            mae_kit.finetune(recipe, run=str(run), **settings)
    return json.loads((run / "result.json").read_text())


def main(encoder: str, recipe: str, data: str, out: str, labels: str = "10", seeds: str = "5") -> None:
    scores: dict[str, list[float]] = defaultdict(list)
    for seed in range(int(seeds)):
        for start in (encoder, "none"):
            name = "scratch" if start == "none" else "pretrained"
            decay = {"optimization.layer_decay": 1} if start == "none" else {}
            common = {"data": data, "encoder": start, "data.labels_per_class": int(labels), "seed": seed, **decay}
            folder = Path(out) / f"{name}-{seed}"
            plain = trained(folder / "plain", recipe, tune="none", **common)
            tuned = trained(folder / "tuned", recipe, tune="auto", **common)
            scores[f"{name}, fine-tuned by the recipe"].append(plain["top1"])
            for one in tuned["candidates"]:
                scores[f"{name}, {one['method']}" + ", tuned" * (one["method"] == "finetune")].append(one["top1"])
            scores[f"{name}, chosen"].append(tuned["top1"])
    for name, values in scores.items():
        print(f"{name:40} {with_interval(over_seeds(values)._asdict())}")


if __name__ == "__main__":
    with messages():
        main(*sys.argv[1:])
