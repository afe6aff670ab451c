"""Near-duplicates among the images of shards: found, grouped, listed and shown; the shards stay as they are."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_kit.data.index.exclusions import kept, write_exclusions, write_keep_list
from mae_kit.data.index.index import takes_files
from mae_kit.data.index.open import Index, open_index
from mae_kit.duplicates.hamming import LARGEST
from mae_kit.durable import replace_text
from mae_kit.errors import UserError
from mae_kit.parallel import Engine

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from mae_kit.duplicates.search import Found

LIST = "duplicates.jsonl"


def dedup(
    shards: Path,
    against: Path | None = None,
    encoder: Path | None = None,
    distance: int = 8,
    similarity: float = 0.98,
    out: Path | None = None,
    workers: int = 0,
    engine: Engine = "processes",
) -> dict[str, Any]:
    """Find near-duplicates, also flipped, turned, resized, recompressed and recolored ones; list all but one of each.

    Writes duplicates.jsonl beside the shards, a line for each sample that goes with what stays for it and why,
    duplicates.keep.jsonl, the samples that stay, and duplicates.html, the pairs side by side, the most doubtful first.
    The shards stay as they are: train without what goes with `--data.exclude DIR/duplicates.jsonl`; what stays is
    listed for other programs. It is the largest picture of each group.
    Pictures that differ in detail alone, such as pages of text or scans of one organ, may be taken for copies: look.
    Fingerprints and features are kept beside the shards, so that a job that was stopped goes on.

    Args:
        shards: A folder of tar shards, or a pattern such as "DIR/train-*.tar".
        against: Shards of an evaluation set; what looks like one of its images goes from SHARDS altogether.
        encoder: A pretraining run or its encoder.safetensors: images with similar features are duplicates, too.
        distance: Bits of 64 in which the perceptual hashes of two copies may differ, 0 to 11; from 9 on it takes five
            times as long.
        similarity: Cosine of the features from which on two images are copies, 0 to 1; counts with --encoder only.
        out: The list, in a folder that may be new; keep-list and page go beside it. By default beside the shards.
        workers: Shards at once that are read; 0 = one a core, of all nodes with Ray.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see the shards and ENCODER under
            the same path; pairs are searched here.

    Returns:
        Counts, and the paths of the list, the keep-list and the page.

    Raises:
        UserError: No such shards, shards held against themselves, an argument out of range, nowhere to write, or a
            library is missing.
    """
    _check(distance, similarity, out)
    index = open_index(shards)
    evaluation = open_index(against) if against else None
    if evaluation is not None:
        _must_differ(index, evaluation)
    path = out or index.folder / LIST
    _must_take_files(path.parent)
    found = _find(index, evaluation, distance, workers, engine, encoder, similarity)
    settings = {"shards": str(shards), "against": str(against) if against else None}
    settings |= {"encoder": str(encoder) if encoder else None, "distance": distance, "similarity": similarity}
    before = path.read_bytes() if path.is_file() else None
    write_exclusions(path, index, found.findings.lines(), settings | found.counts)
    keep = path.with_suffix(".keep.jsonl")
    write_keep_list(keep, index, kept(index, str(path)).rows)  # as training will read it
    shown = _show(path, found)
    _tell(found.counts)
    replaced = "" if before in (None, path.read_bytes()) else " (another list was there, and is replaced)"
    log.info(f"list: {path}{replaced}, for --data.exclude; look at the pairs: {shown}")
    return found.counts | {"list": str(path), "keep_list": str(keep), "page": str(shown)}


def _check(distance: int, similarity: float, out: Path | None) -> None:
    checks = {
        f"distance is {distance}": (f"give 0 to {LARGEST}", 0 <= distance <= LARGEST),
        f"similarity is {similarity}": ("give a number above 0, up to 1", 0 < similarity <= 1),
        f"--out {out} is no .jsonl": (f"give for example {LIST}", out is None or out.suffix == ".jsonl"),
    }
    for said, (fix, holds) in checks.items():
        if not holds:
            raise UserError("dedup.check", said, fix)


def _must_differ(index: Index, evaluation: Index) -> None:
    shared = sorted(set(index.shards) & set(evaluation.shards))
    if shared and index.folder.resolve() == evaluation.folder.resolve():
        fix = "give patterns that tell them apart, such as DIR/train-*.tar and --against DIR/val-*.tar"
        raise UserError("dedup.must_differ", f"{shared[0]} is on both sides: all of it would go", fix)


def _must_take_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not takes_files(folder):
        raise UserError(
            "dedup.must_take_files", f"{folder} takes no files", "give an --out FOLDER/NAME.jsonl that can be written"
        )


def _find(
    index: Index,
    evaluation: Index | None,
    distance: int,
    workers: int,
    engine: Engine,
    encoder: Path | None,
    similarity: float,
) -> "Found":
    """Libraries are imported here: the help does without them, and without an encoder nobody waits for torch."""
    by_features = None
    try:
        from mae_kit.duplicates.search import find

        if encoder:
            from mae_kit.duplicates.similarity import FeatureSearch

            by_features = FeatureSearch(encoder, similarity, workers, engine)
    except ModuleNotFoundError as error:
        raise UserError("dedup.find", f"dedup needs {error.name}", "pip install 'mae_kit[dedup]'") from None
    return find(index, evaluation, distance, workers, engine, by_features)


def _show(path: Path, found: "Found") -> Path:
    from mae_kit.duplicates.page import duplicates_page

    shown = path.with_suffix(".html")
    replace_text(shown, duplicates_page(found.findings, found.counts))
    return shown


def _tell(counts: dict[str, int]) -> None:
    log.info(f"{counts['samples']:,} samples, {counts['kept']:,} stay: {counts['duplicates']:,} are duplicates")
    if counts["in_evaluation"]:
        log.info(f"{counts['in_evaluation']:,} are in the evaluation set")
    if counts["label_conflicts"]:
        log.info(f"{counts['label_conflicts']:,} of {counts['groups']:,} groups have different labels")
    if counts["not_compared"]:
        log.info(f"{counts['not_compared']:,} do not decode and were not compared")
    if counts["plain"]:
        log.info(f"{counts['plain']:,} are of one color: only the same bytes count")
