"""The device of this machine on which models that no longer learn compute."""

import torch


def frozen_device() -> str:
    """Name it: "cuda" where there is a GPU, else "cpu". Apple's GPUs do not compute fp64, which features need."""
    return "cuda" if torch.cuda.is_available() else "cpu"
