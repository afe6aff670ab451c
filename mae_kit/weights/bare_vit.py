"""Bare state dicts of timm's plain ViTs beyond MAE's: register tokens, layer scale, no class token; DINOv2's and
Pixio's, too.
"""

from typing import Any

from mae_kit.encoders.timm_models import pair
from mae_kit.weights.config import ModelConfig, published_crop
from mae_kit.weights.dinov2 import SWIGLU, behind_class_token, with_first_class_token
from mae_kit.weights.files import Raw
from mae_kit.weights.names import Names, Tensors
from mae_kit.weights.original import ENCODER
from mae_kit.weights.plain_vit import HEAD_DIM, HEADS, Hints, depth_of, find_grid, guessed_heads, mlp_ratio, named
from mae_kit.weights.preprocessor import ASSUMED, imagenet_statistics
from mae_kit.weights.pretrained import Pretrained, described, numbered

MORE = {f"blocks.#.{part}": f"blocks.#.{part}" for part in ("ls1.gamma", "ls2.gamma", "attn.q_norm.*", "attn.k_norm.*")}
GATED = {"blocks.#.mlp.w12.*": "blocks.#.mlp.fc1.*", "blocks.#.mlp.w3.*": "blocks.#.mlp.fc2.*"}  # DINOv2's ViT-g
POOLING = {f"attn_pool.{part}.*": f"attn_pool.{part}.*" for part in ("q", "kv", "proj", "norm", "mlp.fc1", "mlp.fc2")}
NAMES = Names(
    {name: name for name in ("reg_token", "register_tokens", "attn_pool.latent")}
    | {**ENCODER, **MORE, **GATED, **POOLING, "fc_norm.*": "fc_norm.*", "head.*": "head.*"},
    left_out="mask_token",
)
PLAIN = {"patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight"}
BEYOND = {"reg_token", "register_tokens", "blocks.0.ls1.gamma", "blocks.0.attn.q_norm.weight"}


def recognizes(raw: Raw) -> bool:
    names = raw.tensors.keys()
    beyond = bool(BEYOND & names) or "cls_token" not in names or raw.tensors["cls_token"].shape[1:2] != (1,)
    return not raw.config and names >= PLAIN and beyond and "blocks.0.attn.q_bias" not in names


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    tensors, left_out, unknown = NAMES.ours(raw.tensors)
    if "register_tokens" in tensors:
        tensors = behind_class_token(tensors | {"reg_token": tensors.pop("register_tokens")})
    elif "cls_token" in tensors:
        tensors = with_first_class_token(tensors)
    config, notes = _config(raw, tensors, hints)
    kind = f"a plain ViT of timm's, {described(config.classes)}"
    return Pretrained(kind, config, tensors, None, left_out, notes), unknown


def _config(raw: Raw, tensors: Tensors, hints: Hints) -> tuple[ModelConfig, list[str]]:
    dim, channels, height, width = tensors["patch_embed.proj.weight"].shape
    heads, notes = hints.encoder_heads, []
    if not heads:
        heads, note = guessed_heads(dim, HEADS, HEAD_DIM, "encoder")
        notes.append(note)
    prefix = sum(tensors[name].shape[1] for name in ("cls_token", "reg_token") if name in tensors)
    table, rows = tensors["pos_embed"], _rows(tensors["pos_embed"].shape[1], prefix)
    size = hints.image_size
    grid, note = find_grid(str(raw.path), table.shape[1] - rows, [], [size and (size[0] // height, size[1] // width)])
    notes += [note] * bool(note)
    sizes = {"img_size": [grid[0] * height, grid[1] * width], "patch_size": [height, width], "in_chans": channels}
    beyond = sizes | _beyond(tensors, prefix > 0 and rows == 0)
    if _gated(tensors):
        name = SWIGLU["reg_token" in tensors]
        args = beyond | {"embed_dim": dim, "depth": depth_of(tensors), "num_heads": heads}
    else:
        name, args = named(dim, depth_of(tensors), heads, beyond)
    size, (mean, std) = pair(args["img_size"]), imagenet_statistics(channels)
    notes.append(f"images normalized by ImageNet's mean and std; {ASSUMED}")
    how: dict[str, Any] = {"image_size": size, "crop_pct": published_crop(min(size))}
    return ModelConfig(name, args, mean, std, classes=numbered(tensors.get("head.weight")), **how), notes


def _rows(count: int, prefix: int) -> int:
    """Rows of a position table that belong to prefix tokens: timm's models without any leave a square."""
    return 0 if round(count**0.5) ** 2 == count else prefix


def _gated(tensors: Tensors) -> bool:
    """Whether the first layer of an MLP makes a gate for each of its numbers."""
    return len(tensors["blocks.0.mlp.fc1.weight"]) == 2 * tensors["blocks.0.mlp.fc2.weight"].shape[1]


def _beyond(tensors: Tensors, no_embed_class: bool) -> dict[str, Any]:
    """Timm's arguments that differ from those of its plain ViTs."""
    hidden, dim = tensors["blocks.0.mlp.fc1.weight"].shape
    args: dict[str, Any] = {} if hidden == 4 * dim else {"mlp_ratio": mlp_ratio(hidden, dim)}
    args |= {"no_embed_class": True} if no_embed_class else {}
    args |= {"init_values": 1e-5} if "blocks.0.ls1.gamma" in tensors else {}
    args |= {"qk_norm": True} if "blocks.0.attn.q_norm.weight" in tensors else {}
    args |= {} if "blocks.0.attn.qkv.bias" in tensors else {"qkv_bias": False}
    args |= {"reg_tokens": tensors["reg_token"].shape[1]} if "reg_token" in tensors else {}
    args |= {} if "cls_token" in tensors else {"class_token": False}
    pool = "map" if "attn_pool.latent" in tensors else "avg"
    if pool == "map" or "fc_norm.weight" in tensors or "cls_token" not in tensors:
        args |= {"global_pool": pool, "fc_norm": "fc_norm.weight" in tensors}
    return args
