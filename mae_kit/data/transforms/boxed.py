"""Images and their boxes, scaled, cropped, flipped and colored together, on the device."""

from typing import Any

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

from mae_kit.data.transforms.paired import PairedAugment

VISIBLE = 0.3  # fraction of a box that a crop must show, else the box is left out


class BoxedAugment(PairedAugment):
    """As `PairedAugment`, for boxes: the part of each that a crop shows, without those of which it shows little."""

    def forward(  # type: ignore[override]
        self,
        images: Num[Tensor, "b c h w"],
        boxes: Float[Tensor, "b m 6"],
        seeds: Int64[Tensor, " b"],
        sizes: Int64[Tensor, "b 2"],
    ) -> tuple[Float[Tensor, "b c y x"], Float[Tensor, "b m 6"]]:
        """Crops of `size`, images normalized; fp32 under autocast too.

        Args:
            images: Padded to one size.
            boxes: Edges in pixels, class, and 1 for a crowd; class -1 where there is none.
            seeds: Of the samples.
            sizes: Height and width of each image without its padding.
        """
        with torch.autocast(images.device.type, enabled=False):
            shown, maps = self.crops(images, seeds, sizes)
            return shown, self._moved(boxes, maps)

    def _moved(self, boxes: Tensor, maps: Float[Tensor, "b 2 3"]) -> Tensor:
        factor, shift = maps[:, [0, 1, 0, 1], [0, 1, 0, 1]][:, None], maps[:, [0, 1, 0, 1], 2][:, None]
        edges = (boxes[..., :4] - 0.5) * factor + shift + 0.5  # maps are of the centers of pixels
        edges = torch.cat([torch.minimum(*edges.split(2, -1)), torch.maximum(*edges.split(2, -1))], dim=-1)
        most: Any = edges.new_tensor([self.size[1], self.size[0]] * 2)
        inside = edges.clamp(min=0).minimum(most)
        seen = _area(inside) / _area(edges).clamp(min=1e-6)
        kept = (boxes[..., 4] >= 0) & (seen >= VISIBLE) & (_area(inside) > 0)
        return torch.cat([inside, torch.where(kept, boxes[..., 4], -1.0)[..., None], boxes[..., 5:]], dim=-1)


def _area(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
