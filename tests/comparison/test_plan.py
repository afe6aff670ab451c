"""What is compared: command lines that parse, and files that are refused."""
# Also tests comparison/steps.py.

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from safetensors.torch import save_file
from support.comparisons import arguments, write
from support.errors import raises
from support.photo_shards import write_shard
from support.tiny_models import save_run, save_tokenizer

from mae_kit.commands.compare import check_entry
from mae_kit.comparison.plan import number, read_comparison
from mae_kit.comparison.steps import POINTS, entry_steps
from mae_kit.data.index.exclusions import write_exclusions
from mae_kit.data.index.open import open_index
from mae_kit.encoders import ViT
from mae_kit.files.recipe_file import FOLDER
from mae_kit.objectives import MAE

Content = dict[str, Any]


def words_of(content: Content, folder: Path, name: str, seed: int = 0) -> list[list[str]]:
    """Command lines of an entry's steps."""
    return [step.start for step in entry_steps(read_comparison(write(folder, content)), name, seed, folder / "out")]


def at(content: Content, where: str) -> Content:
    """The part of a comparison's file under dotted keys."""
    for name in where.split("."):
        content = content.setdefault(name, {"config": None})
    return content


def test_an_entry_is_pretrained_then_fine_tuned_then_evaluated(tmp_path: Path, content: Content):
    content["entries"]["mae"]["overrides"] = {"data.crop_scale": [0.5, 1.0], "data.flip": False}
    pretrain, finetune, evaluate = words_of(content | {"images_seen": 96}, tmp_path, "mae", 3)
    made = arguments(pretrain)
    assert (made["optimization"].epochs, made["optimization"].warmup_epochs) == (2.4, pytest.approx(2.4 / 6))
    assert made["data"].crop_scale == (0.5, 1.0) and not made["data"].flip and made["data"].knn_shards == content["val"]
    assert made["intervals"].eval_every_n_steps == max(1, round(96 / 16 / POINTS))
    run = tmp_path / "out/mae-seed3/pretrain"
    assert (made["seed"], made["run"]) == (3, run)
    tuned = arguments(finetune)
    assert (tuned["encoder"], tuned["seed"], tuned["optimization"].layer_decay) == (str(run), 3, 0.75)
    assert evaluate[:2] == ["evaluate", str(run)] and content["val"] in evaluate


def test_where_boxes_are_all_nothing_is_scored_frozen(tmp_path: Path, content: Content):
    plan = read_comparison(write(tmp_path, content))
    masked, neither = (plan._replace(labeled=False, probed=probed) for probed in (True, False))
    commands = [[step.command for step in entry_steps(each, "mae", 0, tmp_path)] for each in (masked, neither)]
    assert commands == [["pretrain", "finetune", "evaluate"], ["pretrain", "finetune"]]
    assert arguments(entry_steps(neither, "mae", 0, tmp_path)[0].start)["data"].knn_shards is None


def test_overrides_of_an_entry_come_after_those_of_all(tmp_path: Path, content: Content):
    content["overrides"] = {"data.flip": True, "data.batch_size": 8, "machine.threads": 1}
    content["entries"]["mae"]["overrides"] = {"data.flip": False}
    made = arguments(words_of(content, tmp_path, "mae")[0])
    assert (made["data"].flip, made["data"].batch_size, made["machine"].threads) == (False, 8, 1)
    assert arguments(words_of(content, tmp_path, "scratch")[0])["machine"].threads == 0


@pytest.mark.parametrize(("own", "decay"), [({}, 1), ({"optimization.layer_decay": 0.9}, 0.9)])
def test_scratch_has_no_layer_decay_and_is_evaluated_untrained(
    tmp_path: Path, content: Content, own: Content, decay: float
):
    content["entries"]["scratch"] |= {"overrides": {"ema": 0.5}, "finetune": {"config": None, "overrides": own}}
    content["finetune"]["overrides"] = {"optimization.layer_decay": 0.5}
    tuning, evaluation = words_of(content, tmp_path, "scratch")
    made = arguments(tuning)
    assert (made["encoder"], made["optimization"].layer_decay, made["ema"]) == ("none", decay, 0.5)
    assert evaluation[1] == str(made["run"]) and "--untrained" in evaluation


