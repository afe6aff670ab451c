"""BEiT (Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022)."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.encoders import Beit, ViT
from mae_kit.encoders.beit import truncated_normal
from mae_kit.encoders.tokenizers import fingerprint, load_tokenizer
from mae_kit.errors import UserError
from mae_kit.masking import blocks_fit, blockwise_mask, must_leave_both, visible_count
from mae_kit.objectives.objective import Objective
from mae_kit.tensors import Outcome


class BEiT(Objective):
    """Replace blocks of patches by a token, encode everything, predict the hidden patches' codes of a tokenizer.

    The tokenizer sees the same crop at the size where it has one code a patch: the encoder's is resized to it. The
    original cuts it out of the photo a second time (datasets.py, Lanczos).

    Args:
        encoder: Sees the token in place of hidden patches.
        tokenizer: The run of `mae-kit tokenizer`, its tokenizer.safetensors, or a folder with DALL-E's encoder.pkl and
            decoder.pkl; it is read wherever the model is.
        mask_ratio: Share of the patches that is hidden at most (paper: .4; released: 75 of 196).
        smallest_block: Patches that are hidden at once at least (paper: 16).

    Raises:
        UserError: No tokenizer is there or it takes other images, the ratio leaves no patch on one side, or no block
            fits.
    """

    encoder: Beit | ViT
    no_decay = ("encoder.model.cls_token", "encoder.model.pos_embed")  # unilm, beit/modeling_pretrain.py

    def __init__(self, encoder: Beit | ViT, tokenizer: str, mask_ratio: float = 0.4, smallest_block: int = 16):
        super().__init__()
        rows, columns = encoder.grid
        must_leave_both(visible_count(rows * columns, mask_ratio), rows * columns, mask_ratio, "about .4")
        self.encoder, self.smallest = encoder, smallest_block
        self.most = int(rows * columns * mask_ratio)
        if not (0 < smallest_block <= self.most and blocks_fit(encoder.grid, self.most, smallest_block)):
            what = f"blocks of {smallest_block} to {self.most} patches do not fit into {rows}x{columns}"
            raise UserError("beit.unusable", what, "choose a smaller smallest_block, above 0, or a larger image")
        self.tokenizer = load_tokenizer(Path(tokenizer))
        if self.tokenizer.channels != encoder.channels:
            what = f"{tokenizer} takes images of {self.tokenizer.channels} channels, the encoder {encoder.channels}"
            raise UserError("beit.unusable", what, "train a tokenizer on such images")
        self.register_buffer("codes_of", fingerprint(self.tokenizer))
        self.register_load_state_dict_pre_hook(_must_have_its_codes)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.dim))  # 3-D as in the original, where it decays
        self.head = nn.Linear(encoder.dim, self.tokenizer.codebook)
        truncated_normal(self.mask_token)
        truncated_normal(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        hidden = blockwise_mask(keys, self.encoder.grid, self.most, self.smallest)
        return self.compare(images, hidden, self.codes(images))

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], codes: Int64[Tensor, "b n"]
    ) -> Outcome:
        """The loss under a given mask: cross-entropy, a mean over the hidden patches of the whole batch."""
        tokens = self.encoder.fill(images, hidden, self.mask_token[0, 0])
        prediction = self.head(tokens[:, self.encoder.prefix :])
        asked, target = prediction[hidden].float(), codes[hidden]
        right, count = asked.argmax(dim=1) == target, max(1, len(target))  # none where no block fitted
        loss = F.cross_entropy(asked, target, reduction="sum") / count
        return Outcome(loss, {"accuracy": right.sum() / count}, hidden, prediction)

    def codes(self, images: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b n"]:
        """What is to be predicted, in fp32: rounding would change which code is the best."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.tokenizer.encode(self._view(self.colors(images)))

    def _view(self, colors: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c y x"]:
        (rows, columns), (height, width) = self.encoder.grid, self.tokenizer.stride
        size = rows * height, columns * width
        if colors.shape[2:] == size:
            return colors
        return F.interpolate(colors, size, mode="bicubic", antialias=True).clamp(0, 1)

    def pixels(self, prediction: Float[Tensor, "b n k"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self._decoded(prediction.argmax(dim=2), images)

    def target_pixels(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self._decoded(self.codes(images), images)

    def _decoded(self, codes: Int64[Tensor, "b n"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        decoded = self.tokenizer.decode(codes, self.encoder.grid)
        if decoded.shape != images.shape:
            decoded = F.interpolate(decoded, images.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)
        return self.normalize(decoded)


def _must_have_its_codes(beit: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Refuse weights that were trained on the codes of another tokenizer, which may lie in the same place since."""
    name = f"{prefix}codes_of"
    if name in state and not torch.equal(state[name].cpu(), beit.codes_of.cpu()):
        what = "the tokenizer is not the one whose codes these weights were trained on"
        raise UserError("beit.its_codes", what, "give that one with --objective.tokenizer, or start a new run")
