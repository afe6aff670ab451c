"""What few labels give: frozen ridge, kNN and probe, the recipe's fine-tuning and the tuned one; the same from scratch.

python tests/benchmarks/few_labels.py ENCODER RECIPE DATA OUT [--labels 10] [--seeds 5] [--tuned 5] [KEY=VALUE ...]

Each line is the top-1 in % on the held-out images, its mean over the seeds [95% interval by Student's t], and then
every seed; gains are paired by seed. In ENCODER, {seed} is the seed: each draw of the labels then has a pretraining of
its own. KEY=VALUE are settings of all fine-tunings. A run that is complete is read, one that was stopped resumes.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

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


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("encoder", "recipe", "data", "out"):
        parser.add_argument(name)
    parser.add_argument("--labels", type=int, default=10, help="per class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tuned", type=int, default=5, help="seeds of --tune auto")
    parser.add_argument("settings", nargs="*")
    a = parser.parse_intermixed_args()
    settings = {key: yaml.safe_load(value) for key, value in (one.split("=", 1) for one in a.settings)}
    scores: dict[str, list[float]] = defaultdict(list)
    for seed in range(a.seeds):
        for start, encoder in (("pretrained", a.encoder.format(seed=seed)), ("scratch", "none")):
            decay = {} if start == "pretrained" else {"optimization.layer_decay": 1}
            common = (
                {"data": a.data, "encoder": encoder, "data.labels_per_class": a.labels, "seed": seed} | settings | decay
            )
            folder = Path(a.out) / f"{start}-{seed}"
            scores[f"{start}, fine-tuned by the recipe"].append(
                trained(folder / "plain", a.recipe, tune="none", **common)["top1"]
            )
            if seed >= a.tuned:
                continue
            tuned = trained(folder / "tuned", a.recipe, tune="auto", **common)
            for one in tuned["candidates"]:
                scores[f"{start}, {one['method']}" + ", tuned" * (one["method"] == "finetune")].append(one["top1"])
            scores[f"{start}, chosen"].append(tuned["top1"])
            print(start, seed, tuned["chosen"], tuned["tuned"])
    for name, values in scores.items():
        print(f"{name:40} {_shown(values)}")
    for name in ("fine-tuned by the recipe", "chosen"):
        pairs = zip(scores[f"pretrained, {name}"], scores[f"scratch, {name}"], strict=True)
        if gains := [one - other for one, other in pairs]:
            print(f"{'gain, ' + name:40} {_shown(gains, '+')}")


def _shown(values: list[float], sign: str = "") -> str:
    return f"{with_interval(over_seeds(values)._asdict(), sign)}  {', '.join(f'{100 * v:.1f}' for v in values)}"


if __name__ == "__main__":
    with messages():
        main()
