"""DETR: a transformer encoder-decoder on the features of any backbone, whose object queries each become a box."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_kit.errors import UserError
from mae_kit.tasks.set_criterion import Found
from mae_kit.tasks.yolos import MLP

PRIOR = 0.01  # probability of each class at the start, where sigmoid makes it
FIRST = 0.1  # width and height of a proposal at the start, of the image
REPEAT = 4  # proposals that each true box is matched to


class Detr(nn.Module):
    """DETR (arXiv 2005.12872), or with `proposals` a detector whose queries begin at boxes that the encoder proposes.

    Then every token of the encoder proposes a box; the best become the queries, and each decoder layer corrects them.
    That converges in tens of epochs instead of hundreds (two-stage queries: Deformable DETR, arXiv 2010.04159;
    positions of queries: DAB-DETR, 2201.12329; several proposals for each object: H-DETR, 2207.13080). Parameters have
    the names of DETR's own code.

    Args:
        backbone: A timm model that has `forward_intermediates`.
        classes: Number of classes.
        queries: Number of object queries.
        width: Channels of the transformer.
        heads: Attention heads.
        layers: Number of encoder and decoder layers.
        feedforward: Channels within their MLPs.
        dropout: After attention, and in and after the MLPs.
        stride: Pixels of a cell of the map of features, at most.
        proposals: Whether the encoder proposes where queries begin.

    Raises:
        UserError: The backbone has no maps of features.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        queries: int = 100,
        width: int = 256,
        heads: int = 8,
        layers: Sequence[int] = (6, 6),
        feedforward: int = 2048,
        dropout: float = 0.1,
        stride: int = 32,
        proposals: bool = False,
    ):
        super().__init__()
        self.backbone: Any = backbone
        self.level, channels = _map_of(self.backbone, stride)
        how = width, heads, feedforward, dropout
        self.input_proj = nn.Conv2d(channels, width, 1)
        self.transformer = nn.ModuleDict(
            {"encoder": DetrEncoder(layers[0], *how), "decoder": DetrDecoder(layers[1], *how)}
        )
        for tensor in self.transformer.parameters():
            if tensor.dim() > 1:
                nn.init.xavier_uniform_(tensor)
        self.queries, self.focal = queries, proposals
        self.query_embed = nn.Embedding(queries, width) if not proposals else None
        self.proposals = Proposals(width, classes) if proposals else None
        self.class_embed, self.bbox_embed = nn.Linear(width, classes + (not proposals)), MLP(width, 4)
        if proposals:
            _start(self.class_embed, self.bbox_embed)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Found]:
        """Predictions for normalized images, by every layer of the decoder; proposals come first."""
        (features,) = self.backbone.forward_intermediates(
            images, indices=[self.level], output_fmt="NCHW", intermediates_only=True, **self._norm
        )
        tokens = self.input_proj(features)
        grid, width = tokens.shape[2:], tokens.shape[1]
        position = sine_positions(grid, width, tokens.device).to(tokens.dtype)
        memory = self.transformer["encoder"](tokens.flatten(2).transpose(1, 2), position)
        if self.proposals is None:
            asked = self.query_embed.weight.expand(memory.shape[0], -1, -1)  # type: ignore[union-attr]
            layers = self.transformer["decoder"](torch.zeros_like(asked), asked, memory, position)
            return [Found(self.class_embed(layer), self.bbox_embed(layer).float().sigmoid()) for layer in layers]
        return self._from_proposals(memory, position, grid)

    def _from_proposals(self, memory: Tensor, position: Tensor, grid: torch.Size) -> list[Found]:
        assert self.proposals is not None
        proposed = self.proposals(memory, grid)
        best = proposed.logits.amax(dim=-1).topk(min(self.queries, memory.shape[1]), dim=1).indices[..., None]
        x = memory.gather(1, best.expand(-1, -1, memory.shape[2])).detach()
        boxes = proposed.boxes.gather(1, best.expand(-1, -1, 4)).detach()
        decoder: Any = self.transformer["decoder"]
        layers = [proposed]
        for layer in decoder.layers:
            x = layer(x, self.proposals.position(boxes), memory, position)
            shown = decoder.norm(x)
            boxes = (self.bbox_embed(shown).float() + boxes.logit(eps=1e-4)).sigmoid()
            layers.append(Found(self.class_embed(shown), boxes))
            boxes = boxes.detach()
        return layers

    @property
    def _norm(self) -> dict[str, bool]:
        return {"norm": True} if len({level["reduction"] for level in self.backbone.feature_info}) == 1 else {}


