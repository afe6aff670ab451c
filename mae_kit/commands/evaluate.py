"""Evaluate an encoder: frozen features by several methods, and fine-tuning."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from mae_kit.commands.report import report
from mae_kit.comparison.orchestrate import check_folder
from mae_kit.comparison.trained import Trainings, plan_trainings, train_all, training_steps
from mae_kit.console import console
from mae_kit.data.index.labels import listed_classes, must_be_apart
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.statistics import share_scale, warn_of_mismatch
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.resolve import resolve_pair, resolve_val
from mae_kit.errors import UserError
from mae_kit.evaluation.bootstrap import Score
from mae_kit.evaluation.features import CLASS, MEAN, PATCHES, FeatureSource
from mae_kit.evaluation.known import subject, with_earlier
from mae_kit.evaluation.labeled_features import FeatureSplits, feature_splits
from mae_kit.evaluation.linear_probe import linear_probe
from mae_kit.evaluation.methods import score_fewshot, score_knn, score_predictions, score_probe
from mae_kit.evaluation.number_probes import KNN as NUMBER_KNN
from mae_kit.evaluation.number_probes import PROBE as NUMBER_PROBE
from mae_kit.evaluation.number_probes import score_numbers
from mae_kit.evaluation.patch_probes import KNN, PROBE, Fit, fits, score_patches
from mae_kit.evaluation.rank import feature_statistics
from mae_kit.evaluation.untrained import untrained_encoder
from mae_kit.evaluation.verdict import MORE
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.parallel import Engine
from mae_kit.reports.evaluation import TOKENS
from mae_kit.reports.tables import frozen_table, trained_table
from mae_kit.tasks.load import load_trained, trained_kind
from mae_kit.tasks.regression import target_names
from mae_kit.training.lock import alone
from mae_kit.weights.recognize import is_encoder, load_encoder

log = logging.getLogger(__name__)

SHOTS, SEEDS = (1, 5, 10, 25), 5
K, TEMPERATURE = 20, 0.07
EPOCHS, BATCH = 90, 1024

FROZEN, PUBLISHED = "knn,fewshot,probe", "linear_probe_mae"
OF_MASKS, OF_NUMBERS = f"{KNN},{PROBE}", f"{NUMBER_KNN},{NUMBER_PROBE}"
Method = Callable[[FeatureSplits], Score]


def evaluate(
    encoder: Path,
    *,
    data: Place | None = None,
    train: Place | None = None,
    val: Place | None = None,
    methods: str | list[str] | None = None,
    layers: list[int] | None = None,
    attentive: str | None = None,
    finetune: str | None = None,
    untrained: bool = False,
    out: Path | None = None,
    seed: int = 0,
    workers: int = 0,
    engine: Engine = "processes",
    pack: bool = True,
) -> dict[str, Any]:
    """Evaluate an encoder: frozen, by kNN, few-shot ridge regression and a linear probe; optionally by fine-tuning.

    Frozen features come from the center crop of each image, without augmentation. They are cached next to the shards,
    in folders .features-* that may be deleted, so that an interrupted evaluation resumes and the next one takes
    seconds. The attentive probe and fine-tuning are runs of `mae-kit finetune` inside OUT, which also resume.

    Args:
        encoder: A run, any encoder file or folder that `mae-kit import` reads, or timm:NAME. For a fine-tuning run, its
            classifier, segmenter, detector or regressor is scored: on the validation split of --data, or on all of it
            if there are no splits (for a plain folder, on the tenth that `finetune` holds out); or on all of --val.
        data: Labeled images: what `mae-kit shard` made, with train and val splits; a plain folder; or a URL.
        train: Labeled shards to fit on, in place of the train split of --data: a folder, or a pattern such as
            "DIR/train-*.tar".
        val: Labeled shards, or a plain folder, to score on, in place of the val split of --data.
        methods: Methods, separated by commas. knn = weighted vote of the 20 nearest neighbors (temperature .07).
            fewshot = ridge regression on 1, 5, 10 and 25 images per class, five draws (big_vision). probe = a linear
            layer on cached features, LARS, 90 epochs, batches of 1,024, learning rate chosen on a tenth of the training
            images. linear_probe_mae = MAE's published linear probe, with random crops and flips, so that each of its 90
            epochs runs the encoder. patch_knn, patch_probe = kNN and a linear probe on patch tokens, for images with
            masks: fitted on 65,536 patches drawn from all training images, scored by mean IoU on whole images.
            number_knn, number_probe = kNN and ridge regression on the features of whole images with numbers, its
            penalty chosen by leave-one-out, scored by R2. By default knn,fewshot,probe; those for masks or numbers
            where images have them; none where they have only boxes.
        layers: Blocks of a ViT, or stages of a Swin, whose features are scored, for example 6,12; by default the last.
        attentive: Also train an attentive probe, which pools the patch tokens of the frozen ViT, with this recipe, for
            example attentive_tiny_64px; with a recipe for masks or boxes, train its head on the frozen encoder.
        finetune: Also fine-tune the encoder, with this recipe, for example vit_tiny_64px.
        untrained: Score the same architecture with random weights instead, as a baseline.
        out: Folder for evaluation.json, report.html and runs; by default the run. Nothing is written where ENCODER is
            not a run and no folder is given.
        seed: Seed of the probes, fine-tuning and random weights.
        workers: Processes; 0 = one per core. With a GPU they only decode, and 0 = up to 8.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see the shards and ENCODER (a
            run) under the same paths.
        pack: Pack a plain folder of images into shards in the user's cache, once; `--no-pack` refuses such a folder.

    Returns:
        `scores`: for each method, layer and token (mean of the patch tokens, class token) top-1 (`map`, mean average
        precision, for multi-label data; `miou` for masks; `r2` for numbers) and macro-F1, in [0, 1], with 95%
        intervals, and `of_classes` with the scores of each class; null where a class has too few labels. `extents`:
        rank and relative variance of the features. `trained`: the score of each training run, or its error; `failed`:
        how many have one.
        evaluation.json and the report also keep earlier scores of the same weights and images.

    Raises:
        UserError: No encoder, no such layer, no shards, no labels, different classes in train and val, no such recipe
            or method, no folder for training runs, or a file in its place, or another process is using the folder.
    """
    if not untrained and trained_kind(encoder) and not is_encoder(encoder):
        own, other = (None if place is None else str(place) for place in (data, val))
        return _score_trained(encoder, resolve_val(own, other, pack))
    given = str(train or data), str(val or data)
    train, val = _splits(data, train, val, pack)
    asked = [] if methods is None else _names(methods)
    trainings = plan_trainings(attentive, finetune)
    folder = _folder(encoder, out, trainings)
    file = _file(folder, untrained) if folder else None
    place = file.with_suffix("") if file and trainings else None
    with alone(place) if place else nullcontext():
        loaded = untrained_encoder(encoder, seed) if untrained else load_encoder(encoder)
        indexes = open_index(train), open_index(val)
        share_scale(loaded.pretrained_cfg.scale, *indexes, bands=loaded.pretrained_cfg.bands)
        must_be_apart(*indexes, given)
        about = subject(loaded, *indexes) if folder else {}
        own = None if untrained else encoder
        steps = training_steps(trainings, loaded, own, train, val, about["fingerprints"], seed, place) if place else {}
        names = asked or _usual(indexes, trainings)
        if of_masks := fits(names, K, TEMPERATURE, EPOCHS, BATCH, seed):
            found = _score_masks(loaded, indexes, of_masks, layers or (), (str(train), str(val)))
        elif set(names) & set(OF_NUMBERS.split(",")):
            found = _score_numbers(loaded, indexes, names, layers or (), (str(train), str(val)))
        elif not names:
            found = {"scores": [], "extents": []}
        else:
            splits = feature_splits(loaded, *indexes, layers or (), workers, engine, (str(train), str(val)))
            more = [_linear_probe(loaded, indexes, splits, seed)] if PUBLISHED in names else []
            found = {**_score(splits, _methods(names, seed), more), "extents": _statistics(splits)}
        result = {"encoder": str(encoder), **about, **found, "trained": []}
        page = _keep(result, file) if file else {}
        if file and steps:
            result["trained"] = train_all(steps)
            _print_trained(result["trained"])
            page = _keep(result, file)
    return result | page | {"failed": sum("error" in one for one in result["trained"])}


def _splits(data: Place | None, train: Place | None, val: Place | None, pack: bool) -> tuple[Place, Place]:
    """Where to fit and where to score."""
    if data is not None and train is None:
        return resolve_pair(str(data), None if val is None else str(val), pack)
    if train is None or val is None:
        raise UserError(
            "data.missing", "no labeled images are given", "add --data DATA, or --train SHARDS --val SHARDS"
        )
    return train, val


def _score_trained(run: Path, val: Place) -> dict[str, Any]:
    """The scores of a model that fine-tuning has written, with intervals."""
    trained = load_trained(run)
    found = trained.held_out(open_index(val), str(val))
    row = {"method": trained.kind, **found.score().record(trained.config.classes)}
    console.print(trained_table([row]))
    log.info(f"scored on {found.samples:,} images of {val}")
    return {"encoder": str(run), "val": found.samples, "scores": [row], "failed": 0}


def _linear_probe(
    encoder: Any, indexes: tuple[Index, Index], splits: dict[FeatureSource, FeatureSplits], seed: int
) -> dict[str, Any]:
    """The row of MAE's linear probe."""
    classes = next(iter(splits.values())).classes
    found, truth = linear_probe(encoder, *indexes, len(classes), seed=seed)
    score = score_predictions(found[None], truth, len(classes))
    source = FeatureSource(encoder.depth, CLASS if encoder.has_class_token else MEAN)
    return {"method": PUBLISHED, **source._asdict(), **score.record(classes)}


