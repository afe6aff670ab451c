"""Measure the speed figures of README and docs/results.md, as ratios with quartiles, on made images: `make bench`.

python tests/benchmarks/speed.py --out bench.md
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from command import run
from made import make_shards

HERE = Path(__file__).parent
HEAD = "| what | way | images/s | the first is faster by (quartiles) | in core-seconds by |\n|---|---|---|---|---|"
COUNT = 1024  # photos for the steps


def speed(
    out: Path = Path("bench.md"), steps: int = 8, photos: int = COUNT, only: list[str] | None = None
) -> dict[str, Any]:
    """Run the benchmarks of steps, decoding and starting, one after the other, and write one table.

    Args:
        out: The file for it.
        steps: Measured turns of each.
        photos: How many are made.
        only: Files of benchmarks, without `.py`; by default all.

    Returns:
        What each benchmark returned, and `minutes`.
    """
    started, found = time.monotonic(), {}
    with TemporaryDirectory() as folder:
        shards = str(make_shards(Path(folder), photos, 112, 112))
        for name, (file, *words) in _benchmarks(shards, steps):
            if only is None or file in only:
                print(f"{name} ...", flush=True)
                found[name] = _run(file, words)
    lines = [line for name, result in found.items() for line in _lines(name, result)]
    out.write_text("\n".join([HEAD, *lines, ""]))
    print(out.read_text())
    return found | {"minutes": (time.monotonic() - started) / 60}


def _benchmarks(shards: str, steps: int) -> Iterator[tuple[str, list[str]]]:
    yield "a step of ViT-Ti/8 at 64 px", ["against_transformers", "--task.shards", shards, f"--steps={steps}"]
    recipes = ["mae_vit_tiny_64px", "cross_mae_vit_tiny_64px"]
    yield "a step of MAE and of CrossMAE", ["recipes", *recipes, f"--steps={steps}"]
    yield "a step on all cores", ["devices", recipes[0], f"--steps={steps}"]
    yield "decode and crop", ["decode", f"--rounds={2 * steps}"]
    yield "decode more than 8 bits", ["deep_formats"]
    yield "start", ["startup", shards, "--times=3"]


def _run(file: str, words: list[str]) -> dict[str, Any]:
    command = [sys.executable, HERE / f"{file}.py", *words, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def _lines(name: str, result: dict[str, Any]) -> Iterator[str]:
    """Rows of the table: of ways that took turns, by what they did; of others, seconds."""
    tables = {key: rows for key, rows in result.items() if isinstance(rows, list) and isinstance(rows[0], dict)}
    for key, rows in tables.items():
        what = name if key == "rows" else f"{name}, {key}"
        for row in rows:
            (low, ratio, high), cores = row["ratio"], row["core_ratio"][1]
            pace = f"{row['images_per_second'][1]:,.1f}"
            yield f"| {what} | {row['name']} | {pace} | {ratio:.2f} ({low:.2f} to {high:.2f}) | {cores:.2f} |"
    if not tables:
        for what, (seconds, cores) in result["seconds"].items():
            yield f"| {name} | {what} | | {seconds:.2f} s | {cores:.2f} s |"


if __name__ == "__main__":
    run(speed)
