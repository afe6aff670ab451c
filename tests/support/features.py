"""Made-up features in classes that overlap."""

import torch


def clusters(seed: int, count: int, classes: int = 5, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes, so that votes are close; the seed changes the samples and not the classes."""
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=random)
    return centers[labels] + 1.5 * torch.randn(count, width, generator=random), labels


def overlapping(labels: torch.Tensor, classes: int = 5) -> torch.Tensor:
    """Sets of classes: k and k + 1 where an image of one label has k < 3, k alone where it is 3, else none."""
    numbers = torch.arange(classes)
    return ((numbers == labels[:, None]) | (numbers == labels[:, None] + 1) & (labels[:, None] < 3)) & (
        labels[:, None] < 4
    )