@pytest.mark.parametrize(
    "model",
    [
        {"name": "convnext_atto", "args": {"depths": [1, 1, 1, 1]}},
        {"name": "test_vit", "args": {"patch_size": 8}, "weights": "timm"},
    ],
)
def test_models_that_do_not_start_as_our_encoders_are_not_evaluated(tmp_path: Path, content: Content, model: Content):
    content["entries"]["scratch"] |= {"overrides": {"model": model}}
    assert [words[0] for words in words_of(content, tmp_path, "scratch")] == ["finetune"]


def test_an_entry_may_have_its_own_fine_tuning(tmp_path: Path, content: Content):
    recipe = tmp_path / "fine.yaml"
    (tmp_path / "other.yaml").write_text(recipe.read_text().replace("drop_path: 0.2", "drop_path: 0.4"))
    content["finetune"]["overrides"] = {"optimization.epochs": 7}
    content["entries"]["mae"]["finetune"] = {"config": str(tmp_path / "other.yaml"), "overrides": {"model": None}}
    tuned = arguments(words_of(content, tmp_path, "mae")[1])
    assert (tuned["drop_path"], tuned["optimization"].epochs, tuned["model"]) == (0.4, 7, None)
    assert arguments(words_of(content, tmp_path, "scratch")[0])["drop_path"] == 0.2


def test_a_pretraining_recipe_names_its_fine_tuning(tmp_path: Path, content: Content):
    recipe = tmp_path / "pre.yaml"
    content["entries"]["scratch"]["finetune"] = content.pop("finetune")
    with raises("entries.mae.finetune"):
        read_comparison(write(tmp_path, content))
    recipe.write_text(f"{recipe.read_text()}\nfinetune: vit_tiny_64px\n")
    assert read_comparison(write(tmp_path, content)).finetuning("mae").config == "vit_tiny_64px"


def test_fingerprints_are_of_the_images_that_are_read(tmp_path: Path, content: Content):
    content["train"] = str(tmp_path / "labeled.tar")
    write_shard(Path(content["train"]), range(8))
    before = read_comparison(write(tmp_path, content)).prints
    write_shard(Path(content["train"]), range(200, 240))
    after = read_comparison(write(tmp_path, content)).prints
    assert [name for name in before if before[name] != after[name]] == ["train"]


def test_an_exclusion_list_counts_by_what_is_on_it(tmp_path: Path, content: Content):
    content["exclude"] = str(tmp_path / "duplicates.jsonl")
    index, prints = open_index(content["data"]), []
    for key in ("0001", "0002"):
        write_exclusions(Path(content["exclude"]), index, [{"shard": "train.tar", "key": key}], {})
        plan = read_comparison(write(tmp_path, content))
        prints.append(plan.prints["images"])
        assert plan.samples == 39 and plan.prints["train"] == index.fingerprint
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"images_seen": 0}, "images_seen"),
        ({"images_seen": None}, "images_seen"),
        ({"minutes": 1.0}, "minutes"),
        ({"entries": {}}, "entries"),
        ({"entries": {"mae": "mae_vit_b16"}}, "entries.config"),
        ({"entries": {"mae": {}}}, "entries.config"),
        ({"entries": {"mae": {"confg": None, "config": None}}}, "entries.unknown"),
        ({"entries": {"../mae": {"config": None}}}, "entries.name"),
        ({"entries": {"mae": {"config": None, "against": "me"}}}, "entries.against"),
        ({"images_seen": 1}, "images_seen"),
        ({"images_seen": 40}, "images_seen"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: Content, change: Content, key: str):
    with raises(key):
        read_comparison(write(tmp_path, content | change))


