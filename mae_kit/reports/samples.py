"""The images that training could not read, and why."""

from collections import Counter

from mae_kit.reports.html import folded, section, table, text_row
from mae_kit.training.metrics import Row

SHOWN = 50


def bad_samples(samples: list[Row]) -> str:
    if not samples:
        return ""
    names = ("shard", "key", "offset", "reason")
    shown = samples[:SHOWN]
    rows = "".join(text_row(tuple(str(sample.get(name, "")) for name in names)) for sample in shown)
    reason = Counter(str(sample.get("reason", "")) for sample in samples).most_common(1)[0][0]
    more = f"; the first {SHOWN} are here" if len(samples) > SHOWN else ""
    about = f"{len(samples):,} listed in quarantine.jsonl, most often: {reason}{more}"
    return section("Bad samples", folded(about, table(tuple(name.capitalize() for name in names), rows)))
