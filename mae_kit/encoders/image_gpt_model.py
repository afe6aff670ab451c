"""iGPT's transformer over the colors of pixels, registered with timm.

Chen et al., "Generative Pretraining from Pixels", ICML 2020; image-gpt, src/model.py. After `import mae_kit.encoders`,
`timm.create_model("igpt_s", ...)` makes one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from timm.layers import get_act_layer
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae_kit.encoders.palette import fit_palette, nearest_colors
from mae_kit.encoders.timm_models import pair
from mae_kit.randomness import ORDER, uniform

_BLOCK = {"proj_bias": False, "act_layer": get_act_layer("quick_gelu"), "norm_layer": partial(nn.RMSNorm, eps=1e-5)}


class TimmImageGPT(nn.Module):
    """A transformer over pixels in raster order: each token embeds the nearest color of a palette, and a position.

    Its norms are RMS norms, its linear layers have no bias.

    Args:
        img_size: Height and width in pixels, one number for a square.
        in_chans: Channels of the images.
        num_classes: Classes of the linear head on the mean of all tokens; 0 for none.
        colors: Size of the palette.
        embed_dim: Width of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        causal: Whether a token attends only to earlier ones; its input is then the previous color.

    Attributes:
        palette: Colors in the space of the images, [k c].
        has_palette: Whether the palette was fitted or loaded; before, its colors are arbitrary.
    """

    palette: Tensor
    has_palette: bool

    def __init__(
        self,
        img_size: int | list[int] | tuple[int, int] = 32,
        in_chans: int = 3,
        num_classes: int = 1000,
        colors: int = 512,
        embed_dim: int = 512,
        depth: int = 24,
        num_heads: int = 8,
        causal: bool = True,
    ):
        super().__init__()
        self.img_size, self.causal = pair(img_size), causal
        self.num_features = self.embed_dim = embed_dim
        self.register_buffer("palette", uniform(torch.arange(colors), ORDER, in_chans) * 2 - 1)  # until it is fitted
        self.has_palette = False
        self.register_load_state_dict_pre_hook(_palette_is_loaded)
        self.embed = nn.Embedding(colors, embed_dim)
        self.pos_embed = nn.Parameter(torch.empty(self.img_size[0] * self.img_size[1], embed_dim))
        self.start = nn.Parameter(torch.empty(embed_dim)) if causal else None
        self.blocks = nn.ModuleList([Block(embed_dim, num_heads, **_BLOCK) for _ in range(depth)])
        self.norm = nn.RMSNorm(embed_dim, eps=1e-5)
        self.color_head = nn.Linear(embed_dim, colors, bias=False)
        self.reset_classifier(num_classes)
        self._initialize()
        self.color_head.requires_grad_(not num_classes)  # a classifier does not need it

    def _initialize(self) -> None:
        """Initialize as the released code does; the head that predicts colors starts at zero."""
        dim, depth = self.embed_dim, len(self.blocks)
        stds = {"attn.qkv": dim**-0.5, "attn.proj": (dim * depth) ** -0.5, "pos_embed": 0.01, "color_head": 0.0}
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 or name == "start":
                nn.init.normal_(parameter, std=next((std for part, std in stds.items() if part in name), 0.02))

    def fit_palette(self, images: Float[Tensor, "m c h w"]) -> None:
        """Fit the palette to images, by k-means over their pixels.

        Args:
            images: Normalized as in training.

        Raises:
            UserError: The images have fewer colors than the palette.
        """
        pixels = images.movedim(1, 3).flatten(0, 2).float().cpu().numpy()
        self.palette.copy_(torch.from_numpy(fit_palette(pixels, len(self.palette))))
        self.has_palette = True

    def codes(self, images: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b n"]:
        """Map each pixel to the index of the nearest color in the palette."""
        return nearest_colors(images.flatten(2).transpose(1, 2), self.palette)

    def enter(self, codes: Int64[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Embed the colors of whole images."""
        return self.colors_before(codes) if self.causal else self.embed(codes)

    def colors_before(self, codes: Int64[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Embed the input of a causal model: at each position the previous color, at the first the start token."""
        assert self.start is not None
        first = self.start.expand(codes.shape[0], 1, -1)  # len(codes) would fix the batch of an exported graph
        return torch.cat([first, self.embed(codes[:, :-1])], dim=1)

    def encode(self, embedded: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Encode embedded colors: all tokens after the final norm."""
        return self.encode_layers(embedded, [len(self.blocks)])[0]

    def fill(
        self, codes: Int64[Tensor, "b n"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " d"]
    ) -> Float[Tensor, "b n d"]:
        """Encode with `token` in place of each hidden pixel's embedding; for a model that is not causal."""
        embedded = self.embed(codes)
        return self.encode(torch.where(hidden[:, :, None], token.to(embedded.dtype), embedded))

    def encode_layers(self, embedded: Float[Tensor, "b n d"], numbers: Sequence[int]) -> list[Float[Tensor, "b n d"]]:
        """Tokens after some of the blocks, from 1 and ascending, each through the norm that follows it."""
        x, found = embedded + self.pos_embed, []
        norms = [*(block.norm1 for block in self.blocks[1:]), self.norm]
        for number, (block, norm) in enumerate(zip(self.blocks[: numbers[-1]], norms, strict=False), 1):
            x = block(x, is_causal=self.causal)
            if number in numbers:
                found.append(norm(x))
        return found

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Encode whole images: all tokens after the final norm."""
        return self.encode(self.enter(self.codes(images)))

    def forward_head(self, tokens: Float[Tensor, "b n d"], pre_logits: bool = False) -> Float[Tensor, "b k"]:
        pooled = tokens.mean(dim=1)
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Group parameters into layers, as timm asks for layer decay."""
        return {"stem": r"^embed|^pos_embed|^start", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


def _palette_is_loaded(model: TimmImageGPT, tensors: dict[str, Tensor], prefix: str, *_: Any) -> None:
    model.has_palette |= f"{prefix}palette" in tensors


_CFG: dict[str, Any] = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 32, 32),
    "pool_size": None,
    "fixed_input_size": True,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "first_conv": None,
    "classifier": "head",
}
default_cfgs = generate_default_cfgs({name: dict(_CFG) for name in ("igpt_s", "igpt_m", "igpt_l")})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> TimmImageGPT:
    model: Any = build_model_with_cfg(TimmImageGPT, variant, pretrained, **kwargs)
    model.pretrained_cfg["input_size"] = (model.palette.shape[1], *model.img_size)  # there is no patch_embed to ask
    return model


@register_model
def igpt_s(pretrained: bool = False, **kwargs: Any) -> TimmImageGPT:
    """Make the model of 76M parameters."""
    return _create("igpt_s", pretrained, **{"embed_dim": 512, "depth": 24, "num_heads": 8} | kwargs)


@register_model
def igpt_m(pretrained: bool = False, **kwargs: Any) -> TimmImageGPT:
    """Make the model of 455M parameters."""
    return _create("igpt_m", pretrained, **{"embed_dim": 1024, "depth": 36, "num_heads": 8} | kwargs)


@register_model
def igpt_l(pretrained: bool = False, **kwargs: Any) -> TimmImageGPT:
    """Make the model of 1.36G parameters."""
    return _create("igpt_l", pretrained, **{"embed_dim": 1536, "depth": 48, "num_heads": 16} | kwargs)
