"""Partial fine-tuning: the last blocks of a classifier learn, all before them stays as it was pretrained."""

from torch import nn

from mae_kit.errors import UserError
from mae_kit.training.optimizer import parameter_layers

_HEADS = ("fc_norm", "head", "fc", "classifier", "attn_pool")  # timm's names of what is behind the blocks


def freeze_below(classifier: nn.Module, blocks: int) -> None:
    """Let the last blocks learn, with the norm behind them, and the head (MAE, section 4.3).

    Blocks are timm's layers between embedding and head, those that `layer_decay_groups` decays: of a hierarchical model
    the last blocks of the last stage, each downsampling with the block behind it. What is frozen needs no gradients,
    so neither forward nor backward pass keeps anything for it.

    Args:
        classifier: A timm model; it may end in its last block.
        blocks: How many learn; 0 for the head alone, which has its own norm or attention pooling where it pools.

    Raises:
        UserError: There are not so many.
    """
    layers = parameter_layers(classifier)
    last = max(layers.values())
    has_head = any(layer == last and name.partition(".")[0] in _HEADS for name, layer in layers.items())
    depth = last - has_head
    if not 0 <= blocks <= depth:
        problem = f"blocks is {blocks}, the model has {depth}"
        raise UserError("blocks.count", problem, f"give 0 to {depth}, or null for the whole model")
    for name, parameter in classifier.named_parameters():
        if layers[name] <= depth - blocks:
            parameter.requires_grad_(False)


def frozen_parts(classifier: nn.Module) -> list[nn.Module]:
    """The modules before the first that learns: in training too they are to compute as in evaluation.

    Dropout, drop path and dropped patches would blur features that cannot adapt to it, and batch normalization would
    go on counting.
    """
    found = []
    for module in classifier.modules():  # parents before children, in the order they were made
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            break
        if not any(parameter.requires_grad for parameter in module.parameters()):
            found.append(module)
    return found
