"""One file, one paper."""

from mae_kit.objectives.mae import MAE
from mae_kit.objectives.objective import Objective

__all__ = ["MAE", "Objective"]
