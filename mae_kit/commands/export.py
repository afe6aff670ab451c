"""Export weights for other programs."""

import io
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.files.durable import filling, is_unfinished, replace_text, replacing
from mae_kit.files.tensor_file import CLASSIFIER
from mae_kit.reports.model_card import write_card
from mae_kit.tasks.load import load_trained, trained_kind
from mae_kit.weights import beit, huggingface, original
from mae_kit.weights import timm as timm_folder
from mae_kit.weights.files import write_raw
from mae_kit.weights.onnx import RECORD, Graph, graph_of, save_onnx, save_torch
from mae_kit.weights.preprocessor import write_preprocessor
from mae_kit.weights.pretrained import Pretrained, is_plain_vit
from mae_kit.weights.recognize import read_pretrained

log = logging.getLogger(__name__)

Format = Literal["timm", "vit_mae", "vit", "original", "yolos", "detr", "onnx", "pt2"]
_OF_VITS = ("vit_mae", "vit", "original")
_FIX = "give --format timm, onnx or pt2"


def export(
    run: Path, out: Path | None = None, format: Format = "timm", hub_dir: Path | None = None, license: str = "other"
) -> dict[str, Any]:
    """Write a model in another program's format: an encoder, with its decoder or head if the format has a place for
    them, or, as onnx or pt2, a segmenter, regressor or detector.

    Args:
        run: A run, one of its files, or any file or folder that `mae-kit import` reads.
        out: Folder to write.
        format: timm (config.json and safetensors), vit_mae and vit (transformers), original (the MAE code's .pth),
            yolos and detr (detectors, transformers), onnx, or pt2 (torch.export).
        hub_dir: Folder to write in place of --out, with a model card: ready for upload to the Hugging Face Hub.
        license: License of the weights for the model card, as the Hub's identifier, for example apache-2.0 or
            cc-by-nc-4.0.

    Returns:
        Folder, its files, and what was exported.

    Raises:
        UserError: The weights are of no known kind, or the format has no place for them.
    """
    folder = _one_of(out, hub_dir)
    if folder.is_dir() and any(folder.iterdir()) and not is_unfinished(folder):
        raise UserError("out.not_empty", f"{folder} is not empty", "choose another folder")
    if (kind := trained_kind(run)) not in ("", CLASSIFIER.name):
        write = _task_writer(run, kind, format, hub_dir)
    else:
        kind, write = _writer(run, format, hub_dir, license)
    with filling(folder) as making:
        write(making)
        files = sorted(path.name for path in making.iterdir())
    log.info(f"{folder}: {kind}, as {format}: {', '.join(files)}")
    return {"folder": str(folder), "format": format, "kind": kind, "files": files}


def _one_of(out: Path | None, hub_dir: Path | None) -> Path:
    if (folder := out or hub_dir) is None or (out and hub_dir):
        raise UserError("out.one", "exactly one output folder is needed", "give either --out DIR or --hub-dir DIR")
    return folder


def _writer(run: Path, format: Format, hub_dir: Path | None, license: str) -> tuple[str, Callable[[Path], None]]:
    """What an encoder or classifier is, and what writes it."""
    weights = read_pretrained(run)
    if format not in WRITERS:
        raise UserError("format.detector", f"the format {format} holds a detector, not a {weights.kind}", _FIX)
    if format in _OF_VITS and not is_plain_vit(weights):
        raise UserError("format.family", f"the format {format} cannot hold {weights.config.model}", _FIX)

    def write(folder: Path) -> None:
        WRITERS[format](folder, weights)
        if hub_dir:
            write_card(folder, hub_dir.resolve().name, run, weights, format, license)

    return weights.kind, write


def _task_writer(run: Path, kind: str, format: Format, hub_dir: Path | None) -> Callable[[Path], None]:
    """What writes a segmenter, regressor or detector."""
    if hub_dir:
        raise UserError("hub_dir", f"there is no model card for a {kind}", "give --out DIR")
    trained = load_trained(run)
    if format == trained.layout:
        written = trained.published()
        return lambda folder: write_raw(folder, *written)
    if format not in GRAPHS:
        fix = f"give --format {f'{trained.layout}, ' * bool(trained.layout)}onnx or pt2"
        raise UserError("format.task", f"the format {format} cannot hold this {kind}", fix)
    graph = trained.graph()
    return lambda folder: GRAPHS[format](folder, graph)


def _timm(folder: Path, weights: Pretrained) -> None:
    write_raw(folder, *timm_folder.write(weights))


def _vit_mae(folder: Path, weights: Pretrained) -> None:
    _write_transformers(folder, weights, *huggingface.write_mae(weights))


def _vit(folder: Path, weights: Pretrained) -> None:
    mean_pooled = weights.config.model_args.get("global_pool") == "avg"
    written = beit.write_mean_pooled(weights) if mean_pooled else huggingface.write_vit(weights)
    _write_transformers(folder, weights, *written)


def _write_transformers(folder: Path, weights: Pretrained, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    write_raw(folder, config, tensors, write_preprocessor(weights.config, pair(config["image_size"])))


def _original(folder: Path, weights: Pretrained) -> None:
    content = {"model": original.write(weights), "args": original.settings(weights)}
    _at_once(folder / "model.pth", lambda file: torch.save(content, file))


def _onnx(folder: Path, graph: Graph) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as making:
        save_onnx(graph, Path(making) / "model.onnx")
        for file in sorted(Path(making).iterdir(), reverse=True):  # model.onnx.data before model.onnx
            with replacing(folder / file.name) as moved:
                file.rename(moved)
    _write_record(folder, graph)


def _pt2(folder: Path, graph: Graph) -> None:
    _at_once(folder / "model.pt2", lambda file: save_torch(graph, file))
    _write_record(folder, graph)


def _write_record(folder: Path, graph: Graph) -> None:
    """Write model.json: how images are prepared for a graph, and what its logits mean."""
    replace_text(folder / RECORD, json.dumps(graph.record, indent=2) + "\n")


def _at_once(file: Path, write: Callable[[io.BytesIO], None]) -> None:
    """Let PyTorch write into memory: where it cannot finish an archive, as on a full disk, it hides the reason."""
    archive = io.BytesIO()
    write(archive)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as making:
        making.write_bytes(archive.getvalue())


GRAPHS: dict[str, Callable[[Path, Graph], None]] = {"onnx": _onnx, "pt2": _pt2}
WRITERS: dict[str, Callable[[Path, Pretrained], None]] = {
    "timm": _timm,
    "vit_mae": _vit_mae,
    "vit": _vit,
    "original": _original,
    "onnx": lambda folder, weights: _onnx(folder, graph_of(weights)),
    "pt2": lambda folder, weights: _pt2(folder, graph_of(weights)),
}
