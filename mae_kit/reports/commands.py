"""The commands to run next, which work as printed."""

import json
import shlex

from markupsafe import Markup

from mae_kit.encoders.timm_models import pair
from mae_kit.recipe_file import find_recipe, read_recipe
from mae_kit.reports.folder import Folder
from mae_kit.reports.render import render

ANY = "vit_tiny_64px"  # if the pretraining names no recipe
OWN_MODEL = ("--model", "null")  # use the model of the encoder, not that of the recipe
SHAPES = ("embed_dim", "depth", "num_heads", "patch_size")  # arguments that make another model of the same name
SIZE = 224  # timm's, if the encoder names none

Command = tuple[str, list[str]]  # its purpose and its words


def next_steps(folder: Folder) -> Markup:
    """Show what to run next; empty for comparisons and evaluations."""
    after = {
        "Pretraining": _after_pretraining,
        "Tokenizer": _after_tokenizer,
        "Fine-tuning": _after_finetuning,
        "Demo": _after_demo,
    }
    if folder.kind not in after:
        return Markup()
    commands = after[folder.kind](folder)
    quoted = [(why, [shlex.quote(word) for word in words]) for why, words in commands]
    return render("next_steps.html", commands=quoted, asks_for_images=any("IMAGES" in words for _, words in commands))


def _after_pretraining(folder: Folder) -> list[Command]:
    run = str(folder.path)
    if not folder.encoder:
        return [("Resume the run", ["mae-kit", "pretrain", "--resume", run])]
    return [
        ("Train a classifier", _finetune(folder)),
        ("Reconstruct your own images", ["mae-kit", "reconstruct", run, "IMAGES", "--out", "grid.png"]),
        ("Add attention, features and other plots to this page", ["mae-kit", "inspect", run]),
    ]


def _after_tokenizer(folder: Folder) -> list[Command]:
    run = str(folder.path)
    if not (folder.path / "tokenizer.safetensors").is_file():
        return [("Resume the run", ["mae-kit", "tokenizer", "--resume", run])]
    words = ["mae-kit", "pretrain", "--config", "beit_tiny_64px", "--objective.tokenizer", run]
    words += ["--data.path", folder.config["data"]["path"], "--run", f"{run}-beit"]
    return [("Pretrain a BEiT that predicts the codes", words)]


def _after_finetuning(folder: Folder) -> list[Command]:
    run = str(folder.path)
    if not folder.result:
        return [("Resume the run", ["mae-kit", "finetune", "--resume", run])]
    return [("Classify images", ["mae-kit", "predict", run, "IMAGES"])]


def _after_demo(folder: Folder) -> list[Command]:
    return [("Run the demo on your own class folders", ["mae-kit", "demo", "--images", "DIR"])]


def _finetune(folder: Folder) -> list[str]:
    """Fine-tune on the images of the pretraining, at its size, with flips only if it had them."""
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
    """The validation shards that `mae-kit shard --val-fraction` wrote, for a pattern or URL of the training shards."""
    folder, slash, name = train.rpartition("/")
    return f"{folder}{slash}{name.replace('train', 'val', 1)}" if "train" in name else "DIR/val-*.tar"
