"""The recipe of a run, and the commands that carry on from it: as printed, they run."""

import json
import shlex
from html import escape

from mae_kit.encoders.timm_models import pair
from mae_kit.recipe_file import find_recipe, read_recipe
from mae_kit.reports.folder import Folder
from mae_kit.reports.html import folded, note, section

ANY = "vit_tiny_64px"  # where the pretraining names no recipe
OWN_MODEL = ("--model", "null")  # the recipe's is another: that of the encoder
SHAPES = ("embed_dim", "depth", "num_heads", "patch_size")  # that make another model of the same name
SIZE = 224  # of an encoder that says none: timm's own

Command = tuple[str, list[str]]  # why, and its words


def recipe(folder: Folder) -> str:
    path = folder.training / "config.yaml"
    if not path.is_file():
        return ""
    text = escape(path.read_text("utf-8", errors="replace"))
    return section("Recipe", folded(f"{path.name}, complete", f"<pre>{text}</pre>"))


def next_steps(folder: Folder) -> str:
    if folder.kind in ("Comparison", "Evaluation"):
        return ""
    after = {
        "Pretraining": _after_pretraining,
        "Tokenizer": _after_tokenizer,
        "Fine-tuning": _after_finetuning,
        "Demo": _after_demo,
    }
    lines = "".join(f"{note(why)}<pre>{_line(words)}</pre>" for why, words in after[folder.kind](folder))
    about = note("IMAGES: an image, a folder of images or of shards, or a tar.") if "IMAGES" in lines else ""
    return section("How to continue", lines, about)


def _line(words: list[str]) -> str:
    """A shell's line; on a narrow page it wraps, but not within the name of an option."""
    quoted = (escape(shlex.quote(word)) for word in words)
    return " ".join(f"<span>{word}</span>" if word.startswith("--") else word for word in quoted)


def _after_pretraining(folder: Folder) -> list[Command]:
    run = str(folder.path)
    if not folder.encoder:
        return [("Go on, also after a crash", ["mae-kit", "pretrain", "--resume", run])]
    return [
        ("Train a classifier on it", _finetune(folder)),
        ("See it fill in your own images", ["mae-kit", "reconstruct", run, "IMAGES", "--out", "grid.png"]),
        ("See inside it, on this page", ["mae-kit", "inspect", run]),
    ]


def _after_tokenizer(folder: Folder) -> list[Command]:
    run = str(folder.path)
    if not (folder.path / "tokenizer.safetensors").is_file():
        return [("Go on, also after a crash", ["mae-kit", "tokenizer", "--resume", run])]
    words = ["mae-kit", "pretrain", "--config", "beit_tiny_64px", "--objective.tokenizer", run]
    words += ["--data.path", folder.config["data"]["path"], "--run", f"{run}-beit"]
    return [("Pretrain a BEiT that predicts its codes", words)]


def _after_finetuning(folder: Folder) -> list[Command]:
    run = str(folder.path)
    if not folder.result:
        return [("Go on, also after a crash", ["mae-kit", "finetune", "--resume", run])]
    return [("Classify images", ["mae-kit", "predict", run, "IMAGES"])]


def _after_demo(folder: Folder) -> list[Command]:
    return [("The same on your own class folders", ["mae-kit", "demo", "--images", "DIR"])]


def _finetune(folder: Folder) -> list[str]:
    """On the images of the pretraining, where they have labels, at its size, mirrored only if they were."""
    run, data = str(folder.path), folder.config.get("data", {})
    height, width = pair(folder.encoder.get("image_size") or folder.encoder["model_args"].get("img_size", SIZE))
    size = height if height == width else [height, width]
    train = data.get("path", "DIR/train-*.tar")
    words = ["mae-kit", "finetune", "--config", *_recipe_for(folder)]
    words += ["--data.image_size", json.dumps(size), "--encoder", run]
    words += ["--data.path", train, "--data.val", _validation(train), "--run", f"{run}-classifier"]
    return words if data.get("flip", True) else [*words, "--augmentation.flip", "false"]


def _recipe_for(folder: Folder) -> list[str]:
    """The recipe that the pretraining names; with the encoder's own model where the recipe was made for another."""
    name = folder.config.get("finetune") or ANY
    made_for, encoder = read_recipe(find_recipe(name, "downstream"))["model"], folder.encoder
    theirs, ours = made_for.get("args", {}), encoder["model_args"]
    fits = made_for["name"] == encoder["model"] and all(theirs.get(shape) == ours.get(shape) for shape in SHAPES)
    return [name] if fits else [name, *OWN_MODEL]


def _validation(train: str) -> str:
    """The other half of what `mae-kit shard --val-fraction` wrote, of a pattern or a URL."""
    folder, slash, name = train.rpartition("/")
    return f"{folder}{slash}{name.replace('train', 'val', 1)}" if "train" in name else "DIR/val-*.tar"
