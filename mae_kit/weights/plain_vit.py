"""Plain vision transformers of any origin: their sizes, read from the shapes of the tensors."""

from dataclasses import dataclass
from typing import Any

from mae_kit.errors import UserError
from mae_kit.weights.names import Tensors

# Width, blocks, heads: as the papers name them.
NAMED = {
    (192, 12, 3): "vit_tiny_patch16_224",
    (384, 12, 6): "vit_small_patch16_224",
    (768, 12, 12): "vit_base_patch16_224",
    (1024, 24, 16): "vit_large_patch16_224",
    (1280, 32, 16): "vit_huge_patch14_224",
}
HEADS = {dim: heads for dim, _, heads in NAMED}
HEAD_DIM, DECODER_HEAD_DIM = 64, 32  # in the papers' sizes but the huge one's, and of MAE's decoder

BLOCK = {f"{part}.*": f"{part}.*" for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}


@dataclass(frozen=True)
class Hints:
    """What no tensor shows and the user may know.

    Attributes:
        encoder_heads: Attention heads of the encoder.
        decoder_heads: Attention heads of the decoder.
        normalized: Whether the decoder predicts normalized patches (norm_pix_loss).
    """

    encoder_heads: int | None = None
    decoder_heads: int | None = None
    normalized: bool | None = None


def depth_of(tensors: Tensors) -> int:
    """Blocks, by the highest number."""
    return 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")), default=-1)


def guessed_heads(dim: int, known: dict[int, int], head_dim: int, what: str) -> tuple[int, str]:
    """Heads of a width that are in no tensor's shape, and the sentence that says so.

    Raises:
        UserError: The width is not one of those in use.
    """
    heads = known.get(dim) or dim // head_dim
    if not heads or dim % heads:
        raise UserError(
            "weights.heads",
            f"a width of {dim} does not say how many heads {what} has",
            f"give --{what}-heads N",
        )
    return heads, f"{what}: {heads} attention heads, by its width of {dim}; --{what}-heads says otherwise"


def model_of(file: str, tensors: Tensors, heads: int) -> tuple[str, dict[str, Any]]:
    """Timm's name and arguments of a plain ViT whose position table is that of a square.

    Raises:
        UserError: Its layers are of other proportions than a plain ViT's, the grid is no square, or the heads do not
            divide the width.
    """
    kernel, table = tensors["patch_embed.proj.weight"], tensors["pos_embed"]
    dim, channels, height, width = kernel.shape
    hidden = tensors["blocks.0.mlp.fc1.bias"].numel()
    if hidden != 4 * dim:
        raise UserError(
            "weights.unsupported",
            f"{file}: MLP width {hidden} with embed_dim {dim}",
            "only an mlp_ratio of 4 is supported",
        )
    if dim % heads:
        raise UserError(
            "weights.unsupported",
            f"{file}: {heads} attention heads do not divide its width of {dim}",
            "give --encoder-heads N",
        )
    side = round((table.shape[1] - 1) ** 0.5)
    if side**2 != table.shape[1] - 1:
        raise UserError(
            "weights.unsupported",
            f"{file}: {table.shape[1]} positions are not one class token and a square grid",
            "give such a file",
        )
    sizes = {"img_size": _one_or_two(side * height, side * width), "patch_size": _one_or_two(height, width)}
    return named(dim, depth_of(tensors), heads, sizes | {"in_chans": channels})


def named(dim: int, depth: int, heads: int, sizes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """One of the named sizes, or the base one with what differs."""
    if name := NAMED.get((dim, depth, heads)):
        return name, sizes
    return "vit_base_patch16_224", sizes | {"embed_dim": dim, "depth": depth, "num_heads": heads}


def _one_or_two(height: int, width: int) -> int | list[int]:
    return height if height == width else [height, width]
