"""Files that somebody hands you, for fuzzing: contents to start from, class paths in every place of them, and a reader.

A reader lets typed errors pass, of one line each, and nothing else.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from conftest import FINETUNE, PRETRAIN

from mae_kit.cli.main import read
from mae_kit.comparison.plan import read_comparison
from mae_kit.data.index.exclusions import kept, write_exclusions
from mae_kit.data.index.index import FILE
from mae_kit.data.index.open import open_index
from mae_kit.data.index.statistics import channel_statistics
from mae_kit.data.packing.pack import pack_source
from mae_kit.data.packing.plan import PackSettings
from mae_kit.data.packing.sources import open_source
from mae_kit.encoders.tokenizers import load_tokenizer
from mae_kit.errors import UserError
from mae_kit.files.tensor_file import CLASSIFIER, ENCODER, MODEL, TOKENIZER, VERSION, Kind, save_kind, save_tensors
from mae_kit.reports.page import write_report
from mae_kit.weights.native import load_classifier, load_model
from mae_kit.weights.recognize import load_encoder, read_pretrained
from support.bent_files import GONE, ODD, RECORDS, places, with_part, write
from support.boxed_folders import some_boxes, write_coco, write_voc, write_yolo
from support.mutations import mutate
from support.photo_shards import write_shard
from support.tiny_models import tiny_config, tiny_mae, tiny_tokenizer

Dice = random.Random


class Target(NamedTuple):
    """A kind of file.

    Attributes:
        make: Draws its content; without dice it is sound.
        read: What reads it.
    """

    make: Callable[[Dice | None], bytes]
    read: Callable[[bytes], None]


HOSTILE: list[Any] = [
    {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "OWNED"]}},
    {"class_path": "evilmod.Evil", "init_args": {}},
    {"class_path": "os.system", "init_args": {"command": "touch OWNED"}},
    "evilmod.Evil",
    "hf-hub:owner/name",
    {"pretrained": True, "pretrained_cfg": {"url": "http://127.0.0.1:9/x"}},
]
EVIL = "open('OWNED', 'w').close()\nclass Evil: pass\n"


def variants(content: dict[str, Any], dump: Callable[[Any], str]) -> Callable[[Dice | None], bytes]:
    """The content, with some part replaced."""

    def make(dice: Dice | None) -> bytes:
        path = dice.choice(list(places(content))) if dice else ()
        odd = dice.choice([*HOSTILE, *HOSTILE, *ODD, GONE]) if dice else content
        return dump(with_part(content, path, odd) if path else content if odd is GONE else odd).encode()

    return make


def named(contents: dict[str, Callable[[Dice | None], bytes]]) -> Callable[[Dice | None], bytes]:
    """One of several files, behind its name and a line break."""

    def make(dice: Dice | None) -> bytes:
        name = dice.choice(list(contents)) if dice else next(iter(contents))
        return name.encode() + b"\n" + contents[name](dice)

    return make


def typed(reader: Callable[[], Any]) -> None:
    """Call it; a typed error is of one line."""
    try:
        reader()
    except UserError as error:
        assert "\n" not in str(error), str(error)


def recipes(folder: Path, command: str, text: str) -> Target:
    """A recipe, and the config.yaml of a run that is resumed."""
    file = folder / "config.yaml"

    def parsed(data: bytes) -> None:
        file.write_bytes(data)
        typed(lambda: read(command, ["--config", str(file), "--run", str(folder / "new"), "--data.path", "s"]))
        typed(lambda: read(command, ["--resume", str(folder)]))

    return Target(variants(yaml.safe_load(text) | {"run": "run"}, yaml.safe_dump), parsed)


def comparisons(folder: Path) -> Target:
    write_shard(folder / "train-0.tar", range(8))
    write_shard(folder / "val-0.tar", range(100, 108))
    places = {"data": f"{folder}/train-*.tar", "val": f"{folder}/val-*.tar"}
    entry = {"config": "mae_vit_tiny_64px_quick", "overrides": {"objective.mask_ratio": 0.5}}
    content = places | {"images_seen": 640, "entries": {"a": entry, "b": {"config": None, "overrides": {}}}}
    file = folder / "compare.yaml"

    def parsed(data: bytes) -> None:
        file.write_bytes(data)
        typed(lambda: read_comparison(file))

    return Target(variants(content | {"finetune": {"config": "vit_tiny_64px"}}, yaml.safe_dump), parsed)


def pages(folder: Path) -> Target:
    """Any file of a run, behind its name and a line break."""
    contents = {name: variants(one, yaml.safe_dump if "yaml" in name else json.dumps) for name, one in RECORDS.items()}

    def shown(data: bytes) -> None:
        name, _, content = data.partition(b"\n")
        if (shown_name := name.decode("ascii", "replace")) not in RECORDS:
            return
        file = folder / shown_name
        for kept_file in ("metrics.jsonl", "config.yaml"):
            write(folder, kept_file, RECORDS[kept_file])
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content + b"\n")
        try:
            typed(lambda: write_report(folder))
        finally:
            file.unlink()

    return Target(named(contents), shown)


def headers(folder: Path, kind: Kind, tensors: Any, content: dict[str, Any], load: Callable[[Path], Any]) -> Target:
    """The header of one of our files."""

    def loaded(data: bytes) -> None:
        save_tensors(folder / kind.file, tensors, {"mae_kit": data.decode("utf-8", "replace")})
        typed(lambda: load(folder))

    save_kind(folder, kind, tensors, content)
    return Target(
        variants({"kind": kind.name, "version": VERSION, **json.loads(json.dumps(content))}, json.dumps), loaded
    )


def hub_folders(folder: Path) -> Target:
    """config.json beside weights, as timm and transformers write them."""
    tensors = tiny_mae().encoder.model.state_dict()
    save_tensors(folder / "model.safetensors", tensors, {})
    timm = {"architecture": "vit_base_patch16_224", "num_classes": 0, "model_args": {"img_size": 32, "depth": 2}}
    timm["pretrained_cfg"] = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}
    vit = {"architectures": ["ViTModel"], "model_type": "vit", "hidden_size": 48, "num_hidden_layers": 2}
    vit |= {"num_attention_heads": 3, "image_size": 32, "patch_size": 8, "hidden_act": "gelu"}

    def loaded(data: bytes) -> None:
        (folder / "config.json").write_bytes(data)
        typed(lambda: read_pretrained(folder))

    makers = variants(timm, json.dumps), variants(vit, json.dumps)
    return Target(lambda dice: (dice.choice(makers) if dice else makers[0])(dice), loaded)


def shard_folders(folder: Path) -> Target:
    """stats.json, the index and a list of exclusions, each behind its name and a line break."""
    write_shard(folder / "a.tar", range(6))
    index = open_index(folder)
    write_exclusions(folder / "gone.jsonl", index, [{"shard": "a.tar", "key": index.keys[0]}], {})
    sound = (folder / FILE).read_bytes()
    stats = {"mean": [0.5] * 3, "std": [0.2] * 3}
    lines = [json.loads(line) for line in (folder / "gone.jsonl").read_text().splitlines()]
    heads, more = variants(lines[0], json.dumps), variants(lines[1], json.dumps)
    contents: dict[str, Callable[[Dice | None], bytes]] = {
        "stats.json": variants(stats, json.dumps),
        FILE: lambda dice: mutate(sound, dice) if dice else sound,
        "gone.jsonl": lambda dice: heads(dice) + b"\n" + more(dice) + b"\n",
    }

    def opened(data: bytes) -> None:
        name, _, content = data.partition(b"\n")
        file = folder / name.decode("ascii", "replace")
        if file.name not in contents:
            return
        file.write_bytes(content)
        typed(lambda: channel_statistics(open_index(folder)))
        typed(lambda: kept(open_index(folder), str(folder / "gone.jsonl")))

    return Target(named(contents), opened)


def annotations(folder: Path) -> Target:
    """What speaks of the images of a folder, each behind its name and a line break."""
    source = folder / "in"
    images = {f"{number}.jpg": some_boxes(number) for number in range(2)}
    for kind, write_kind in (("coco", write_coco), ("voc", write_voc), ("yolo", write_yolo)):
        write_kind(source / kind, images)
    coco = json.loads((source / "coco/annotations/instances_all.json").read_text())
    about = {"names": ["red", "blue"], "train": "images", "val": ["images/0.jpg"], "path": ".", "nc": 2}
    contents: dict[str, Callable[[Dice | None], bytes]] = {
        "coco/annotations/instances_all.json": variants(coco, json.dumps),
        "voc/Annotations/0.xml": lambda dice: (source / "voc/Annotations/1.xml").read_bytes(),
        "voc/ImageSets/Main/train.txt": lambda dice: b"0\n",
        "yolo/data.yaml": variants(about, yaml.safe_dump),
        "yolo/labels/0.txt": lambda dice: (source / "yolo/labels/1.txt").read_bytes(),
        "yolo/classes.txt": lambda dice: b"red\nblue\n",
        "coco/table.csv": lambda dice: b"file,label\n0.jpg,red\n1.jpg,blue\n",
        "coco/numbers.csv": lambda dice: b"file,width\n0.jpg,1.5\n1.jpg,2\n",
    }

    def opened(data: bytes) -> None:
        name, _, content = data.partition(b"\n")
        if (known := name.decode("ascii", "replace")) not in contents:
            return
        file, root = source / known, source / known.partition("/")[0]
        before = file.read_bytes() if file.exists() else b""
        file.write_bytes(content)
        try:
            typed(lambda: packed(root, str(file) if file.suffix == ".csv" else "auto", folder / "out"))
        finally:
            file.write_bytes(before) if before else file.unlink()

    return Target(named(contents), opened)


def packed(root: Path, labels: str, out: Path) -> None:
    """Pack a folder, and read what came of it."""
    shutil.rmtree(out, ignore_errors=True)
    pack_source(open_source(str(root), labels), out, PackSettings(), workers=1)
    open_index(out)


def targets() -> dict[str, Callable[[Path], Target]]:
    mae, tokenizer = tiny_mae(), tiny_tokenizer()
    config = json.loads(json.dumps(asdict(tiny_config(mae.encoder))))
    encoder, classes = mae.encoder.model.state_dict(), {"classes": ["cat", "dog"]}
    head = {"head.weight": torch.zeros(2, 48), "head.bias": torch.zeros(2)}
    model = {"objective": mae.config, "encoder": config}
    return {
        "recipes": lambda folder: recipes(folder, "pretrain", PRETRAIN),
        "recipes of fine-tunings": lambda folder: recipes(folder, "finetune", FINETUNE),
        "comparisons": comparisons,
        "files of runs": pages,
        "encoders": lambda folder: headers(folder, ENCODER, encoder, config, load_encoder),
        "classifiers": lambda folder: headers(folder, CLASSIFIER, encoder | head, config | classes, load_classifier),
        "models": lambda folder: headers(folder, MODEL, mae.state_dict(), model, load_model),
        "tokenizers": lambda folder: headers(
            folder, TOKENIZER, tokenizer.state_dict(), {"tokenizer": tokenizer.config}, load_tokenizer
        ),
        "folders of the Hub": hub_folders,
        "folders of shards": shard_folders,
        "annotations": annotations,
    }
