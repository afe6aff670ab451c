"""`mae-kit dedup`: find near-duplicates among the images of shards, list and show them; the shards stay unchanged."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_kit.data.index.exclusions import kept, write_exclusions, write_keep_list
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.resolve import resolve
from mae_kit.duplicates.hamming import LARGEST
from mae_kit.errors import UserError
from mae_kit.files.durable import must_take_files, replace_text
from mae_kit.parallel import Engine

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from mae_kit.duplicates.findings import Findings

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
    pack: bool = True,
) -> dict[str, Any]:
    """Find near-duplicates, including flipped, rotated, resized, recompressed and recolored ones; keep one of each.

    Next to the shards it writes duplicates.jsonl (a line for each removed sample, with the one kept in its place and
    the evidence), duplicates.keep.jsonl (the samples that are kept) and duplicates.html (the pairs side by side, the
    most doubtful first). The largest image of each group is kept. The shards stay unchanged: to train without the
    removed samples, pass `--data.exclude DIR/duplicates.jsonl`. Images that differ only in details, such as pages of
    text or scans of one organ, may be taken for duplicates: check the page. Fingerprints and features are stored next
    to the shards, so that an interrupted job resumes.

    Args:
        shards: A folder of tar shards, a pattern such as "DIR/train-*.tar", or a folder of images.
        against: Shards of an evaluation set; all samples of SHARDS that look like one of its images are removed.
        encoder: A run, or any encoder that `mae-kit import` reads: images with similar features are duplicates, too.
        distance: Maximum number of bits in which the 64-bit perceptual hashes of duplicates differ, 0 to 11; from 9 on,
            the search takes five times as long.
        similarity: Minimum cosine similarity of the features of duplicates, 0 to 1; used only with --encoder.
        out: Path of the list, FOLDER/NAME.jsonl; the keep list and the page go next to it. By default in the folder of
            the shards; for a plain folder of images, in the working directory.
        workers: Shards read at once; 0 = one per core; with Ray, of all nodes.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see the shards and ENCODER under
            the same paths; the search for pairs runs on this machine.
        pack: Pack a plain folder of images into shards in the user's cache, once; `--no-pack` refuses such a folder.

    Returns:
        Counts, and the paths of the list, the keep-list and the page.

    Raises:
        UserError: No such shards, shards compared with themselves, no image that can be decoded, an argument out of
            range, a folder that cannot be written, or a missing library.
    """
    _check(distance, similarity, out)
    place = resolve(str(shards), "all", pack)
    index = open_index(place)
    evaluation = open_index(resolve(str(against), "all", pack)) if against else None
    if evaluation is not None:
        _check_different(index, evaluation)
    path = out or (index.folder if place == str(shards) else Path()) / LIST
    must_take_files(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = _find(index, evaluation, distance, workers, engine, encoder, similarity)
    counts = found.counts()
    settings = {"shards": str(shards), "against": str(against) if against else None}
    settings |= {"encoder": str(encoder) if encoder else None, "distance": distance, "similarity": similarity}
    before = path.read_bytes() if path.is_file() else None
    write_exclusions(path, index, found.lines(), settings | counts)
    keep = path.with_suffix(".keep.jsonl")
    write_keep_list(keep, index, kept(index, str(path)).rows)  # as training will read it
    shown = _write_page(path, found, counts)
    _report(counts)
    replaced = "" if before in (None, path.read_bytes()) else " (replaces another list)"
    log.info(f"list for --data.exclude: {path}{replaced}; look at the pairs: {shown}")
    return counts | {"list": str(path), "keep_list": str(keep), "page": str(shown)}


def _check(distance: int, similarity: float, out: Path | None) -> None:
    checks = {
        "distance": (f"distance is {distance}", f"give 0 to {LARGEST}", 0 <= distance <= LARGEST),
        "similarity": (f"similarity is {similarity}", "give a number above 0, up to 1", 0 < similarity <= 1),
        "out": (f"--out {out} is not a .jsonl file", f"give, e.g., {LIST}", out is None or out.suffix == ".jsonl"),
    }
    for key, (problem, fix, holds) in checks.items():
        if not holds:
            raise UserError(f"dedup.{key}", problem, fix)


def _check_different(index: Index, evaluation: Index) -> None:
    shared = sorted(set(index.shards) & set(evaluation.shards))
    if shared and index.folder.resolve() == evaluation.folder.resolve():
        fix = "give patterns that separate them, such as DIR/train-*.tar and --against DIR/val-*.tar"
        raise UserError("dedup.against", f"{shared[0]} is on both sides: all of it would be removed", fix)


def _find(
    index: Index,
    evaluation: Index | None,
    distance: int,
    workers: int,
    engine: Engine,
    encoder: Path | None,
    similarity: float,
) -> "Findings":
    """Import libraries here: --help does without them, and without an encoder torch is not needed."""
    by_features = None
    try:
        from mae_kit.duplicates.findings import find

        if encoder:
            from mae_kit.duplicates.similarity import FeatureSearch

            by_features = FeatureSearch(encoder, similarity, workers, engine)
    except ModuleNotFoundError as error:
        raise UserError("dedup.library", f"dedup needs {error.name}", "pip install 'mae_kit[dedup]'") from None
    return find(index, evaluation, distance, workers, engine, by_features)


def _write_page(path: Path, found: "Findings", counts: dict[str, int]) -> Path:
    from mae_kit.duplicates.page import duplicates_page

    shown = path.with_suffix(".html")
    replace_text(shown, duplicates_page(found, counts))
    return shown


def _report(counts: dict[str, int]) -> None:
    log.info(f"{counts['samples']:,} samples, {counts['kept']:,} kept: {counts['duplicates']:,} are duplicates")
    if counts["in_evaluation"]:
        log.info(f"{counts['in_evaluation']:,} are in the evaluation set")
    if counts["label_conflicts"]:
        log.info(f"{counts['label_conflicts']:,} of {counts['groups']:,} groups have different labels")
    if counts["not_compared"]:
        log.warning(f"{counts['not_compared']:,} cannot be decoded and were not compared")
    if counts["plain"]:
        log.info(f"{counts['plain']:,} have a single color: only identical files are duplicates")
