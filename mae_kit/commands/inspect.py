"""All pictures of the inside of a pretrained model, beside it and in its report."""

import logging
from pathlib import Path
from typing import Any

from mae_kit.commands.attention import attention
from mae_kit.commands.features import features
from mae_kit.commands.positions import positions
from mae_kit.console import warnings_only
from mae_kit.data.remote.filesystem import Place
from mae_kit.encoders import ViT
from mae_kit.errors import UserError
from mae_kit.plots.encoder import Eye
from mae_kit.plots.reconstruct import Show, reconstruct
from mae_kit.recipe_file import read_recipe
from mae_kit.reports.page import report

log = logging.getLogger(__name__)

FOLDER = "inside"  # of a run; the report shows what is there
SHOWS: tuple[Show, ...] = ("losses", "ratios")


def inspect(run: Path, images: Place | None = None, count: int = 4) -> dict[str, Any]:
    """Look inside a pretrained model: attention, features, positions, losses and mask ratios, drawn into its report.

    Attention and positions are of a ViT, losses and ratios of an MAE; of others, what there is is drawn.

    Args:
        run: A pretraining run that has ended.
        images: An image, a folder of images or of shards, or a tar; by default the shards it was trained on.
        count: How many images are drawn at most.

    Returns:
        The report's path, and for each picture what the verb that draws it returns.

    Raises:
        UserError: The run has not ended, or there are no images.
    """
    images = images or _trained_on(run)
    folder, eye = run / FOLDER, Eye(run)
    is_vit, is_mae = isinstance(eye.encoder, ViT), eye.objective == "MAE"
    found: dict[str, Any] = {}
    with warnings_only():
        if is_vit:
            found["attention"] = attention(run, images, folder / "attention.png", count=count)
        found["features"] = features(run, images, folder / "features.png", count=count)
        for show in SHOWS if is_mae else ():
            found[show] = reconstruct(run, images, folder / f"{show}.png", show, count=count)
        if is_vit:
            found["positions"] = positions(run, folder / "positions.png")
    log.info(f"{folder}: {', '.join(found)}")
    return found | report(run)


def _trained_on(run: Path) -> Place:
    config = run / "config.yaml"
    if not config.is_file():
        raise UserError(
            "inspect.trained_on",
            f"{run} has no config.yaml, which names its images",
            "give images, or the folder of a run",
        )
    data = read_recipe(config).get("data", {})
    if "path" not in data:
        raise UserError("inspect.trained_on", f"{config} has no data.path", "give the run of a pretraining, or images")
    return data["path"]
