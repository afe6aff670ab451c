"""FCMAE (Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", CVPR 2023)."""

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.encoders.convnextv2 import ConvNeXtV2
from mae_kit.encoders.decoders import ConvNeXtDecoder
from mae_kit.masking import must_leave_both, random_mask, visible_count
from mae_kit.objectives.objective import Objective
from mae_kit.targets import hidden_mean_squared_error, patch_targets, predicted_images
from mae_kit.tensors import Outcome


class FCMAE(Objective):
    """Hide most cells from a convolutional encoder, decode all by one block, compare the hidden ones with the pixels.

    The cells are those of the encoder's last stage, 32 pixels a side in the paper. Response normalization is over the
    visible positions of each sample, as in the paper's JAX code (TRAINING.md); the released PyTorch code takes those of
    the whole batch together.

    Args:
        encoder: Hidden cells are zero in it, as in a sparse convolution.
        mask_ratio: Share of the cells that is hidden (paper: .6).
        norm_pix_loss: Compare with each cell normalized by its own mean and deviation.
        decoder_dim: Width of the decoder (paper: 512).
        decoder_depth: Blocks of the decoder (paper: 1).

    Raises:
        UserError: The ratio leaves no cell visible or none hidden.
    """

    encoder: ConvNeXtV2

    def __init__(
        self,
        encoder: ConvNeXtV2,
        mask_ratio: float = 0.6,
        norm_pix_loss: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 1,
    ):
        super().__init__()
        cells = encoder.grid[0] * encoder.grid[1]
        choice = "about .6, or a smaller output_stride of the encoder"
        self.visible = visible_count(cells, mask_ratio)
        must_leave_both(self.visible, cells, mask_ratio, choice)
        self.encoder, self.mask_ratio, self.norm_pix_loss = encoder, mask_ratio, norm_pix_loss
        outputs = encoder.patch_size[0] * encoder.patch_size[1] * encoder.channels
        self.decoder = ConvNeXtDecoder(encoder.dim, encoder.grid, outputs, decoder_dim, decoder_depth)
        self.decoder.apply(_initialize)
        nn.init.normal_(self.decoder.mask_token, std=0.02)

    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        return self.compare(images, random_mask(keys, self.encoder.grid, self.mask_ratio), self.visible)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], count: int | None = None
    ) -> Outcome:
        """The loss under a given mask, which hides as many in every row; `count` are visible, where that is known."""
        prediction = self.decoder(self.encoder.zero(images, hidden, count), hidden)
        target = patch_targets(images, self.encoder.patch_size, self.norm_pix_loss)
        return Outcome(hidden_mean_squared_error(prediction, target, hidden), {}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return predicted_images(prediction, images, self.encoder.patch_size, self.norm_pix_loss)


def _initialize(module: nn.Module) -> None:
    """As timm has it in the encoder; the released code leaves most at a deviation of 1, which the paper has not."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
