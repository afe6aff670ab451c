"""Which parameters decay, how fast each layer learns, and the optimizer over those groups.

Every group carries `lr_scale`: the training module sets `lr = learning_rate(...) * lr_scale` at each step.
"""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, Literal

import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

Group = dict[str, Any]


def parameter_groups(module: nn.Module, weight_decay: float, no_decay: Collection[str] = ()) -> list[Group]:
    """Groups that learn at one rate: no decay on biases and other 1-D parameters, nor on those named.

    MAE pretraining names none: its class and mask tokens are 3-D and do decay.

    Args:
        module: Its parameters that require gradients are grouped, frozen ones are left out.
        weight_decay: Decay of all others, 0 or more.
        no_decay: Full parameter names, wildcards allowed.
    """
    groups = param_groups_weight_decay(module, weight_decay, no_weight_decay_list=no_decay)
    return [{**group, "lr_scale": 1.0} for group in groups]


def layer_decay_groups(
    classifier: nn.Module, weight_decay: float, layer_decay: float, layer_blocks: int = 1
) -> list[Group]:
    """Groups whose rate falls by `layer_decay` a layer from the head down to the embedding (BEiT, MAE fine-tuning).

    Layers are what timm's `group_matcher` of the model says: depth + 2 of them in a ViT, so that block i of `depth`
    has scale layer_decay ** (depth - i), the embedding layer_decay ** (depth + 1) and head and `fc_norm` have 1.

    Args:
        classifier: A timm model; parameters it names in `no_weight_decay()` do not decay.
        weight_decay: Decay of all but 1-D parameters and those.
        layer_decay: In (0, 1]; 1 gives plain groups.
        layer_blocks: Consecutive blocks of a stage that are one layer; in models of one stage a block always is.
    """
    names = classifier.no_weight_decay() if hasattr(classifier, "no_weight_decay") else set()  # type: ignore[operator]
    if layer_decay == 1.0:
        return parameter_groups(classifier, weight_decay, names)
    module: Any = classifier if layer_blocks == 1 else _joined(classifier, layer_blocks)
    return param_groups_layer_decay(module, weight_decay, no_weight_decay_list=names, layer_decay=layer_decay)


def _joined(classifier: Any, blocks: int) -> SimpleNamespace:
    """What timm asks of a model to group its parameters, with several blocks of a stage in one layer."""
    stages, layers = (parameter_layers(classifier, coarse) for coarse in (True, False))
    first = {stage: min(layers[name] for name in layers if stages[name] == stage) for stage in set(stages.values())}
    layer = {name: (stage, (layers[name] - first[stage]) // blocks) for name, stage in stages.items()}
    return SimpleNamespace(named_parameters=classifier.named_parameters, group_matcher=lambda coarse: layer.__getitem__)


def parameter_layers(classifier: Any, coarse: bool = False) -> dict[str, int]:
    """The layer of each parameter of a timm model, by its name: 0 the embedding, the last the head; or its stage."""
    found: Any = group_parameters(classifier, classifier.group_matcher(coarse=coarse), reverse=True)
    return found


def build_optimizer(
    groups: list[Group], name: Literal["adamw", "sgd"] = "adamw", betas: tuple[float, float] = (0.9, 0.95)
) -> torch.optim.Optimizer:
    """An optimizer whose learning rate is 0 until the training module sets it.

    Args:
        groups: From `parameter_groups` or `layer_decay_groups`.
        name: AdamW, or SGD with momentum .9 for residual networks.
        betas: AdamW only; (.9, .95) in MAE pretraining, (.9, .999) in fine-tuning.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=_fused(groups))


def _fused(groups: list[Group]) -> bool:
    """One kernel for all parameters; on the CPU too, where it is several times the speed of the loop."""
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return devices <= {"cpu", "cuda", "mps", "xpu"}
