"""The commands to run next, which work as printed."""

import json
import shlex

from markupsafe import Markup

from mae_kit.encoders.timm_models import pair
from mae_kit.recipe_file import find_recipe, read_recipe
from mae_kit.reports.folder import Folder
from mae_kit.reports.render import render
from mae_kit.training.metrics import Row

RECIPES = {
    ("mae", "vit_base_patch16_224", 224): "vit_b16",
    ("mae", "vit_large_patch16_224", 224): "vit_l16",
    ("mae", "vit_huge_patch14_224", 224): "vit_h14",
    ("maskedpatch", "vit_base_patch16_224", 224): "vit_b16",
    ("maskfeat", "vit_base_patch16_224", 224): "vit_b16_maskfeat",
    ("simmim", "beit_base_patch16_224", 224): "vit_b16_simmim",
    ("simmim", "swin_base_patch4_window7_224", 192): "swin_b_192px",
    ("beit", "beit_base_patch16_224", 224): "beit_b16",
    ("igpt", "igpt_s", 32): "igpt_s_32px",
    ("igpt", "igpt_s", 16): "igpt_tiny_16px",
    ("fcmae", "convnextv2_base", 224): "convnextv2_base",
    ("fcmae", "convnextv2_tiny", 224): "convnextv2_tiny",
    ("fcmae", "convnextv2_atto", 224): "convnextv2_atto",
    ("fcmae", "convnextv2_atto", 64): "convnextv2_atto_64px",
    ("hieramae", "hiera_base_224", 224): "hiera_base",
    ("hieramae", "hiera_tiny_224", 64): "hiera_64px",
}
"""The downstream recipe made for an encoder, by its objective, timm's name and the longer side of its images."""
ANY = "vit_tiny_64px"  # the recipe of all others
OWN_MODEL = ("--model", "null")  # the recipe's is another: that of the encoder
WIDTHS = ("embed_dim", "depth", "num_heads")  # that make another model of the same name
SIZE = 224  # of an encoder that says none: timm's own

Command = tuple[str, list[str]]  # why, and its words


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
    words += ["--data.shards", folder.config["data"]["shards"], "--run", f"{run}-beit"]
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
    train = data.get("shards", "DIR/train-*.tar")
    words = ["mae-kit", "finetune", "--config", *_recipe_for(folder.encoder, max(height, width))]
    words += ["--data.image_size", json.dumps(size), "--encoder", run]
    words += ["--data.train", train, "--data.val", _validation(train), "--run", f"{run}-classifier"]
    return words if data.get("flip", True) else [*words, "--augmentation.flip", "false"]


def _recipe_for(encoder: Row, longer_side: int) -> list[str]:
    """The one made for it, or any, and whether its model is left out."""
    name = RECIPES.get((encoder.get("objective", ""), encoder["model"], longer_side), ANY)
    made_for = read_recipe(find_recipe(name, "downstream"))["model"]
    theirs, ours = made_for.get("args", {}), encoder["model_args"]
    fits = name != ANY and all(theirs.get(width) == ours.get(width) for width in WIDTHS)
    return [name] if fits else [name, *OWN_MODEL]


def _validation(train: str) -> str:
    """The other half of what `mae-kit shard --val-fraction` wrote, of a pattern or a URL."""
    folder, slash, name = train.rpartition("/")
    return f"{folder}{slash}{name.replace('train', 'val', 1)}" if "train" in name else "DIR/val-*.tar"
