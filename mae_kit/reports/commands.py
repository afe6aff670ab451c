"""The commands to run next, which work as printed."""

import json
import shlex
from typing import Any

from markupsafe import Markup

from mae_kit.encoders.timm_models import pair
from mae_kit.files.recipe_file import QUICK, find_recipe, read_recipe
from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.folder import Folder
from mae_kit.reports.render import render

ANY = "vit_tiny_64px"  # if the pretraining names no recipe
OWN_MODEL = ("--model", "null")  # use the model of the encoder, not that of the recipe
SHAPES = ("embed_dim", "depth", "num_heads", "patch_size")  # arguments that make another model of the same name
SIZE = 224  # timm's, if the encoder names none

Command = tuple[str, list[str]]  # its purpose and its words


def next_steps(folder: Folder) -> Markup:
    """Show what to run next; empty for comparisons and evaluations."""
    commands = commands_after(folder)
    if not commands:
        return Markup()
    quoted = [(why, [shlex.quote(word) for word in words]) for why, words in commands]
    return render("next_steps.html", commands=quoted, asks_for_images=any("IMAGES" in words for _, words in commands))


def commands_after(folder: Folder) -> list[Command]:
    """The commands that come after a run, the most useful first; none after comparisons and evaluations."""
    after = {
        "Pretraining": _after_pretraining,
        "Tokenizer": _after_tokenizer,
        "Fine-tuning": _after_finetuning,
        "Demo": _after_demo,
    }
    return after[folder.kind](folder) if folder.kind in after else []


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
    if not RunFolder(folder.path).tokenizer.is_file():
        return [("Resume the run", ["mae-kit", "tokenizer", "--resume", run])]
    words = ["mae-kit", "pretrain", "beit_tiny_64px", "--data", folder.config["data"]["path"]]
    words += ["--objective.tokenizer", run, "--run", f"{run}-beit"]
    return [("Pretrain a BEiT that predicts the codes", words)]


def _after_finetuning(folder: Folder) -> list[Command]:
    run = str(folder.path)
    if not folder.result:
        return [("Resume the run", ["mae-kit", "finetune", "--resume", run])]
    return [("Classify images", ["mae-kit", "predict", run, "IMAGES"])]


def _after_demo(folder: Folder) -> list[Command]:
    images = folder.demo.get("images")
    if not images:
        return [("Run the demo on your own class folders", ["mae-kit", "demo", "--images", "DIR"])]
    words = ["mae-kit", "pretrain", QUICK, "--data", images]
    return [("Pretrain longer than the demo: 20 epochs by default", words)]


def _finetune(folder: Folder) -> list[str]:
    """Fine-tune on the images of the pretraining, at its size, with flips only if it had them."""
    run, data = str(folder.path), folder.config.get("data", {})
    height, width = pair(folder.encoder.get("image_size") or folder.encoder["model_args"].get("img_size", SIZE))
    size = height if height == width else [height, width]
    path = data.get("path", "DIR")
    recipe = read_recipe(find_recipe(_recipe_name(folder), "downstream"))
    words = ["mae-kit", "finetune", *_recipe_for(folder, recipe), "--data", path, *_validation(path), "--encoder", run]
    words += ["--data.image_size", json.dumps(size)] if size != recipe["data"].get("image_size") else []
    words += ["--run", f"{run}-classifier", "--against-scratch"]
    return words if data.get("flip", True) else [*words, "--augmentation.flip", "false"]


def _recipe_name(folder: Folder) -> str:
    return folder.config.get("finetune") or ANY


def _recipe_for(folder: Folder, recipe: dict[str, Any]) -> list[str]:
    """The recipe that the pretraining names; with the encoder's own model where the recipe was made for another."""
    name, made_for, encoder = _recipe_name(folder), recipe["model"], folder.encoder
    theirs, ours = made_for.get("args", {}), encoder["model_args"]
    fits = made_for["name"] == encoder["model"] and all(theirs.get(shape) == ours.get(shape) for shape in SHAPES)
    return [name] if fits else [name, *OWN_MODEL]


def _validation(path: str) -> list[str]:
    """Where a pattern or URL names the training shards alone: the validation shards that `mae-kit shard` wrote."""
    folder, slash, name = path.rpartition("/")
    return ["--data.val", f"{folder}{slash}{name.replace('train', 'val', 1)}"] if "train" in name else []
