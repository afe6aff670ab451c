"""`mae-kit inspect`: plots of what is inside a pretrained model, in its run folder and report."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Int64, Num
from torch import Tensor

from mae_kit.commands.reconstruct import image_seeds, normalization
from mae_kit.commands.report import report
from mae_kit.data.index.open import open_index
from mae_kit.data.remote.filesystem import Place
from mae_kit.errors import UserError
from mae_kit.files.recipe_file import read_recipe
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.tensor_file import MODEL
from mae_kit.objectives import Objective
from mae_kit.plots.attention import attention_figure, measure_attention
from mae_kit.plots.encoder import FrozenEncoder
from mae_kit.plots.features import features_figure, find_neighbors, principal_colors, without_places
from mae_kit.plots.figures import save_figure
from mae_kit.plots.losses import loss_map, losses_figure
from mae_kit.plots.map import map_figure, plane
from mae_kit.plots.positions import position_similarity, positions_figure, similarity_by_offset
from mae_kit.plots.ratios import over_ratios, ratios_figure
from mae_kit.plots.reconstructions import draw_reconstructions, save_png
from mae_kit.training.ranges import POSITIVE, check_ranges
from mae_kit.weights.native import load_model

log = logging.getLogger(__name__)

Show = Literal["attention", "features", "positions", "reconstructions", "losses", "ratios", "map"]
ASKED = ("map",)  # drawn only where it is asked for
COMPARED = 256  # images from which the principal components of the features are computed, and that a map shows
DRAWS = 32  # of the mask, for the loss of each patch


class Inspected(NamedTuple):
    """A model and the images it is looked at with.

    Attributes:
        encoder: On the device.
        model: The whole objective, there too; None if the run has the encoder only.
        images: Candidates for the principal components, uint8.
        drawn: Numbers of the images that are drawn.
        names: Of all images.
        layer: Whose attention heads are drawn.
        neighbors: Shards to search for nearest neighbors.
    """

    encoder: FrozenEncoder
    model: Objective | None
    images: Num[Tensor, "m c h w"]
    drawn: np.ndarray
    names: list[str]
    layer: int
    neighbors: Place | None

    @property
    def shown(self) -> Num[Tensor, "b c h w"]:
        """The images that are drawn."""
        return self.images[self.drawn]

    @property
    def seen(self) -> Num[Tensor, "b c h w"]:
        """The same on the device."""
        return self.shown.to(self.encoder.device)

    def seeds(self, draw: int = 0) -> Int64[Tensor, " b"]:
        """Seeds of their masks, on the device."""
        return image_seeds(0, len(self.drawn), draw).to(self.encoder.device)


def inspect(
    run: Path,
    images: Place | None = None,
    show: Show | list[Show] | None = None,
    count: int = 4,
    layer: int | None = None,
    neighbors: Place | None = None,
) -> dict[str, Any]:
    """Plot attention, features, position embeddings, reconstructions, losses and mask ratios of a pretrained model.

    The plots go to RUN/inside and into RUN/report.html.

    Args:
        run: A finished pretraining run, or an imported one.
        images: An image, a folder of images or shards, or a tar file; by default the shards that the run was trained
            on.
        show: Plots to make, separated by commas, for example attention,losses; by default all that the model supports,
            except map. The colors of features are principal components over up to 256 images; map = up to 256 images
            in the plane, close together where their features are similar.
        count: Maximum number of images to plot, spread evenly over those given.
        layer: The layer whose attention heads are plotted, counted from 1; by default the last.
        neighbors: Shards whose nearest images are shown next to the features.

    Returns:
        `report`, the path of the page; for each plot its path and values: `distance`, the mean attention distance in
        pixels of each head of each layer; `explained`, the fractions of the variance that red, green and blue explain,
        and `neighbors`, names and cosines; `columns_apart` and `rows_apart`, the mean cosine of position embeddings at
        each distance; `loss`, the mean over hidden patches, at each ratio for `ratios`; `images` and their `places` on
        the map.

    Raises:
        UserError: The run has no encoder, a plot was asked for that the model does not have, or there are no images.
    """
    check_ranges({"count": count}, count=POSITIVE)
    folder = run if run.is_dir() else run.parent
    encoder = FrozenEncoder(run)
    model = load_model(folder).to(encoder.device) if (folder / MODEL.file).is_file() else None
    chosen = _choose([show] if isinstance(show, str) else show, _missing(encoder, model))
    layer = _existing_layer(encoder, layer)
    loaded, names = encoder.load(images or _trained_on(folder), COMPARED if {"features", *ASKED} & {*chosen} else count)
    drawn = np.linspace(0, len(loaded) - 1, min(count, len(loaded))).round().astype(int)
    inspected = Inspected(encoder, model, loaded, drawn, names, layer, neighbors)
    with torch.no_grad():
        found = {name: _DRAW[name](inspected, RunFolder(folder).plot(name)) for name in chosen}
    log.info(f"{RunFolder(folder).inside}: {', '.join(found)}")
    return found | report(folder)


def _missing(encoder: FrozenEncoder, model: Objective | None) -> dict[Show, str]:
    """Why some plots cannot be drawn."""
    name, reasons = encoder.encoder.name, dict[Show, str]()
    if not encoder.encoder.has_attention_maps:
        reasons["attention"] = f"{name} has no attention between all patches"
    if not encoder.encoder.has_position_table:
        reasons["positions"] = f"{name} has no table of position embeddings"
    if model is None:
        reasons |= dict.fromkeys(("reconstructions", "losses", "ratios"), f"the run has no {MODEL.file}")
    elif not model.reconstructs:
        reasons |= dict.fromkeys(("losses", "ratios"), f"{type(model).__name__} has no squared error for each patch")
    return reasons


def _choose(show: list[Show] | None, missing: dict[Show, str]) -> list[Show]:
    for name, reason in missing.items():
        if show and name in show:
            possible = [each for each in get_args(Show) if each not in missing]
            raise UserError("inspect.show", f"no plot of {name}: {reason}", f"choose among {', '.join(possible)}")
        if not show:
            log.info(f"no plot of {name}: {reason}")
    return show or [name for name in get_args(Show) if name not in (*missing, *ASKED)]


def _existing_layer(encoder: FrozenEncoder, layer: int | None) -> int:
    depth = encoder.encoder.depth
    if layer is not None and not 1 <= layer <= depth:
        raise UserError("inspect.layer", f"the encoder has no layer {layer}", f"give --layer 1 to {depth}")
    return layer or depth


def _trained_on(run: Path) -> Place:
    config = RunFolder(run).config
    if not config.is_file():
        raise UserError("inspect.images.config", f"{run} has no config.yaml, which names its images", "give --images")
    data = read_recipe(config).get("data", {})
    if "path" not in data:
        raise UserError("inspect.images.path", f"{config} has no data.path", "give --images, or a pretraining run")
    return data["path"]


def _attention(inspected: Inspected, out: Path) -> dict[str, Any]:
    found = measure_attention(inspected.encoder, inspected.shown, inspected.layer)
    save_figure(out, attention_figure(inspected.encoder, inspected.shown, found, inspected.layer))
    return {"plot": str(out), "layer": inspected.layer, "distance": found.distance.tolist()}


def _features(inspected: Inspected, out: Path) -> dict[str, Any]:
    tokens = inspected.encoder.patch_tokens(inspected.images)
    colors, explained = principal_colors(without_places(tokens))
    result = {"plot": str(out), "images": [inspected.names[i] for i in inspected.drawn], "explained": explained}
    found = None
    if inspected.neighbors:
        queries = tokens[inspected.drawn].mean(dim=1)
        found = find_neighbors(inspected.encoder, queries, open_index(inspected.neighbors))
        pairs = (zip(*pair, strict=True) for pair in zip(found.names, found.cosines, strict=True))
        result["neighbors"] = [[{"image": name, "cosine": value} for name, value in pair] for pair in pairs]
    save_figure(out, features_figure(inspected.encoder, inspected.shown, colors[inspected.drawn], found))
    return result


def _positions(inspected: Inspected, out: Path) -> dict[str, Any]:
    encoder: Any = inspected.encoder.encoder
    similarity = position_similarity(encoder.model.pos_embed.detach().cpu(), encoder.grid)
    save_figure(out, positions_figure(similarity))
    columns, rows = similarity_by_offset(similarity)
    return {"plot": str(out), "grid": list(encoder.grid), "columns_apart": columns, "rows_apart": rows}


def _reconstructions(inspected: Inspected, out: Path) -> dict[str, Any]:
    assert inspected.model
    normalize, images, seeds = normalization(inspected.model), inspected.seen, inspected.seeds()
    save_png(out, draw_reconstructions(inspected.model, normalize, images, seeds))
    return {"plot": str(out), "loss": float(inspected.model(normalize(images), seeds).loss)}


def _losses(inspected: Inspected, out: Path) -> dict[str, Any]:
    model = inspected.model
    assert model
    masks = (model.hide(inspected.seeds(draw)) for draw in range(DRAWS))
    losses = loss_map(model, normalization(model)(inspected.seen), masks).cpu()
    save_figure(out, losses_figure(inspected.shown, losses.unflatten(1, model.encoder.grid)))
    return {"plot": str(out), "loss": float(losses.nanmean())}


def _ratios(inspected: Inspected, out: Path) -> dict[str, Any]:
    assert inspected.model
    found = over_ratios(inspected.model, normalization(inspected.model), inspected.seen, inspected.seeds())
    save_figure(out, ratios_figure(inspected.shown, found))
    return {"plot": str(out), "loss": {f"{at.ratio:.0%}": at.loss for at in found}}


def _map(inspected: Inspected, out: Path) -> dict[str, Any]:
    places = plane(inspected.encoder.patch_tokens(inspected.images).mean(dim=1))
    save_figure(out, map_figure(inspected.images, places))
    return {"plot": str(out), "images": inspected.names, "places": places.tolist()}


_DRAW: dict[Show, Callable[[Inspected, Path], dict[str, Any]]] = {
    "attention": _attention,
    "features": _features,
    "positions": _positions,
    "reconstructions": _reconstructions,
    "losses": _losses,
    "ratios": _ratios,
    "map": _map,
}
