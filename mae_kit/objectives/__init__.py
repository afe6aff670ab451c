"""One file, one paper."""

from mae_kit.objectives.beit import BEiT
from mae_kit.objectives.mae import MAE
from mae_kit.objectives.masked_patch import MaskedPatch
from mae_kit.objectives.objective import Objective
from mae_kit.objectives.simmim import SimMIM

__all__ = ["MAE", "BEiT", "MaskedPatch", "Objective", "SimMIM"]
