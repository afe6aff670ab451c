"""Prithvi-EO's files (Jakubik et al., arXiv 2310.18660 and 2412.02732): MAE's for several dates, read for one.

The kernel of a patch spans one date, and the last quarter of a position embedding is that of the date. Features of one
image are those of the first date.
"""

import torch

from mae_kit.errors import UserError
from mae_kit.weights import original
from mae_kit.weights.files import Raw
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.pretrained import Pretrained

KERNEL, TABLE = "patch_embed.proj.weight", "pos_embed"
BESIDE = ("mask_token", "decoder_", "temporal_embed_enc.", "location_embed_enc.")  # the decoder, and when and where


def recognizes(raw: Raw) -> bool:
    return original.recognizes(raw) and raw.tensors[KERNEL].ndim == 5


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know.

    Raises:
        UserError: `weights.dates`: a patch spans several dates.
    """
    tensors = {name: tensor for name, tensor in raw.tensors.items() if not name.startswith(BESIDE)}
    kernel, table = tensors[KERNEL], tensors[TABLE]
    if kernel.shape[2] != 1:
        what = f"{raw.path}: a patch spans {kernel.shape[2]} dates"
        raise UserError("weights.dates", what, "give a model with patches of one date")
    dates = len(torch.unique_consecutive(table[0, 1:, -(table.shape[2] // 4) :], dim=0))
    places = (table.shape[1] - 1) // dates
    tensors |= {KERNEL: kernel[:, :, 0], TABLE: table[:, : 1 + places]}
    weights, unknown = original.read(raw._replace(tensors=tensors), hints)
    notes = [*weights.notes, f"one image has the positions of the first of {dates} dates"]
    left_out = weights.left_out + [name for name in raw.tensors if name not in tensors]
    return weights._replace(kind="Prithvi, encoder for one date", left_out=left_out, notes=notes), unknown
