"""Safetensors files: written atomically; ours have one header that says what they hold, and one reader."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.files.durable import replacing
from mae_kit.files.json_file import parse_json
from mae_kit.files.recipe_file import read_recipe, verb_of
from mae_kit.files.run_folder import RunFolder, weights_name

HEADER, VERSION = "mae_kit", 2
T = TypeVar("T")


class Kind(NamedTuple):
    """A kind of file that mae_kit writes; `name`.safetensors in the folder of a run.

    Attributes:
        name: What the file holds; error keys begin with it.
        origin: The run that writes it.
    """

    name: str
    origin: str

    @property
    def file(self) -> str:
        return weights_name(self.name)

    @property
    def fix(self) -> str:
        return f"give the folder of {self.origin}, or its {self.file}"


ENCODER = Kind("encoder", "a finished pretraining run")
MODEL = Kind("model", "a finished pretraining run")
CLASSIFIER = Kind("classifier", "a finished fine-tuning run")
SEGMENTER = Kind("segmenter", "a finished fine-tuning run on masks")
REGRESSOR = Kind("regressor", "a finished fine-tuning run on numbers")
DETECTOR = Kind("detector", "a finished fine-tuning run on boxes")
TOKENIZER = Kind("tokenizer", "a finished `mae-kit tokenizer` run")
KINDS = (MODEL, CLASSIFIER, ENCODER, TOKENIZER, SEGMENTER, REGRESSOR, DETECTOR)


def save_kind(folder: Path, kind: Kind, tensors: Mapping[str, Tensor], content: dict[str, Any]) -> Path:
    """Write one of our files into a folder, atomically.

    Args:
        folder: It exists.
        kind: Of the file.
        tensors: Weights by name.
        content: Plain values that rebuild the module, stored in the header.

    Returns:
        The file.
    """
    text = json.dumps({"kind": kind.name, "version": VERSION, **content})
    save_tensors(folder / kind.file, tensors, {HEADER: text})  # one entry: several would come in a random order
    return folder / kind.file


def read_kind(path: Path | str, kind: Kind, parse: Callable[[dict[str, Any]], T]) -> tuple[T, dict[str, Tensor]]:
    """Read one of our files; it is opened once.

    Args:
        path: The folder of a run, or a file.
        kind: What it has to hold.
        parse: Makes an object of the header's content.

    Raises:
        UserError: `KIND.missing`, `KIND.damaged`, `KIND.kind` (it holds something else), `KIND.version`, or
            `KIND.not_finite`.
    """
    path = Path(path)
    file = path / kind.file if path.is_dir() else path
    if not file.is_file():
        raise missing(path, kind)
    with damages(file, kind), safe_open(file, "pt") as opened:
        content = _content(file, kind, opened.metadata() or {})
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        must_be_finite(file, tensors, kind.name)
        return parse(content), tensors


def must_be_finite(file: Path | str, tensors: Mapping[str, Tensor], kind: str) -> None:
    """Refuse weights of a training that went wrong: whatever is computed with them is NaN.

    Raises:
        UserError: `KIND.not_finite`; names the first such tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            what = f"{file} holds NaN or infinity in {name}"
            raise UserError(f"{kind}.not_finite", what, "take weights of an earlier step")


@contextmanager
def damages(file: Path | str, kind: Kind) -> Iterator[None]:
    """Raise UserError in place of whatever a file with a bent header makes of what is built from it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # constructors of other libraries raise whatever they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{kind.name}.damaged", f"{file} cannot be read ({reason})", kind.fix) from error


def missing(path: Path, kind: Kind) -> UserError:
    """The refusal of a path without such a file; of a run that was stopped, it names the command that resumes it."""
    config = RunFolder(path).config
    ended = any((path / one.file).is_file() for one in KINDS)
    if config.is_file() and not ended and (verb := verb_of(read_recipe(config))):
        fix = f"resume it with `mae-kit {verb} --resume {path}`"
        return UserError(f"{kind.name}.unfinished", f"the run in {path} is not finished", fix)
    return UserError(f"{kind.name}.missing", f"no {kind.name} at {path}", kind.fix)


def _content(file: Path, kind: Kind, metadata: dict[str, str]) -> dict[str, Any]:
    content = parse_json(metadata.get(HEADER, "{}").encode())
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    found = content.pop("kind", "a file of another program")
    if found != kind.name:
        raise UserError(f"{kind.name}.kind", f"{file} holds no {kind.name} ({found})", kind.fix)
    if (version := content.pop("version")) != VERSION:
        what = f"{file} has format version {version}, not {VERSION}"
        raise UserError(
            f"{kind.name}.version", what, "use the version of mae_kit that wrote it, or train or import again"
        )
    return content


def kind_of(file: Path) -> str:
    """Name of the `Kind` of a file, by its header alone; empty for files of other programs, and where there is none."""
    if file.suffix != ".safetensors" or not file.is_file():
        return ""
    try:
        with safe_open(file, "pt") as opened:
            return str(parse_json((opened.metadata() or {}).get(HEADER, "{}").encode()).get("kind", ""))
    except (SafetensorError, ValueError, AttributeError, RecursionError):
        return ""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically: whenever the power fails, the old or the new one is there.

    Not by `safetensors.torch.save_file`, whose files only their owner may read.

    Raises:
        OSError: The disk is full and the like.
    """
    with replacing(path) as making:
        making.write_bytes(save(contiguous(tensors), metadata))


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prepare tensors for safetensors: on the CPU, dense, without gradients."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
