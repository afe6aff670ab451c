"""Hugging Face's ViTMAE and ViT, as transformers writes and reads them: config.json and model.safetensors."""

from typing import Any

import torch
from torch import Tensor

from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.files import Raw
from mae_kit.weights.names import PARTS, Names, prefixed
from mae_kit.weights.original import joined, split
from mae_kit.weights.plain_vit import Hints, depth_of, named
from mae_kit.weights.preprocessor import read_preprocessor
from mae_kit.weights.pretrained import Decoder, Pretrained, build_timm

EPSILON = 1e-6  # of timm's layer norms, and of the original's
LAYER = {
    "layernorm_before.*": "norm1.*",
    "attention.attention.query.*": "attn.qkv.*|q",
    "attention.attention.key.*": "attn.qkv.*|k",
    "attention.attention.value.*": "attn.qkv.*|v",
    "attention.output.dense.*": "attn.proj.*",
    "layernorm_after.*": "norm2.*",
    "intermediate.dense.*": "mlp.fc1.*",
    "output.dense.*": "mlp.fc2.*",
}
ENCODER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    **prefixed(LAYER, "encoder.layer.#.", "blocks.#."),
    "layernorm.*": "norm.*",
}
DECODER = {
    "decoder.mask_token": "decoder/mask_token",
    "decoder.decoder_pos_embed": "decoder/pos_embed",
    "decoder.decoder_embed.*": "decoder/embed.*",
    **prefixed(LAYER, "decoder.decoder_layers.#.", "decoder/blocks.#."),
    "decoder.decoder_norm.*": "decoder/norm.*",
    "decoder.decoder_pred.*": "decoder/pred.*",
}
# What transformers 5 has in memory, `torch.save(model.state_dict())`; save_pretrained writes the names above,
# but 5.23 the decoder's layers under a name of its own.
LAYER_5 = {
    "layernorm_before.*": "norm1.*",
    **{f"attention.{part}_proj.*": f"attn.qkv.*|{part}" for part in PARTS},
    "attention.o_proj.*": "attn.proj.*",
    "layernorm_after.*": "norm2.*",
    "mlp.fc1.*": "mlp.fc1.*",
    "mlp.fc2.*": "mlp.fc2.*",
}
ENCODER_5 = prefixed(LAYER_5, "layers.#.", "blocks.#.")
RENAMED = prefixed(LAYER, "decoder.decoder_encoder.layer.#.", "decoder/blocks.#.") | prefixed(
    LAYER_5, "decoder.decoder_layers.#.", "decoder/blocks.#."
)
HEAD = {"classifier.*": "head.*"}
BARE = Names(ENCODER)
CLASSIFIER = Names(prefixed(ENCODER, "vit.") | HEAD)
WHOLE = Names(prefixed(ENCODER, "vit.") | DECODER)
READ = Names(
    ENCODER | prefixed(ENCODER, "vit.") | ENCODER_5 | prefixed(ENCODER_5, "vit.") | DECODER | RENAMED | HEAD,
    left_out=r"(vit\.)?(pooler\.dense\.(weight|bias)|embeddings\.mask_token)|decoder\.0\.(weight|bias)",
)
TYPES = ("vit_mae", "vit")
MULTI_LABEL = "multi_label_classification"  # its problem_type, by which the pipeline takes the sigmoid


def recognizes(raw: Raw) -> bool:
    return raw.config.get("model_type") in TYPES


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; returns also the names that the layout does not know."""
    config = raw.config
    check_plain(raw)
    tensors, left_out, unknown = READ.ours(raw.tensors)
    encoder, decoding = split(tensors)
    sizes = {"img_size": config["image_size"], "patch_size": config["patch_size"], "in_chans": config["num_channels"]}
    name, args = named(config["hidden_size"], depth_of(encoder), config["num_attention_heads"], sizes)
    prepared = read_preprocessor(raw, config["num_channels"])
    classes, multi_label = labels(config, encoder.get("head.weight"))
    decoder = _decoder(config, decoding) if decoding else None
    objective = "MAE" if config["model_type"] == "vit_mae" else "none"
    fields = prepared.fields | {
        "image_size": pair(config["image_size"]),
        "classes": classes,
        "multi_label": multi_label,
    }
    whole = Pretrained(
        _kind(config, decoder, classes),
        ModelConfig(name, args, objective=objective, **fields),
        encoder,
        decoder,
        left_out,
        prepared.notes + epsilon_note(config),
    )
    return whole, unknown


def check_plain(raw: Raw) -> None:
    """Refuse what timm's plain blocks do not compute.

    Raises:
        UserError: Another activation, ratio of the layers, or no bias.
    """
    check_gelu(raw)
    c = raw.config
    if c["intermediate_size"] != 4 * c["hidden_size"]:
        raise UserError(
            "weights.intermediate_size",
            f"{raw.path}: intermediate_size {c['intermediate_size']}",
            "only 4 x hidden_size is supported",
        )
    if not c.get("qkv_bias", True):
        raise UserError("weights.qkv_bias", f"{raw.path}: its attention has no bias", "only qkv_bias true is supported")


def check_gelu(raw: Raw) -> None:
    """Refuse another activation than timm's.

    Raises:
        UserError: The folder's config.json names one.
    """
    if (activation := raw.config.get("hidden_act", "gelu")) != "gelu":
        what = f"{raw.path}: the activation is {activation}"
        raise UserError("weights.activation", what, "only gelu is supported")


def labels(config: dict[str, Any], head: Tensor | None) -> tuple[list[str], bool]:
    """The classes of a head, which has a row for each, and whether they are independent; without a head none."""
    count = 0 if head is None else len(head)
    named = sorted(config.get("id2label", {}).items(), key=lambda item: int(item[0]))
    names = [str(label) for _, label in named] if len(named) == count else [str(number) for number in range(count)]
    return names, bool(count) and config.get("problem_type") == MULTI_LABEL


def epsilon_note(config: dict[str, Any], used: float = EPSILON) -> list[str]:
    """Transformers' own default is 1e-12, with which it also describes weights that were trained with 1e-6."""
    epsilon = config.get("layer_norm_eps", 1e-12)
    return (
        [] if epsilon == used else [f"layer norms add {used:g} here, {epsilon:g} in the file: features differ a little"]
    )


