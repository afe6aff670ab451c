"""Tiny random models to save, with every tensor away from its initial value."""

from pathlib import Path
from typing import Any

import timm
import torch

from mae_kit.encoders.decoders import TransformerDecoder
from mae_kit.encoders.tokenizers import DVAE
from mae_kit.encoders.tokenizers import save_tokenizer as save
from mae_kit.encoders.vit import ViT
from mae_kit.objectives import MAE
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_model
from mae_kit.weights.pretrained import Decoder, Pretrained

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.21, 0.22]
ARGS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "in_chans": 3, "embed_dim": 48, "depth": 2, "num_heads": 3}


def shaken(module: Any) -> Any:
    """Perturb all parameters, norms and biases too, so that a tensor in the wrong place shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.endswith("pos_embed"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def tiny_mae(**changed: Any) -> MAE:
    encoder = ViT("vit_base_patch16_224", **(ARGS | changed))
    return shaken(MAE(encoder, 0.75, decoder_dim=32, decoder_depth=2, decoder_heads=4))


def tiny_config(encoder: Any) -> ModelConfig:
    mean, std = MEAN[: encoder.channels], STD[: encoder.channels]
    return ModelConfig(encoder.name, encoder.model_args, mean, std, "mae", 7, encoder.image_size)


def tiny_weights(mae: MAE) -> Pretrained:
    encoder, config = mae.encoder, tiny_config(mae.encoder)
    assert isinstance(mae.decoder, TransformerDecoder)
    decoder = Decoder(mae.decoder.state_dict(), 32, 2, 4, 0.75, mae.norm_pix_loss)
    return Pretrained("our model, encoder and decoder", config, encoder.model.state_dict(), decoder)


def save_run(folder: Any, mae: MAE) -> Any:
    """Write the model file of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, mae, tiny_config(mae.encoder))
    return folder


def tiny_classifier(**changed: Any) -> Any:
    args: dict[str, Any] = ARGS | {"global_pool": "avg"} | changed
    return shaken(timm.create_model("vit_base_patch16_224", num_classes=5, **args))


def tiny_tokenizer(**changed: Any) -> Any:
    """A tokenizer that uses many of its codes, unlike a random one."""
    torch.manual_seed(0)
    tokenizer = shaken(DVAE(**({"codes": 20, "stride": 4, "width": 8, "blocks": 1, "code_dim": 8} | changed)))
    with torch.no_grad():
        logits = tokenizer.logits(torch.rand(8, tokenizer.channels, 32, 32))
        tokenizer.encoder[-1].bias.sub_(logits.mean(dim=(0, 2, 3)))
    return tokenizer


def save_tokenizer(folder: Path, **changed: Any) -> Path:
    """Write the result of a tokenizer's run."""
    tokenizer = tiny_tokenizer(**changed)
    save(folder, tokenizer)
    return folder
