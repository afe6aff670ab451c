"""BEiT (Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022)."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.encoders import BEiTEncoder, ViT
from mae_kit.encoders.beit import truncated_normal
from mae_kit.encoders.tokenizers import fingerprint, load_tokenizer
from mae_kit.errors import UserError
from mae_kit.objectives.masking import BlockwiseMask
from mae_kit.objectives.objective import Objective, Outcome

IGNORED = -100  # by the cross-entropy of torch: picking the hidden patches would wait for the device


class BEiT(Objective):
    """Replace blocks of patches with a mask token, encode everything, predict the codes of the hidden patches.

    The tokenizer sees the same crop, resized so that each patch has one code. The original crops the photo a second
    time for it (datasets.py, Lanczos).

    Args:
        encoder: Sees the mask token in place of hidden patches.
        tokenizer: A run of `mae-kit tokenizer`, its tokenizer.safetensors, or a folder with DALL-E's encoder.pkl and
            decoder.pkl; needed whenever the model is loaded.
        mask_ratio: Maximum fraction of the patches that is hidden (paper: .4; released code: 75 of 196 patches).
        smallest_block: Minimum number of patches in a block (paper: 16).

    Raises:
        UserError: There is no tokenizer or it takes other images, the ratio leaves no patch visible or none hidden, or
            blocks do not fit. Of `forward`: the statistics were never set.

    Example:
        >>> import tempfile, torch, mae_kit as mk
        >>> from pathlib import Path
        >>> from mae_kit.encoders.tokenizers import save_tokenizer
        >>> tokenizer = save_tokenizer(Path(tempfile.mkdtemp()), mk.DVAE(codes=16, width=8, blocks=1, code_dim=8))
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> beit = mk.BEiT(vit, str(tokenizer), smallest_block=2)
        >>> beit.set_statistics(mean=[0.5] * 3, std=[0.25] * 3)
        >>> outcome = beit(torch.randn(2, 3, 32, 32))
        >>> outcome.prediction.shape  # 16 codes for each of 4 x 4 patches
        torch.Size([2, 16, 16])
    """

    encoder: BEiTEncoder | ViT
    no_decay = ("encoder.model.cls_token", "encoder.model.pos_embed")  # unilm, beit/modeling_pretrain.py

    def __init__(self, encoder: BEiTEncoder | ViT, tokenizer: str, mask_ratio: float = 0.4, smallest_block: int = 16):
        super().__init__(encoder)
        most = int(encoder.grid[0] * encoder.grid[1] * mask_ratio)
        self.hide = BlockwiseMask(encoder.grid, most, smallest_block, mask_ratio)
        self.tokenizer = load_tokenizer(Path(tokenizer))
        if self.tokenizer.channels != encoder.channels:
            what = f"{tokenizer} takes images of {self.tokenizer.channels} channels, the encoder {encoder.channels}"
            raise UserError("objective.tokenizer.channels", what, "train a tokenizer on such images")
        self.register_buffer("codes_of", fingerprint(self.tokenizer))
        self.register_load_state_dict_pre_hook(_must_have_its_codes)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.dim))  # 3-D as in the original, where it decays
        self.head = nn.Linear(encoder.dim, self.tokenizer.codebook)
        self.initialize()

    def initialize_weights(self, encoder: bool) -> None:
        truncated_normal(self.mask_token)
        truncated_normal(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        return self.compare_codes(images, hidden, self.codes(images))

    def compare_codes(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], codes: Int64[Tensor, "b n"]
    ) -> Outcome:
        """Compute the cross-entropy with given codes, a mean over the hidden patches of the whole batch."""
        tokens = self.encoder.fill(images, hidden, self.mask_token[0, 0])
        prediction = self.head(tokens[:, self.encoder.prefix :])
        count = hidden.sum().clamp(min=1)  # none where no block fitted
        target = torch.where(hidden, codes, IGNORED)
        loss = F.cross_entropy(prediction.flatten(0, 1).float(), target.flatten(), reduction="sum") / count
        return Outcome(loss, {"accuracy": (prediction.argmax(dim=2) == target).sum() / count}, hidden, prediction)

    def codes(self, images: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b n"]:
        """Compute the codes to predict, in fp32: rounding would change which one is the best."""
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


def _must_have_its_codes(objective: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Refuse weights trained on the codes of another tokenizer, which may have replaced it at the same path."""
    name = f"{prefix}codes_of"
    if name in state and not torch.equal(state[name].cpu(), objective.codes_of.cpu()):
        what = "these weights were trained on the codes of another tokenizer"
        raise UserError(
            "objective.tokenizer.changed", what, "give that one with --objective.tokenizer, or start a new run"
        )