def test_shards_without_labels_are_refused(tmp_path: Path, content: Content):
    write_shard(tmp_path / "train.tar", range(40), labels=False)
    plan = read_comparison(write(tmp_path, content))
    with raises("data.classes.no_labels"):
        check_entry(plan, "mae", tmp_path / "out")


@pytest.mark.parametrize("key", ["help", "objective.help", "json", "print_config", "resume", "--data.flip"])
@pytest.mark.parametrize("where", ["entries.mae", "finetune"])
def test_options_of_the_command_line_are_no_settings(tmp_path: Path, content: Content, where: str, key: str):
    at(content, where)["overrides"] = {key: True}
    with raises(f"{where}.overrides"):
        read_comparison(write(tmp_path, content))


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ("entries.mae", "optimization.epochs"),
        ("entries.mae", "optimization.warmup-epochs"),
        ("entries.mae", "data.exclude"),
        ("entries.mae", "data"),
        ("entries.scratch", "data.path"),
        ("entries.mae.finetune", "encoder"),
        ("finetune", "data.val"),
        ("finetune", "seed"),
    ],
)
def test_what_the_comparison_sets_cannot_be_overridden(tmp_path: Path, content: Content, where: str, key: str):
    at(content, where)["overrides"] = {key: 4}
    with raises(f"{where}.overrides"):
        read_comparison(write(tmp_path, content))


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("data: {batch_size: 8}", {}),
        ("optimization: {epochs: 10}", {}),
        ("optimization: {epochs: [3]}", {}),
        (None, {"data.batch_size": "abc"}),
    ],
)
def test_lengths_that_are_no_numbers(tmp_path: Path, content: Content, recipe: str | None, overrides: Content):
    (tmp_path / "pre.yaml").write_text(recipe or (tmp_path / "pre.yaml").read_text())
    content["entries"]["mae"]["overrides"] = overrides
    with raises("optimization.epochs", "data.batch_size"):
        read_comparison(write(tmp_path, content))


@pytest.mark.parametrize(
    ("where", "overrides", "key"),
    [
        ("entries.mae", {"objective.init_args.mask_ratoi": 0.5}, "objective.mask_ratoi"),
        ("entries.mae", {"objective.mask_ratio": 3}, "objective.mask_ratio"),
        ("entries.mae", {"objective": "SimMIM"}, "objective"),
        ("entries.mae", {"objective.encoder.name": "vit_small_patch16_224"}, "entries.finetune"),
        ("entries.mae", {"objective.encoder.depth": 1}, "weights.names.model"),
        ("entries.mae", {"data.mean": [0.5]}, "data.mean.channels"),
        ("entries.mae", {"init": "nowhere"}, "weights"),
        ("entries.scratch", {"model": None}, "model.name.missing"),
        ("entries.scratch", {"model.name": "vit_tinny"}, "model.name.unknown"),
        ("finetune", {"data.labels_per_class": 50}, "data.labels_per_class.too_many"),
        ("finetune", {"blocks": 3}, "blocks.count"),
        ("finetune", {"data.std": [1, 1]}, "data.mean.one"),
        ("finetune", {"machine.accumulate_grad_batches": 16}, "augmentation.mixup.one_image"),
    ],
)
def test_what_a_command_would_refuse_is_refused_before_the_first_step(
    tmp_path: Path, content: Content, where: str, overrides: Content, key: str
):
    at(content, where)["overrides"] = overrides
    plan = read_comparison(write(tmp_path, content))
    name = "scratch" if "scratch" in where else "mae"
    with raises(key):
        check_entry(plan, name, tmp_path / "out")


