"""FCMAE (Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", CVPR 2023)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mae_kit.encoders.convnextv2 import ConvNeXtV2
from mae_kit.encoders.decoders import ConvNeXtDecoder
from mae_kit.objectives.masking import RandomMask
from mae_kit.objectives.objective import Objective, Outcome
from mae_kit.objectives.targets import hidden_mean_squared_error, patch_targets, predicted_images


class FCMAE(Objective):
    """Hide most cells from a convolutional encoder, decode all with one block, and predict the pixels of the hidden
    ones.

    The cells are those of the encoder's last stage, 32 pixels a side in the paper. Global response normalization (GRN)
    is computed over the visible positions of each sample, as in the paper's JAX code (TRAINING.md); in the released
    PyTorch code, over those of the whole batch.

    Args:
        encoder: Hidden cells are zero in it, as in a sparse convolution.
        mask_ratio: Fraction of the cells that is hidden (paper: .6).
        norm_pix_loss: Predict cells normalized by their own mean and standard deviation.
        decoder_dim: Width of the decoder (paper: 512).
        decoder_depth: Blocks of the decoder (paper: 1).

    Raises:
        UserError: The ratio leaves no cell visible or none hidden.

    Example:
        >>> import torch, mae_kit as mk
        >>> convnext = mk.ConvNeXtV2("convnextv2_atto", img_size=64, output_stride=16)
        >>> fcmae = mk.FCMAE(convnext, decoder_dim=32)
        >>> fcmae(torch.randn(2, 3, 64, 64)).hidden.sum(dim=1)  # of 4 x 4 cells
        tensor([10, 10])
    """

    encoder: ConvNeXtV2
    decoder: ConvNeXtDecoder

    def __init__(
        self,
        encoder: ConvNeXtV2,
        mask_ratio: float = 0.6,
        norm_pix_loss: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 1,
    ):
        super().__init__(encoder)
        self.hide = RandomMask(encoder.grid, mask_ratio, "about .6, or a smaller output_stride of the encoder")
        self.norm_pix_loss = norm_pix_loss
        outputs = encoder.patch_size[0] * encoder.patch_size[1] * encoder.channels
        self.decoder = ConvNeXtDecoder(encoder.dim, encoder.grid, outputs, decoder_dim, decoder_depth)
        self.initialize()

    def initialize_weights(self, encoder: bool) -> None:
        self.decoder.apply(_initialize)
        nn.init.normal_(self.decoder.mask_token, std=0.02)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        prediction = self.decoder(self.encoder.zero(images, hidden, visible), hidden)
        target = patch_targets(images, self.encoder.patch_size, self.norm_pix_loss)
        return Outcome(hidden_mean_squared_error(prediction, target, hidden), {}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return predicted_images(prediction, images, self.encoder.patch_size, self.norm_pix_loss)


def _initialize(module: nn.Module) -> None:
    """Initialize as timm does the encoder; the released code leaves most at a deviation of 1, unlike the paper."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