def _folder(encoder: Path, out: Path | None, trainings: Trainings) -> Path | None:
    """Where results go: by default into the run."""
    folder = out or (encoder if RunFolder(encoder).config.is_file() else None)
    if trainings and not folder:
        raise UserError(
            "out.needed", f"{encoder} is not a run, and no folder is given for the training runs", "add --out DIR"
        )
    if folder:
        check_folder(folder)
    return folder


def _file(folder: Path, untrained: bool) -> Path:
    run = RunFolder(folder)
    return run.untrained_evaluation if untrained else run.evaluation


def _keep(result: dict[str, Any], file: Path) -> dict[str, Any]:
    """Write what is known so far, and the page of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, json.dumps(with_earlier(result, file), indent=2))
    return report(file.parent)


def _names(methods: str | list[str]) -> list[str]:
    """The methods that are asked for.

    Raises:
        UserError: There is no such method, or some score masks and others labels.
    """
    names = ",".join([methods] if isinstance(methods, str) else methods).split(",")
    kinds = [*FROZEN.split(","), PUBLISHED], OF_MASKS.split(","), OF_NUMBERS.split(",")
    known = [name for kind in kinds for name in kind]
    if unknown := [name for name in names if name not in known]:
        raise UserError("methods", f"no method {', '.join(unknown)}", f"choose among {', '.join(known)}")
    if not any(set(names) <= set(kind) for kind in kinds):
        what = f"{OF_MASKS} score masks, {OF_NUMBERS} numbers, the other methods labels of whole images"
        raise UserError("methods.mixed", what, "give those of one kind")
    return names


def _usual(indexes: tuple[Index, Index], trainings: Trainings) -> list[str]:
    """The methods for what images have.

    Raises:
        UserError: They have only boxes, and nothing is to be trained.
    """
    if all(len(index.masked()) for index in indexes):
        return _names(OF_MASKS)
    if all(len(index.targeted()) for index in indexes):
        return _names(OF_NUMBERS)
    if not all(len(index.boxed()) for index in indexes) or any(len(index.labeled()) for index in indexes):
        return _names(FROZEN)
    if not trainings:
        fix = "give --attentive or --finetune RECIPE, such as detr_tiny_272px"
        raise UserError("methods.boxes", "images have boxes, which a detector has to be trained for", fix)
    return []


def _methods(names: list[str], seed: int) -> dict[str, Method]:
    """The scoring functions, with the settings of the literature."""
    known: dict[str, dict[str, Method]] = {
        "knn": {"knn": partial(score_knn, k=K, temperature=TEMPERATURE)},
        "fewshot": {f"fewshot {shots}": partial(score_fewshot, shots=shots, seeds=SEEDS) for shots in SHOTS},
        "probe": {"probe": partial(score_probe, epochs=EPOCHS, batch_size=BATCH, seed=seed)},
    }
    return {name: method for asked in names for name, method in known.get(asked, {}).items()}


def _score(
    splits: dict[FeatureSource, FeatureSplits], methods: dict[str, Method], more: list[dict[str, Any]]
) -> dict[str, Any]:
    """Apply every method to every source of features, and print the table, with more rows."""
    scores = [
        {"method": name, **source._asdict(), **method(split).record(split.classes)}
        for name, method in methods.items()
        for source, split in splits.items()
    ] + more
    one = next(iter(splits.values()))
    return _told(scores, (len(one.train.labels), len(one.val.labels)), one.classes)


def _score_masks(
    encoder: Any, indexes: tuple[Index, Index], methods: dict[str, Fit], layers: Sequence[int], names: tuple[str, str]
) -> dict[str, Any]:
    """Apply every method to the patch tokens of every layer, and print the table."""
    classes = listed_classes(*indexes, names, "masks")
    known = encoder.pretrained_cfg
    warn_of_mismatch((known.mean, known.std), indexes[0], "the encoder normalizes with")
    scores = [
        {"method": method, "layer": layer, "token": PATCHES, **found.score().record(classes)}
        for (method, layer), found in score_patches(encoder, *indexes, methods, layers).items()
    ]
    return _told(scores, [len(index.masked()) for index in indexes], classes)


def _score_numbers(
    encoder: Any, indexes: tuple[Index, Index], methods: list[str], layers: Sequence[int], names: tuple[str, str]
) -> dict[str, Any]:
    """Apply every method to the features of every layer, and print the table."""
    targets = target_names(*indexes, names)
    known = encoder.pretrained_cfg
    warn_of_mismatch((known.mean, known.std), indexes[0], "the encoder normalizes with")
    found = score_numbers(encoder, *indexes, methods, layers, K, TEMPERATURE)
    rows = [
        {"method": method, **source._asdict(), **one.score().record(targets)} for (method, source), one in found.items()
    ]
    return _told(rows, [len(index.targeted()) for index in indexes], targets, f"numbers: {', '.join(targets)}")


def _told(
    scores: list[dict[str, Any]], images: Sequence[int], labels: Sequence[str], kind: str = "classes"
) -> dict[str, Any]:
    """The part of the result that all methods have; prints the table, and how many images it is of."""
    train, val = images
    console.print(frozen_table(scores))
    log.info(f"{train:,} training images, {val:,} validation images, {len(labels)} {kind}")
    return {"train": train, "val": val, "classes": len(labels), "scores": scores, "extents": []}


def _statistics(splits: dict[FeatureSource, FeatureSplits]) -> list[dict[str, Any]]:
    """Rank and relative variance of each source, printed; collapsed features are warned about."""
    found = {source: feature_statistics(split.train.features) for source, split in splits.items()}
    for source, one in found.items():
        what = f"layer {source.layer}, {TOKENS[source.token]}"
        log.info(f"{what}: effective rank {one.rank:.1f} of {one.dim}, relative variance {one.spread:.2g}")
        if one.collapsed:
            log.warning(f"warning: {what}: the features have collapsed; the scores above are not meaningful")
        if one.narrow:
            log.warning(f"warning: {what}: the features use few of their dimensions: {MORE}")
    return [source._asdict() | one._asdict() for source, one in found.items()]


def _print_trained(records: list[dict[str, Any]]) -> None:
    console.print(trained_table(records))
    for record in records:
        if "error" in record:
            log.warning(f"{record['method']} failed: {record['error']}")