class Proposals(nn.Module):
    """A class and a box for every token of the encoder, and the position of a query at a box."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.class_embed, self.bbox_embed = nn.Linear(width, classes), MLP(width, 4)
        self.width = width
        self.place = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        _start(self.class_embed, self.bbox_embed)

    def forward(self, memory: Float[Tensor, "b n d"], grid: torch.Size) -> Found:
        rows, columns = ((torch.arange(side, device=memory.device) + 0.5) / side for side in grid)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        cells = torch.stack([x, y, torch.full_like(x, FIRST), torch.full_like(x, FIRST)], dim=-1).flatten(0, 1)
        boxes = (self.bbox_embed(memory).float() + cells.logit(eps=1e-4)).sigmoid()
        return Found(self.class_embed(memory), boxes, REPEAT)

    def position(self, boxes: Float[Tensor, "b q 4"]) -> Float[Tensor, "b q d"]:
        """Of queries, from their boxes."""
        return self.place(
            sines(boxes[..., [1, 0, 3, 2]], self.width // 2).flatten(-2).to(self.class_embed.weight.dtype)
        )


def _start(classify: nn.Linear, box: MLP) -> None:
    """Few objects, and boxes where they are proposed."""
    nn.init.constant_(classify.bias, -math.log(1 / PRIOR - 1))
    last: Any = box.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def _map_of(backbone: Any, stride: int) -> tuple[int, int]:
    """Number of the coarsest map of cells of at most so many pixels, and its channels; what is behind it is removed."""
    if not hasattr(backbone, "forward_intermediates"):
        what = f"timm's {type(backbone).__name__} has no feature maps"
        raise UserError("model.name.maps", what, "choose a ViT, BEiT, Swin, ConvNeXt, Hiera or ResNet")
    numbers = {level["reduction"]: number for number, level in enumerate(backbone.feature_info)}
    fine = [number for reduction, number in numbers.items() if reduction <= stride]
    if not fine:
        what = f"the finest map of {type(backbone).__name__} has cells of {min(numbers)} pixels"
        raise UserError("task.stride", what, f"give {min(numbers)} or more")
    level = max(fine)
    backbone.prune_intermediate_layers([level], prune_norm=len(numbers) > 1, prune_head=True)
    return level, backbone.feature_info[level]["num_chs"]


# The transformer


class DetrEncoder(nn.Module):
    """Layers of self-attention, to which positions are added at every layer."""

    def __init__(self, layers: int, *how: Any):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(*how) for _ in range(layers))

    def forward(self, x: Float[Tensor, "b n d"], position: Float[Tensor, "1 n d"]) -> Float[Tensor, "b n d"]:
        for layer in self.layers:
            x = layer(x, position)
        return x


class DetrDecoder(nn.Module):
    """Layers of self-attention among queries and cross-attention to the encoder's tokens; all end in one norm."""

    def __init__(self, layers: int, width: int, *how: Any):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, *how) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, asked: Tensor, memory: Tensor, position: Tensor) -> list[Tensor]:
        """What the queries found, layer by layer."""
        found = []
        for layer in self.layers:
            x = layer(x, asked, memory, position)
            found.append(self.norm(x))
        return found


class EncoderLayer(nn.Module):
    """Post-norm."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], position: Float[Tensor, "#b n d"]) -> Float[Tensor, "b n d"]:
        placed = x + position
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, need_weights=False)[0]))
        return self.norm2(x + self.feed(x))

    def feed(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.dropout(self.linear1(x).relu())))


class DecoderLayer(EncoderLayer):
    """An encoder layer with cross-attention before its MLP."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__(width, heads, feedforward, dropout)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, asked: Tensor, memory: Tensor, position: Tensor) -> Tensor:  # type: ignore[override]
        placed = x + asked
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, need_weights=False)[0]))
        seen = self.multihead_attn(x + asked, memory + position, memory, need_weights=False)[0]
        x = self.norm2(x + self.dropout(seen))
        return self.norm3(x + self.feed(x))


def sine_positions(grid: torch.Size, width: int, device: torch.device) -> Float[Tensor, "1 n d"]:
    """DETR's: sines and cosines of row and column, which count from 1 and end at 2 pi."""
    rows, columns = (torch.arange(1, side + 1, device=device) / (side + 1e-6) for side in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return sines(torch.stack([y, x], dim=-1), width // 2).flatten(0, 1).flatten(1)[None]


def sines(values: Float[Tensor, "*n c"], dim: int) -> Float[Tensor, "*n c dim"]:
    """Sines and cosines, alternating, of numbers in 0..1, for wavelengths from 1 on."""
    exponents = 2 * (torch.arange(dim, device=values.device) // 2) / dim
    angles = values[..., None] * 2 * math.pi / 10000**exponents
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)
