"""Images as codes of a learned codebook, one a patch: what BEiT predicts."""

from mae_kit.encoders.tokenizers.dvae import DVAE
from mae_kit.encoders.tokenizers.tokenizer_file import fingerprint, load_tokenizer, save_tokenizer

__all__ = ["DVAE", "fingerprint", "load_tokenizer", "save_tokenizer"]
