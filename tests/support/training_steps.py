"""Ten training steps of an objective, whose losses show any change in arithmetic."""

import torch

from mae_kit.objectives import Objective
from mae_kit.training.optimizer import parameter_groups


def ten_losses(objective: Objective, images: torch.Tensor, betas: tuple[float, float]) -> list[float]:
    """Losses of ten AdamW steps on the same images with different masks."""
    optimizer = torch.optim.AdamW(parameter_groups(objective.train(), 0.05, objective.no_decay), lr=3e-3, betas=betas)
    losses = []
    for step in range(10):
        outcome = objective(images, torch.arange(len(images)) + len(images) * step)
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        losses.append(outcome.loss.item())
    return losses
