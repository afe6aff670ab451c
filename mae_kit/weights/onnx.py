"""A model as a graph that runs without its code: ONNX and torch.export."""

import json
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import PatchEmbed
from timm.models.hiera import MaskUnitAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.pretrained import Pretrained, build_timm, image_size

INPUT = "images"
RECORD = "model.json"  # of an extra file in a .pt2, and of the file next to either graph
METADATA = "mae_kit"  # key of the record in an ONNX file's metadata
LARGEST = 1.5e9  # bytes of weights inside an ONNX file, which cannot hold 2 GB


class OneSize(nn.Module):
    """A timm model at the size it was made for.

    Args:
        model: An encoder or a classifier.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Logits [b k] of a classifier, or features after the last norm: tokens [b t d] of a transformer."""
        return self.model(images) if self.model.num_classes else self.model.forward_features(images)


class AnySize(OneSize):
    """A plain vision transformer for images of any size that its patch divides: it resamples its positions itself."""

    def forward(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """As `OneSize`."""
        model = self.model
        x = model.patch_embed.proj(images)
        rows = 0 if model.no_embed_class else model.num_prefix_tokens
        x = (x + self._positions(rows, x.shape[2:])).flatten(2).transpose(1, 2)
        prefix = torch.cat([token for token in (model.cls_token, model.reg_token) if token is not None], dim=1)
        prefix = prefix + model.pos_embed[:, :rows] if rows else prefix
        x = torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1)  # len(x) would fix the batch
        x = model.norm(model.blocks(model.norm_pre(x)))
        return model.forward_head(x) if model.num_classes else x

    def _positions(self, rows: int, grid: torch.Size) -> Tensor:
        """The table as an image; at its own size this is the identity, so that the graph needs no branch."""
        table = self.model.pos_embed[:, rows:].unflatten(1, self.model.patch_embed.grid_size).permute(0, 3, 1, 2)
        return F.interpolate(table, size=grid, mode="bicubic", align_corners=False)


class Graph(NamedTuple):
    """What is traced.

    Attributes:
        module: Takes normalized images.
        images: An example of them, [b c h w].
        shapes: Which of its sizes are free, by the name of the input.
        output: Name of what comes out.
        record: How images are prepared for it, and what comes out means.
    """

    module: nn.Module
    images: Tensor
    shapes: dict[str, Any]
    output: str
    record: dict[str, Any]


def export_graph(graph: Graph) -> ExportedProgram:
    """Trace it."""
    return torch.export.export(graph.module.eval(), (graph.images,), dynamic_shapes=graph.shapes)


def save_torch(graph: Graph, file: BytesIO) -> None:
    """Write a .pt2 file: `torch.export.load(file).module()(images)`; the record is its extra file model.json."""
    torch.export.save(export_graph(graph), file, extra_files={RECORD: json.dumps(graph.record)})


def save_onnx(graph: Graph, file: Path) -> None:
    """Write an .onnx file, the record in its metadata; weights too large for one file go into `model.onnx.data`.

    Raises:
        UserError: The packages that write it are not installed.
    """
    for part in graph.module.modules():
        if isinstance(part, MaskUnitAttention):
            part.fused_attn = False  # its five dimensions are one too many for ONNX's attention
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.module.state_dict().values())
    try:
        program: Any = torch.onnx.export(
            graph.module.eval(),
            (graph.images,),
            dynamo=True,
            dynamic_shapes=graph.shapes,
            input_names=[INPUT],
            output_names=[graph.output],
            verbose=False,
        )
    except ImportError as error:
        raise UserError(
            "export.packages", f"ONNX cannot be written: {error}", 'pip install "mae_kit[export]"'
        ) from error
    program.model.metadata_props[METADATA] = json.dumps(graph.record)
    program.save(file, external_data=size > LARGEST)


def graph_of(weights: Pretrained) -> Graph:
    """An encoder or classifier, for any batch, and any image size where it is a plain vision transformer."""
    config, model, output = weights.config, build_timm(weights), "logits" if weights.classes else "features"
    size = image_size(config, model)
    record = model_record(replace(config, image_size=size))
    channels = config.model_args.get("in_chans", 3)
    if not _is_plain(model):
        return Graph(OneSize(model), torch.zeros(2, channels, *size), {INPUT: {0: Dim("batch")}}, output, record)
    (rows, columns), (height, width) = model.patch_embed.grid_size, model.patch_embed.patch_size
    example = torch.zeros(2, channels, (rows + 1) * height, (columns + 2) * width)  # four different sizes
    free = {0: Dim("batch"), 2: height * Dim("rows"), 3: width * Dim("columns")}
    return Graph(AnySize(model), example, {INPUT: free}, output, record)


def model_record(config: ModelConfig) -> dict[str, Any]:
    """The record of a model, and of its logits whether softmax or sigmoid makes them probabilities."""
    return asdict(config) | ({"activation": "sigmoid" if config.multi_label else "softmax"} if config.classes else {})


def _is_plain(model: Any) -> bool:
    return (
        type(model) is VisionTransformer
        and type(model.patch_embed) is PatchEmbed
        and model.pos_embed is not None
        and isinstance(model.patch_embed.norm, nn.Identity)
        and (model.cls_token is not None or model.reg_token is not None)
    )
