"""Synthetic features of overlapping classes."""

import torch


def clusters(seed: int, count: int, classes: int = 5, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw labeled features with close votes; the seed changes the samples, not the classes."""
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=random)
    return centers[labels] + 1.5 * torch.randn(count, width, generator=random), labels


def overlapping(labels: torch.Tensor) -> torch.Tensor:
    """Turn labels into sets of five classes: {k, k + 1} for k < 3, {3} for k = 3, otherwise empty."""
    numbers = torch.arange(5)
    return ((numbers == labels[:, None]) | (numbers == labels[:, None] + 1) & (labels[:, None] < 3)) & (
        labels[:, None] < 4
    )