def write_mae(weights: Pretrained) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and tensors of a ViTMAEForPreTraining, or of a ViTMAEModel where there is no decoder."""
    config = written_config(weights, "vit_mae")
    if weights.decoder is None:
        return config | {"architectures": ["ViTMAEModel"]}, BARE.theirs(weights.tensors)
    d = weights.decoder
    config |= {
        "architectures": ["ViTMAEForPreTraining"],
        "decoder_hidden_size": d.dim,
        "decoder_num_hidden_layers": d.depth,
        "decoder_num_attention_heads": d.heads,
        "decoder_intermediate_size": 4 * d.dim,
        "mask_ratio": d.mask_ratio,
        "norm_pix_loss": d.normalized,
    }
    return config, WHOLE.theirs(joined(dict(weights.tensors), d))


def write_vit(weights: Pretrained) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and tensors of a ViTForImageClassification where there are classes, else of a ViTModel.

    The pooler of the latter, which no pretraining here has, is the identity before tanh.
    """
    config = written_config(weights, "vit")
    if weights.classes:
        config |= {"architectures": ["ViTForImageClassification"]} | written_labels(weights)
        return config, CLASSIFIER.theirs(weights.tensors)
    tensors, dim = BARE.theirs(weights.tensors), config["hidden_size"]
    pooler = {"pooler.dense.weight": torch.eye(dim), "pooler.dense.bias": torch.zeros(dim)}
    return config | {"architectures": ["ViTModel"]}, tensors | pooler


def written_labels(weights: Pretrained) -> dict[str, Any]:
    """What config.json says of the classes."""
    names = {str(number): name for number, name in enumerate(weights.classes)}
    numbers = {name: int(number) for number, name in names.items()}
    problem = {"problem_type": MULTI_LABEL} if weights.config.multi_label else {}
    return {"id2label": names, "label2id": numbers, **problem}


def written_config(weights: Pretrained, kind: str, pooling: str = "token") -> dict[str, Any]:
    """What the classes for plain vision transformers have in common.

    Args:
        weights: Of such a transformer.
        kind: Its model_type in transformers.
        pooling: How a classifier of that class pools.

    Raises:
        UserError: transformers' class has no place for this encoder.
    """
    model = build_timm(weights)
    embed = model.patch_embed
    fix = "give --format timm, which transformers reads, too"
    if model.no_embed_class or model.num_prefix_tokens != 1 or model.cls_token is None:
        raise UserError(
            "format.tokens",
            f"transformers' {kind} has one class token with a position embedding, and no other prefix tokens",
            fix,
        )
    if weights.classes and (kind == "vit_mae" or model.global_pool != pooling):
        what = f"transformers' {kind} does not classify by {model.global_pool}, as this model does"
        raise UserError("format.pooling", what, fix)
    if embed.patch_size[0] != embed.patch_size[1] or (kind != "yolos" and embed.img_size[0] != embed.img_size[1]):
        raise UserError(
            "format.square",
            f"transformers' {kind} takes square images, not {embed.img_size}",
            "import it with --img-size first",
        )
    return {
        "model_type": kind,
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": model.blocks[0].attn.num_heads,
        "intermediate_size": model.blocks[0].mlp.fc1.out_features,
        "hidden_act": "gelu",
        "layer_norm_eps": EPSILON,
        "image_size": embed.img_size[0],
        "patch_size": embed.patch_size[0],
        "num_channels": embed.proj.in_channels,
        "qkv_bias": True,
    }


def _decoder(config: dict[str, Any], tensors: dict[str, Tensor]) -> Decoder:
    return Decoder(
        tensors,
        config["decoder_hidden_size"],
        config["decoder_num_hidden_layers"],
        config["decoder_num_attention_heads"],
        config["mask_ratio"],
        config["norm_pix_loss"],
    )


def _kind(config: dict[str, Any], decoder: Decoder | None, classes: list[str]) -> str:
    if decoder:
        pixels = "normalized" if decoder.normalized else "plain"
        return f"Hugging Face ViTMAE, encoder and decoder, {pixels} pixels"
    if classes:
        return f"Hugging Face ViT, classifier of {len(classes)} classes (class token)"
    return f"Hugging Face {'ViTMAE' if config['model_type'] == 'vit_mae' else 'ViT'}, encoder only"
