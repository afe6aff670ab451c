"""How a codebook is used: how many of its codes, and what they tell of an image."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

COLLAPSED = 0.02  # of the codes
ONE = 1.5  # fewer in use are as good as one, however small the codebook


class Usage:
    """Of a codebook, by what a tokenizer says of images, a batch at a time.

    Args:
        codes: Size of the codebook.
        device: Where what the tokenizer says is.

    Attributes:
        counts: How often each code was the best one.
    """

    def __init__(self, codes: int, device: torch.device | str = "cpu"):
        self.counts = torch.zeros(codes, device=device)
        self._shares, self._chance = torch.zeros_like(self.counts), torch.zeros_like(self.counts[0])

    def add(self, logits: Float[Tensor, "b k y x"]) -> None:
        """Some images: how well each of k codes suits each patch."""
        self.counts += torch.bincount(logits.argmax(dim=1).flatten(), minlength=len(self.counts))
        shares = logits.float().softmax(dim=1)
        self._shares += shares.sum(dim=(0, 2, 3))
        self._chance += torch.special.entr(shares).sum()

    @property
    def used(self) -> int:
        """Codes that were the best one somewhere."""
        return int((self.counts > 0).sum())

    @property
    def perplexity(self) -> float:
        """How many codes are in use: as many as a uniform draw of the same entropy would have, 1 to k."""
        return float(_entropy(self.counts).exp())

    @property
    def bits(self) -> float:
        """What a code tells of its patch, 0 to log2 k: the mutual information of the two, codes being drawn as in
        training. Codes that mean the same, one of which is then the best by chance, are in use and tell nothing.
        """
        return max(0.0, float(_entropy(self._shares) - self._chance / self.counts.sum())) / math.log(2)

    @property
    def collapsed(self) -> bool:
        """Whether so few codes are in use, or told apart by their patches, that they say little of an image: a fiftieth
        of those that could be, which are no more than there were patches, and not above one in any codebook.
        """
        enough = max(ONE, COLLAPSED * min(len(self.counts), float(self.counts.sum())))
        return min(self.perplexity, 2**self.bits) < enough


def _entropy(weights: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """In nats, of the distribution that is proportional to the weights."""
    return torch.special.entr(weights / weights.sum()).sum()
