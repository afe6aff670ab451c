"""`mae-kit index`: index shards and name every damaged one."""

import logging
from collections import defaultdict
from typing import Any

from mae_kit.data.index.open import Made, make_index
from mae_kit.data.index.samples import Problem
from mae_kit.data.remote.filesystem import Place
from mae_kit.parallel import Engine

log = logging.getLogger(__name__)

_EXAMPLES = 5


def index(folder: Place, workers: int = 0, engine: Engine = "processes") -> dict[str, Any]:
    """Index webdataset tars (offset, checksum, label and size of each sample) and list damaged or suspicious ones.

    It reads every shard, extracts nothing, and saves `index.safetensors` next to the shards (in the user's cache where
    that folder is read-only). After an interruption, repeat the command: it reads only what is not indexed yet or has
    changed since. Training indexes shards by itself on first use.

    Args:
        folder: A folder of tars, or a pattern in a folder such as `DIR/train-*.tar`.
        workers: Shards read at once; 0 = one per core.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see FOLDER under the same path:
            the cluster at RAY_ADDRESS, else the one this machine belongs to, else this machine alone.

    Returns:
        How many shards, samples, labels and problems there are, the path of the index, and how long it took.

    Raises:
        UserError: No folder, no shard that can be read, no room for the index, or a URL.
    """
    counts = _counts(make_index(folder, workers, engine))
    _tell(counts)
    return counts


def _counts(made: Made) -> dict[str, Any]:
    part, groups = made.index, defaultdict[str, list[Problem]](list)
    for problem in [*part.problems, *made.problems]:
        groups[problem.kind].append(problem)
    return {
        "folder": str(part.folder),
        "shards": len(part.shards),
        "samples": len(part),
        "labeled": len(part.labeled()),
        "masked": len(part.masked()),
        "classes": part.classes,
        "problems": [
            {
                "reason": kind,
                "count": len(group),
                "shards": sorted({problem.shard for problem in group}),
                "where": [problem._asdict() for problem in group],
            }
            for kind, group in groups.items()
        ],
        "index": str(made.path),
        "seconds": made.seconds,
        "megabytes_per_second": made.megabytes / made.seconds,
    }


def _tell(counts: dict[str, Any]) -> None:
    classes = f", {len(counts['classes'])} classes" if counts["classes"] else ""
    labels = f"{counts['masked']:,} with masks" if counts["masked"] else f"{counts['labeled']:,} labeled"
    log.info(f"{counts['shards']:,} shards, {counts['samples']:,} samples, {labels}{classes}")
    for group in counts["problems"]:
        log.info(f"{group['count']:,} x {group['reason']}, in {len(group['shards'])} of the shards:")
        for problem in group["where"][:_EXAMPLES]:
            key = f", key {problem['key']}" if problem["key"] else ""
            log.info(f"    {problem['shard']} at byte {problem['offset']}{key}: {problem['reason']}")
        if len(group["where"]) > _EXAMPLES:
            log.info(f"    and {len(group['where']) - _EXAMPLES:,} more, all of them with --json")
    log.info(f"{counts['megabytes_per_second']:,.0f} MB/s, saved to {counts['index']}")
