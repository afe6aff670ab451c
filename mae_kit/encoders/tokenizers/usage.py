"""How a codebook is used: how many codes, and how much information they carry."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

COLLAPSED = 0.02  # fraction of the codes in use
ONE = 1.5  # codes in use; fewer count as one, in any codebook


class Usage:
    """Statistics of a codebook, accumulated over batches.

    Args:
        codes: Size of the codebook.
        device: Of the logits.

    Attributes:
        counts: How often each code was the most likely one.
    """

    def __init__(self, codes: int, device: torch.device | str = "cpu"):
        self.counts = torch.zeros(codes, device=device)
        self._probs, self._entropy_sum = torch.zeros_like(self.counts), torch.zeros_like(self.counts[0])

    def add(self, logits: Float[Tensor, "b k y x"]) -> None:
        """Add a batch: logits of k codes for each patch."""
        self.counts += torch.bincount(logits.argmax(dim=1).flatten(), minlength=len(self.counts))
        probs = logits.float().softmax(dim=1)
        self._probs += probs.sum(dim=(0, 2, 3))
        self._entropy_sum += torch.special.entr(probs).sum()

    @property
    def used(self) -> int:
        """Number of codes that were the most likely one somewhere."""
        return int((self.counts > 0).sum())

    @property
    def perplexity(self) -> float:
        """Effective number of codes in use, the exponential of their entropy: 1 to k."""
        return float(_entropy(self.counts).exp())

    @property
    def bits(self) -> float:
        """Mutual information of a patch and its code, drawn as in training: 0 to log2 k bits.

        Codes that mean the same are all in use, but carry no information.
        """
        return max(0.0, float(_entropy(self._probs) - self._entropy_sum / self.counts.sum())) / math.log(2)

    @property
    def collapsed(self) -> bool:
        """Whether the codes carry little information: less than 2% of those that could be in use, or one code."""
        enough = max(ONE, COLLAPSED * min(len(self.counts), float(self.counts.sum())))
        return min(self.perplexity, 2**self.bits) < enough


def _entropy(weights: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """Compute the entropy in nats of weights, normalized to a distribution."""
    return torch.special.entr(weights / weights.sum()).sum()
