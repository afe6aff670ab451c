"""files.csv, which packing writes next to the shards: the file that each sample was."""

import csv
import io
import logging
from collections.abc import Iterable
from pathlib import Path

from mae_kit.files.durable import replace_text
from mae_kit.inert import cell, uncell

log = logging.getLogger(__name__)

FILE = "files.csv"
COLUMNS = ("shard", "key", "file")

FileNames = dict[tuple[str, str], str]
"""By shard and key the path of the file, below the folder that was packed."""


def write_file_names(folder: Path, samples: Iterable[tuple[str, str, str]]) -> None:
    """Write shard, key and file of each sample; what a spreadsheet would obey is marked."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(COLUMNS)
    for shard, key, file in samples:
        rows.writerow((shard, cell(key), cell(file)))
    replace_text(folder / FILE, buffer.getvalue())


def read_file_names(folder: Path) -> FileNames:
    """Read the names of a folder of shards; empty where they are unknown."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            head, *rows = csv.reader(stream)
        if tuple(head) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        return {(shard, uncell(key)): uncell(file) for shard, key, file in rows}
    except (OSError, ValueError, csv.Error) as error:
        log.warning(f"{path} is not used: {error}")
        return {}
