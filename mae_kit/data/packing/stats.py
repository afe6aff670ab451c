"""What was packed: counts a split and a class, and the channel statistics, from the records of the shards."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mae_kit.data.packing.bands import BandStatistics, band_statistics, faults, find_scale
from mae_kit.data.packing.deep import Depth
from mae_kit.data.packing.plan import PackSettings
from mae_kit.data.scale import Scale

SKIPPED = "skipped.jsonl"
_SHOWN = 20  # classes, of any number
NONE = -1  # stands for the class of images without label


def split_stats(split: str, records: dict[str, dict[str, Any]], classes: list[str] | None) -> dict[str, Any]:
    parts = [record for name, record in records.items() if name.startswith(split) and record["images"]]
    labels: Counter[int] = Counter()
    for record in parts:
        labels.update({int(label): count for label, count in record["labels"].items()})
    counts = {classes[i] if classes else str(i): labels[i] for i in sorted(labels) if i >= 0}
    return {
        "shards": len(parts),
        "images": sum(record["images"] for record in parts),
        "bytes": sum(record["bytes"] for record in parts),
        "without_label": labels[NONE],
        "classes": counts,
    }


def channel_stats(records: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, 0..1, over the train shards in their order."""
    parts = [record for name, record in records.items() if name.startswith("train")]
    images = max(sum(record["images"] for record in parts), 1)
    mean = np.sum([record["moments"]["value"] for record in parts], axis=0) / images
    square = np.sum([record["moments"]["square"] for record in parts], axis=0) / images
    return {"mean": mean.tolist(), "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist()}


def deep_stats(records: dict[str, dict[str, Any]], settings: PackSettings, depth: Depth) -> dict[str, Any]:
    """Of images of more than 8 bits: statistics of each band, their scale, and mean and std of what it makes of them.

    Raises:
        UserError: As `find_scale`.
    """
    parts = [record["bands"] for name, record in records.items() if name.startswith("train") and record["images"]]
    found, spreads = band_statistics(parts)
    kept = {"kind": depth.kind, "nodata": depth.nodata, "chosen": list(settings.bands), "names": depth.names}
    scale = find_scale(found, settings.method, settings.ends, **kept)
    moments = [spread.moments(*ends) for spread, *ends in zip(spreads, scale.low, scale.high, strict=True)]
    mean, std = zip(*moments, strict=True)
    return {"mean": list(mean), "std": list(std), "bands": found._asdict(), "scale": asdict(scale)}


def box_stats(records: dict[str, dict[str, Any]]) -> dict[str, int]:
    """How many objects there are, what became of boxes, and how many images show none or the most."""
    total: Counter[str] = Counter()
    for record in records.values():
        most = max(total["most"], record["boxes"].get("most", 0))
        total.update(record["boxes"])
        total["most"] = most
    return dict(total)


def _box_lines(boxes: dict[str, int]) -> list[str]:
    lines = [f"objects: {boxes.get('objects', 0):,}, at most {boxes.get('most', 0):,} in an image"]
    told = {
        "background": "images show no object: they are background examples",
        "clipped": "boxes reached out of their image and were clipped",
        "empty": "boxes without area, or outside of their image, were left out",
        "unknown": "boxes of a class without a name were left out",
        "crowd": "boxes are crowd annotations: neither trained on nor scored",
    }
    return lines + [f"{boxes[name]:,} {what}" for name, what in told.items() if boxes.get(name)]


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _lost_classes(splits: dict[str, Any]) -> list[str]:
    """A small set may by chance leave a class without an image to train on, or to be scored on."""
    lines = []
    for split, other in (("train", "val"), ("val", "train")):
        lost = [name for name in splits[other]["classes"] if name not in splits[split]["classes"]]
        if lost and splits[split]["images"]:
            lines.append(f"classes without an image in {split}: {_shortened(lost)}")
    return lines


def summary(out: Path, stats: dict[str, Any]) -> list[str]:
    """Lines that tell a person what was packed."""
    lines = [
        f"{split}: {part['images']:,} images in {part['shards']} shards, {megabytes(part['bytes'])}"
        for split, part in stats["splits"].items()
        if part["images"]
    ]
    counts = stats["splits"]["train"]["classes"]
    if counts:
        lines.append(f"classes in train: {_shortened([f'{name} {count:,}' for name, count in counts.items()])}")
        lines += _lost_classes(stats["splits"])
        unlabeled = {split: part["without_label"] for split, part in stats["splits"].items()}
        lines += [f"images without a label in {split}: {count:,}" for split, count in unlabeled.items() if count]
    lines += _box_lines(stats["boxes"]) if "boxes" in stats else []
    values = [" ".join(f"{value:.4f}" for value in stats[name]) for name in ("mean", "std")]
    lines.append(f"channel mean {values[0]}, std {values[1]}")
    lines += _of_bands(stats) if "bands" in stats else []
    if stats["skipped"]:
        lines.append(f"left out, whole or in part: {stats['skipped']:,}, listed with reasons in {out / SKIPPED}")
        lines += [f"  {count:,} x {reason}" for reason, count in list(stats["reasons"].items())[:5]]
    return lines


def _of_bands(stats: dict[str, Any]) -> list[str]:
    found, scale = BandStatistics(**stats["bands"]), Scale.of(stats["scale"])
    names = [f" ({name})" for name in scale.names] or [""] * scale.bands
    rows = zip(found.mean, found.std, scale.low, scale.high, found.nodata, strict=True)
    lines = [
        f"band {number}{named} of {scale.kind}: mean {mean:,.6g}, std {std:,.6g}; {low:,.6g} becomes 0 and {high:,.6g} "
        f"becomes 1 (--scale {scale.method})" + f"; {share:.1%} without data" * (share > 0)
        for number, (named, (mean, std, low, high, share)) in enumerate(zip(names, rows, strict=True), 1)
    ]
    return lines[:_SHOWN] + [f"... and {len(lines) - _SHOWN} more bands"] * (len(lines) > _SHOWN) + faults(found)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
