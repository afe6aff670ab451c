"""Where a detection token (YOLOS) or an object query (DETR) looks: its attention in the last layer, and a picture."""

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mae_kit.encoders.attention import written_out
from mae_kit.tasks.box_pictures import draw_boxes
from mae_kit.tasks.detector import Detections, Detector, in_pixels, probabilities
from mae_kit.tasks.detr import Detr
from mae_kit.tasks.overlays import Picture, in_row
from mae_kit.tasks.set_criterion import Found
from mae_kit.tasks.yolos import Yolos

QUERIES = 5  # drawn for each image
DARK = 0.2  # brightness of a patch that gets the least attention


@torch.no_grad()
def query_attention(model: Detector, images: Float[Tensor, "b c h w"]) -> tuple[Found, Float[Tensor, "b q y x"]]:
    """Predictions for normalized images, and the attention of each query to the cells of the feature map.

    It is that of the last layer, the mean over its heads. DETR's cross-attention sums to 1; a detection token of YOLOS
    attends to the other tokens too.
    """
    return _of_detr(model, images) if isinstance(model, Detr) else _of_yolos(model, images)


def _of_detr(model: Detr, images: Tensor) -> tuple[Found, Tensor]:
    maps, grids = list[Tensor](), list[torch.Size]()
    decoder: Any = model.transformer["decoder"]
    crossing = decoder.layers[-1].multihead_attn
    hooks = [
        crossing.register_forward_pre_hook(lambda layer, given: maps.append(layer.forward(*given)[1])),
        model.input_proj.register_forward_hook(lambda _, __, out: grids.append(out.shape[2:])),
    ]
    try:
        found = model(images)[-1]
    finally:
        for hook in hooks:
            hook.remove()
    return found, maps[0].unflatten(2, grids[0])


def _of_yolos(model: Yolos, images: Tensor) -> tuple[Found, Tensor]:
    maps, vit = list[Tensor](), model.backbone
    hook = vit.blocks[-1].attn.attn_drop.register_forward_hook(lambda _, __, out: maps.append(out))
    try:
        with written_out(vit.blocks[-1]):
            found = model(images)[-1]
    finally:
        hook.remove()
    queries, grid = model.tokens.shape[1], vit.patch_embed.grid_size
    to_patches = maps[0].mean(dim=1)[:, -queries:, vit.num_prefix_tokens : -queries]
    return found, to_patches.unflatten(2, grid)


def attention_picture(
    model: Detector, image: Float[Tensor, "1 c h w"], picture: Picture, names: list[str]
) -> Image.Image:
    """Next to each other, for the most certain queries, the box of each and the patches it attends to, the others dark.

    Args:
        model: In eval mode.
        image: Normalized, padded on the right and below.
        picture: The same image without its padding.
        names: Of the classes.
    """
    found, heat = query_attention(model, image)
    size = image.shape[2], image.shape[3]
    scores, labels = probabilities(model, found.logits.float())[0].cpu().max(dim=-1)
    chosen = _of_all_classes(scores, labels)
    bright = F.interpolate(heat.float().cpu()[:1, chosen], size=size, mode="bilinear")[0]
    boxes = in_pixels(found.boxes[0].cpu()[chosen], size)
    tiles = []
    for level, box, query in zip(bright, boxes, chosen.tolist(), strict=True):
        light = DARK + (1 - DARK) * level / level.max()
        shown = (picture * light[: picture.shape[0], : picture.shape[1], None].numpy()).astype("uint8")
        one = Detections(box[None], labels[query : query + 1], scores[query : query + 1])
        tiles.append(draw_boxes(shown, one, names, score=True))
    return in_row(tiles, labels[chosen].unique().numpy(), names)


def _of_all_classes(scores: Tensor, labels: Tensor) -> Tensor:
    """Numbers of the most certain queries, in turn one of each class."""
    turn, seen = list[tuple[int, float, int]](), Counter[int]()
    for query in scores.argsort(descending=True).tolist():
        turn.append((seen[int(labels[query])], -float(scores[query]), query))
        seen[int(labels[query])] += 1
    return torch.tensor([query for _, _, query in sorted(turn)[:QUERIES]])
