"""One file, one paper."""

from mae_kit.objectives.beit import BEiT
from mae_kit.objectives.contrastive_mae import ContrastiveMAE
from mae_kit.objectives.cross_mae import CrossMAE
from mae_kit.objectives.fcmae import FCMAE
from mae_kit.objectives.hiera_mae import HieraMAE
from mae_kit.objectives.igpt import IGPT
from mae_kit.objectives.mae import MAE
from mae_kit.objectives.masked_patch import MaskedPatch
from mae_kit.objectives.maskfeat import MaskFeat
from mae_kit.objectives.objective import Objective
from mae_kit.objectives.simmim import SimMIM

__all__ = [
    "FCMAE",
    "IGPT",
    "MAE",
    "BEiT",
    "ContrastiveMAE",
    "CrossMAE",
    "HieraMAE",
    "MaskFeat",
    "MaskedPatch",
    "Objective",
    "SimMIM",
]
