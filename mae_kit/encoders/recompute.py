"""Activation checkpointing (arXiv 1604.06174): the backward pass computes each block again from its input alone."""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from mae_kit.encoders.convnextv2 import sparse_forward
from mae_kit.errors import UserError


def recompute_blocks(module: nn.Module) -> None:
    """Let every block of encoder and decoder be computed again, with the same random numbers and the same result.

    Raises:
        UserError: It has no blocks, as a ResNet of timm's.
    """
    found: Any = [part for name, part in module.named_modules() if name.rpartition(".")[2] == "blocks"]
    if not found:
        what = "the model has no blocks that could be recomputed"
        raise UserError("machine.activation_checkpointing", what, "leave it out, or accumulate more micro-batches")
    for block in (block for blocks in found for block in blocks.children() if "forward" not in vars(block)):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if hasattr(block, "conv_dw"):  # a ConvNeXt's
            block.sparse_forward = partial(checkpoint, partial(sparse_forward, block), use_reentrant=False)
