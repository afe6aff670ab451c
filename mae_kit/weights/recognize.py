"""Which of the published layouts a file is of."""

from pathlib import Path
from types import ModuleType

from mae_kit.errors import UserError
from mae_kit.weights import beit, convnextv2, huggingface, imagegpt, original, swin
from mae_kit.weights import native as ours
from mae_kit.weights import timm as timm_folder
from mae_kit.weights.files import Raw, read_raw
from mae_kit.weights.plain_vit import Words
from mae_kit.weights.pretrained import Pretrained, must_be_whole
from mae_kit.weights.timm_published import is_published, read_published

LAYOUTS: tuple[ModuleType, ...] = (timm_folder, huggingface, beit, swin, convnextv2, imagegpt, original)
_IMAGE_GPT = "h.0.attn.c_attn.weight"
_FIX = "give an original MAE file, a folder of transformers or timm, timm:NAME, or a run"


def read_pretrained(path: Path, words: Words = Words()) -> Pretrained:
    """Weights from any file that we know, each of its tensors used once or named.

    Args:
        path: A run, one of our files, a published checkpoint, a folder as on the Hub, or timm:NAME.
        words: What the file does not say itself.

    Raises:
        UserError: There is none, it is of no layout that we know, or tensors are missing or unknown.
    """
    if file := ours.file_of(path):
        return ours.read(file)
    raw = read_published(path) if is_published(path) else read_raw(path)
    layout = _layout(raw)
    try:
        weights, unknown = layout.read(raw, words)
    except KeyError as error:
        raise UserError("recognize.read_pretrained", f"{path} lacks {error}", _FIX) from error
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            "recognize.read_pretrained", f"{path} is damaged, or not of the layout that it seems to be ({error})", _FIX
        ) from error
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UserError(
            "recognize.read_pretrained", f"{path} ({weights.kind}) also holds {', '.join(unknown[:3])}{more}", _FIX
        )
    must_be_whole(str(path), weights)
    return weights


def _layout(raw: Raw) -> ModuleType:
    for layout in LAYOUTS:
        if layout.recognizes(raw):
            return layout
    if any(name.endswith(_IMAGE_GPT) for name in raw.tensors):
        fix = "give the folder that holds both, and preprocessor_config.json"
        raise UserError("recognize.layout", f"{raw.path} is an ImageGPT checkpoint without its config.json", fix)
    if any("embeddings.patch_embeddings" in name for name in raw.tensors) and not raw.config:
        raise UserError(
            "recognize.layout",
            f"{raw.path} is of transformers, without its config.json",
            "give the folder that holds both",
        )
    first = ", ".join(list(raw.tensors)[:3])
    raise UserError("recognize.layout", f"{raw.path} is of no layout that we know (it holds {first}, ...)", _FIX)
