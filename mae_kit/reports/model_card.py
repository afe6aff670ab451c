"""The model card of an export: how the model was trained, what it scores, and how to load it."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import ModelCard, ModelCardData

from mae_kit.evaluation.bootstrap import NORMAL
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.inert import fence, markdown
from mae_kit.reports.cards import interval
from mae_kit.reports.folder import Folder, read_folder
from mae_kit.reports.images import latest
from mae_kit.reports.render import percent
from mae_kit.training.metrics import series
from mae_kit.weights.pretrained import Pretrained

TEMPLATE, PICTURE = Path(__file__).with_name("templates") / "model_card.md", "reconstructions.png"
TAGS = ["masked-autoencoder", "self-supervised-learning", "vision-transformer", "mae_kit"]
FEW = 10  # logged losses; fewer get no interval
LAST = 20  # the last 1/20 of the logged losses is averaged, but at least FEW
WITH_DECODER = ("vit_mae", "original")

LOADING = {
    "timm": (
        "import timm",
        'model = timm.create_model("hf-hub:OWNER/{name}", pretrained=True).eval()',
        "output = model(images)",
    ),
    "vit_mae": (
        "from transformers import {architecture}",
        'model = {architecture}.from_pretrained("OWNER/{name}")',
        "output = model(pixel_values=images)",
    ),
    "vit": (
        "from transformers import ViTModel",
        'model = ViTModel.from_pretrained("OWNER/{name}")',
        "output = model(pixel_values=images).last_hidden_state",
    ),
    "vit classifier": (
        "from transformers import AutoModelForImageClassification",
        'model = AutoModelForImageClassification.from_pretrained("OWNER/{name}")',
        "output = model(pixel_values=images).logits",
    ),
    "original": (
        "import torch",
        'weights = torch.load("model.pth", weights_only=True)["model"]',
        "model.load_state_dict(weights)  # of models_mae.py, or models_vit.py",
    ),
    "onnx": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession("model.onnx")',
        'output = session.run(None, {{"images": images}})[0]',
    ),
    "pt2": ("import torch", 'model = torch.export.load("model.pt2").module()', "output = model(images)"),
}


Rows = list[tuple[str, ...]]


def write_card(folder: Path, name: str, run: Path, weights: Pretrained, format: str, license: str) -> None:
    """Write README.md, and next to it the last reconstructions of the run if there are any.

    Args:
        folder: That is being exported to.
        name: Of the model.
        run: Where the weights came from; what it does not record, the card leaves out.
        weights: What the folder holds.
        format: Of the export.
        license: Of the weights, as the Hub abbreviates it.
    """
    trained, config = read_folder(run if run.is_dir() else run.parent), weights.config
    card = ModelCard.from_template(
        _card_data(weights, format, license),
        template_path=str(TEMPLATE),
        name=markdown(name),
        about=_about(weights, format),
        picture=_reconstructions(folder, trained),
        loading=_loading(name, weights, format),
        channels=config.channels,
        mean=config.mean,
        std=config.std,
        data=_data(trained, weights),
        results=_results(trained),
        verb="pretrain" if "objective" in trained.config else "finetune",
        recipe=_recipe(trained),
        markdown=markdown,
        fence=fence,
    )
    replace_text(folder / "README.md", f"{card}\n")


def _card_data(weights: Pretrained, format: str, license: str) -> ModelCardData:
    return ModelCardData(
        license=license,
        tags=TAGS,
        library_name={"timm": "timm", "vit": "transformers", "vit_mae": "transformers", "onnx": "onnx"}.get(format),
        pipeline_tag="image-classification" if weights.classes else "image-feature-extraction",
    )


def _about(weights: Pretrained, format: str) -> str:
    config = weights.config
    args = ", ".join(markdown(f"{name} {value}") for name, value in config.model_args.items())
    what = f"A classifier of {len(weights.classes)} classes" if weights.classes else "An encoder of images"
    how = f" pretrained with {markdown(config.objective)}, {config.step:,} steps" if config.step else ""
    about = f"{what}, timm's `{config.model}` ({args}){how}."
    if (d := weights.decoder) is None or format not in WITH_DECODER:
        return about
    return f"{about} Its decoder is included: width {d.dim}, {d.depth} blocks, {d.heads} heads."


def _reconstructions(folder: Path, run: Folder) -> str:
    """Copy the latest reconstructions of the run, or of the pretraining that a fine-tuning started from."""
    encoder = run.config.get("encoder")
    for one in (run.training, RunFolder(Path(encoder)) if isinstance(encoder, str) else run.training):
        if newest := latest(one):
            shutil.copyfile(newest, folder / PICTURE)
            return PICTURE
    return ""


def _loading(name: str, weights: Pretrained, format: str) -> str:
    architecture = "ViTMAEForPreTraining" if weights.decoder else "ViTMAEModel"
    kind = "vit classifier" if format == "vit" and weights.classes else format
    return "\n".join(line.format(name=name, architecture=architecture) for line in LOADING[kind])


def _data(run: Folder, weights: Pretrained) -> Rows:
    samples, epochs = series(run.metrics, "audit_samples")[1], series(run.metrics, "epoch")[1]
    bad = series(run.metrics, "bad_samples")[1]
    rows = [
        ("training images", f"{samples[-1]:,.0f}" if samples.size else ""),
        ("epochs", f"{epochs[-1]:,.1f}" if epochs.size else ""),
        ("undecodable samples, replaced", f"{bad[-1]:,.0f}" if bad.size else ""),
        ("validation images", f"{run.result['samples']:,}" if "samples" in run.result else ""),
        ("classes", ", ".join(weights.classes[:20]) + (", ..." if len(weights.classes) > 20 else "")),
    ]
    return [row for row in rows if row[1]]


def _results(run: Folder) -> Rows:
    """Scores with Wilson's intervals, and the mean loss with the normal one."""
    result, rows = run.result, []
    for name, label in (("top1", "top-1"), ("top5", "top-5")):
        if name in result:
            rows.append((label, percent(result[name]), interval(result[name], result["samples"])))
    others = {"map": "mean average precision", "macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}
    rows += [(label, percent(result[name]), "") for name, label in others.items() if name in result]
    losses = series(run.metrics, "loss")[1]
    if losses.size:
        rows.append(_loss(losses[-max(FEW, losses.size // LAST) :]))
    for name, label in (("knn_top1", "top-1"), ("knn_map", "mean average precision")):
        if (knn := series(run.metrics, name)[1]).size:
            rows.append((f"kNN {label} of the frozen encoder", percent(knn[-1]), ""))
    return rows


def _loss(last: np.ndarray) -> tuple[str, str, str]:
    mean = float(last.mean())
    if len(last) < FEW:
        return "training loss, last logged value", f"{last[-1]:.4f}", ""
    half = NORMAL * float(last.std(ddof=1)) / math.sqrt(len(last))
    return f"training loss, mean of the last {len(last)} logged", f"{mean:.4f}", f"{mean - half:.4f}–{mean + half:.4f}"


def _recipe(run: Folder) -> str:
    """The recipe without the paths of the machine."""
    if not run.config:
        return ""
    kept = {name: _anonymous(value) for name, value in run.config.items() if name not in ("run", "machine")}
    return yaml.safe_dump(kept, sort_keys=False)


def _anonymous(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _anonymous(part) for name, part in value.items()}
    return Path(value).name if isinstance(value, str) and "/" in value else value