def test_gray_images(tmp_path: Path, content: Content):
    args: Content = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    trained = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, num_classes=0, **args)
    save_file(trained.state_dict(), tmp_path / "gray.safetensors")
    gray: Content = {"data.mean": [0.5], "data.std": [0.5]}
    content["entries"]["mae"]["overrides"] = gray | {"objective.encoder.in_chans": 1}
    content["entries"]["scratch"]["overrides"] = {"model.weights": str(tmp_path / "gray.safetensors")}
    content["finetune"]["overrides"] = gray | {"augmentation.color_jitter": 0}
    plan = read_comparison(write(tmp_path, content))
    for name in ("mae", "scratch"):
        check_entry(plan, name, tmp_path / "out")
    content["finetune"]["overrides"]["augmentation.randaugment"] = 9
    with raises("randaugment"):
        check_entry(read_comparison(write(tmp_path, content)), "mae", tmp_path / "out")


def test_weights_to_start_from_are_read_before_the_first_step_alone(tmp_path: Path, content: Content):
    encoder = ViT("vit_tiny_patch16_224", 32, patch_size=8, embed_dim=48, depth=3, num_heads=3)
    init = save_run(tmp_path / "deeper", MAE(encoder, decoder_dim=32, decoder_depth=1, decoder_heads=2))
    content["entries"]["mae"]["overrides"] = {"init": str(init)}
    plan = read_comparison(write(tmp_path, content))
    with raises("weights.names.model"):
        check_entry(plan, "mae", tmp_path / "out")


def test_a_hyphen_is_an_underscore(tmp_path: Path, content: Content):
    content["entries"]["mae"]["overrides"] = {"data.batch-size": 8}
    plan = read_comparison(write(tmp_path, content))
    assert number(plan.entries["mae"], "data.batch_size") == 8
    assert "--data.batch_size" in words_of(content, tmp_path, "mae")[0]


def test_numbers_are_read_as_the_command_line_reads_them(tmp_path: Path, content: Content):
    """YAML takes 1e1 for text, and 0.75 is no text."""
    recipe = tmp_path / "pre.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 3,", "epochs: 1e1,"))
    mae = content["entries"]["mae"] | {"overrides": None}
    content["entries"] = {0.75: mae, 0.5: mae | {"against": 0.5}}
    plan = read_comparison(write(tmp_path, content))
    assert plan.against("0.75") == "0.75" and plan.against("0.5") == "0.5"
    pretrain, *_ = words_of(content, tmp_path, "0.75")
    assert arguments(pretrain)["optimization"].warmup_epochs == pytest.approx(0.5 * 1.6 / 10)


def test_steps_of_the_learning_rate_are_scaled(tmp_path: Path, content: Content):
    recipe = tmp_path / "pre.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 3,", "epochs: 10, decay: steps, steps: [4, 8],"))
    made = arguments(words_of(content, tmp_path, "mae")[0])["optimization"]
    assert made.steps == (pytest.approx(0.64), pytest.approx(1.28)) and made.epochs == 1.6
    content["entries"]["mae"]["overrides"] = {"optimization.steps": [], "optimization.decay": "cosine"}
    assert arguments(words_of(content, tmp_path, "mae")[0])["optimization"].steps == ()


@pytest.mark.long
def test_the_recipes_are_comparisons(tmp_path: Path, content: Content):
    write_shard(tmp_path / "train.tar", range(256))  # as many as a batch
    tokenizer = save_tokenizer(tmp_path)
    for path in (FOLDER / "compare").glob("*.yaml"):
        given = json.loads(json.dumps(yaml.safe_load(path.read_text())))
        for overrides in (entry.get("overrides", {}) for entry in given["entries"].values()):
            if "objective.tokenizer" in overrides:
                overrides["objective.tokenizer"] = str(tokenizer)
        plan = read_comparison(write(tmp_path, given | {"data": content["data"], "val": content["val"]}))
        assert next(iter(plan.entries)) == "scratch" and plan.seeds > 1
        for name in plan.entries:
            check_entry(plan, name, tmp_path)
