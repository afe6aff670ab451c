"""What is compared: command lines that parse, and files that make no sense."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from conftest import FINETUNE, PRETRAIN
from safetensors.torch import save_file
from support.photo_shards import write_shard
from support.tiny_models import save_run, save_tokenizer

from mae_kit.cli.main import VERBS, load
from mae_kit.cli.parser import parse
from mae_kit.comparison.copies import with_copies
from mae_kit.comparison.entries import POINTS, must_be_trainable, stages, trial
from mae_kit.comparison.plan import Recipe, read_plan, setting
from mae_kit.comparison.recipe_weights import weights_prints
from mae_kit.comparison.stage import Stage
from mae_kit.data.index.exclusions import write_exclusions
from mae_kit.data.index.open import open_index
from mae_kit.encoders import ViT
from mae_kit.errors import UserError
from mae_kit.objectives import MAE
from mae_kit.recipe_file import FOLDER


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """Of a comparison's file: 40 images, 100 seen."""
    write_shard(tmp_path / "train.tar", range(40))
    write_shard(tmp_path / "val.tar", range(100, 104))
    (tmp_path / "pre.yaml").write_text(PRETRAIN)
    (tmp_path / "fine.yaml").write_text(FINETUNE)
    mae = {"config": str(tmp_path / "pre.yaml"), "overrides": {"data.crop_scale": [0.5, 1.0], "data.flip": False}}
    return {
        "shards": str(tmp_path / "train.tar"),
        "val": str(tmp_path / "val.tar"),
        "images_seen": 100,
        "entries": {"mae": mae, "scratch": {"config": None}},
        "finetune": {"config": str(tmp_path / "fine.yaml")},
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def arguments(words: list[str]) -> dict[str, Any]:
    return parse(load(words[0]), words[0], words[1:], VERBS[words[0]].recipes)


def test_an_entry_is_pretrained_for_the_images_seen_then_judged(tmp_path: Path, content: dict[str, Any]):
    plan = read_plan(write(tmp_path, content))
    pretrain, finetune, evaluate = (stage.words for stage in stages(plan, "mae", 100, 3, tmp_path / "out"))
    made = arguments(pretrain)
    assert (made["optimization"].epochs, made["optimization"].warmup_epochs) == (2.5, pytest.approx(2.5 / 6, rel=1e-5))
    assert made["data"].crop_scale == (0.5, 1.0) and not made["data"].flip and made["data"].knn_shards == content["val"]
    steps = 100 / made["data"].batch_size
    assert made["intervals"].eval_every_n_steps == max(1, round(steps / POINTS)), "a curve of scores has points"
    run = tmp_path / "out/mae-seed3/pretrain"
    assert (made["seed"], made["run"]) == (3, run)
    tuned = arguments(finetune)
    assert (tuned["encoder"], tuned["seed"], tuned["optimization"].layer_decay) == (str(run), 3, 0.75)
    asked = arguments(evaluate)
    assert (asked["encoder"], asked["train"], asked["val"]) == (run, content["shards"], content["val"])


def test_a_trial_has_its_own_number_of_steps(tmp_path: Path, content: dict[str, Any]):
    content["entries"]["mae"]["overrides"]["data.batch_size"] = 8
    plan = read_plan(write(tmp_path, content))
    made = arguments(
        trial(plan, "mae", 24, ["--intervals.log_every_n_steps", "8", "--data.knn_shards", "null"], tmp_path).words
    )
    assert (made["optimization"].epochs, made["intervals"].log_every_n_steps, made["data"].knn_shards) == (
        24 * 8 / 40,
        8,
        None,
    )
    assert made["run"] == tmp_path / "mae-images_seen/pretrain" and not made["data"].flip


def test_overrides_of_every_pretraining_come_before_those_of_one(tmp_path: Path, content: dict[str, Any]):
    content["overrides"] = {"data.flip": True, "data.batch_size": 8, "machine.threads": 1}
    plan = read_plan(write(tmp_path, content))
    made = arguments(stages(plan, "mae", 100, 0, tmp_path)[0].words)
    assert (made["data"].flip, made["data"].batch_size, made["machine"].threads) == (False, 8, 1)
    assert arguments(stages(plan, "scratch", 100, 0, tmp_path)[0].words)["machine"].threads == 0


def test_weights_to_start_from_are_asked_for_before_the_first_step_alone(tmp_path: Path, content: dict[str, Any]):
    encoder = ViT("vit_tiny_patch16_224", 32, patch_size=8, embed_dim=48, depth=3, num_heads=3)
    init = save_run(tmp_path / "deeper", MAE(encoder, decoder_dim=32, decoder_depth=1, decoder_heads=2))
    content["entries"]["mae"]["overrides"]["init"] = str(init)
    plan = read_plan(write(tmp_path, content))
    with pytest.raises(UserError, match=r"entries.mae: .*deeper does not fit the model: blocks.2.* unknown"):
        must_be_trainable(plan, tmp_path / "out")
    (tmp_path / "out/mae-seed0/pretrain").mkdir(parents=True)
    must_be_trainable(plan, tmp_path / "out")


@pytest.mark.parametrize(("own", "decay"), [({}, 1), ({"optimization.layer_decay": 0.9}, 0.9)])
def test_scratch_is_fine_tuned_without_layer_decay_and_judged_as_it_began(
    tmp_path: Path, content: dict[str, Any], own: dict[str, Any], decay: float
):
    content["entries"]["scratch"] = {"config": None, "overrides": {"ema": 0.5}, "finetune": {"config": None}}
    content["entries"]["scratch"]["finetune"]["overrides"] = own
    content["finetune"]["overrides"] = {"optimization.layer_decay": 0.5}
    tuning, judged = stages(read_plan(write(tmp_path, content)), "scratch", 100, 0, tmp_path)
    made, asked = arguments(tuning.words), arguments(judged.words)
    assert (made["encoder"], made["optimization"].layer_decay, made["ema"]) == ("none", decay, 0.5)
    assert asked["encoder"] == made["run"] and asked["untrained"] and judged.folder == tuning.folder


@pytest.mark.parametrize(
    "model",
    [
        {"name": "convnext_atto", "args": {"depths": [1, 1, 1, 1]}},
        {"name": "test_vit", "args": {"patch_size": 8}, "weights": "timm"},
    ],
)
def test_what_does_not_begin_with_an_encoder_of_ours_is_not_judged_frozen(
    tmp_path: Path, content: dict[str, Any], model: dict[str, Any]
):
    content["entries"]["scratch"] = {"config": None, "overrides": {"model": model}}
    plan = read_plan(write(tmp_path, content))
    assert [stage.verb for stage in stages(plan, "scratch", 100, 0, tmp_path)] == ["finetune"]


def test_images_without_labels_are_told_before_hours_of_pretraining(tmp_path: Path, content: dict[str, Any]):
    write_shard(tmp_path / "train.tar", range(40), labels=False)
    with pytest.raises(UserError, match=r"train.tar has no labels: pack class folders"):
        read_plan(write(tmp_path, content))


def test_an_encoder_of_another_kind_is_fine_tuned_by_its_own_recipe(tmp_path: Path, content: dict[str, Any]):
    (tmp_path / "other.yaml").write_text(FINETUNE.replace("drop_path: 0.2", "drop_path: 0.4"))
    content["finetune"]["overrides"] = {"optimization.epochs": 7}
    content["entries"]["mae"]["finetune"] = {"config": str(tmp_path / "other.yaml"), "overrides": {"model": None}}
    plan = read_plan(write(tmp_path, content))
    tuned = arguments(stages(plan, "mae", 100, 0, tmp_path)[1].words)
    assert (tuned["drop_path"], tuned["optimization"].epochs, tuned["model"]) == (0.4, 7, None)
    assert arguments(stages(plan, "scratch", 100, 0, tmp_path)[0].words)["drop_path"] == 0.2


def test_a_recipe_that_changes_is_another(tmp_path: Path, content: dict[str, Any]):
    def copied() -> list[Stage]:
        return stages(
            with_copies(read_plan(write(tmp_path, content)), tmp_path / "out"), "mae", 100, 0, tmp_path / "out"
        )

    before = copied()
    (tmp_path / "pre.yaml").write_text(f"# Better.\n{PRETRAIN}")
    assert copied() == before, "a comment says nothing"
    (tmp_path / "pre.yaml").write_text(PRETRAIN.replace("1.0e-3", "2.0e-3"))
    after = copied()
    assert after[0] != before[0] and after[1:] == before[1:]
    rates = [arguments(one[0].words)["optimization"].learning_rate for one in (before, after)]
    assert rates == [1e-3, 2e-3], "the copy stays as it was"


def test_images_that_change_are_others_for_what_reads_them(tmp_path: Path, content: dict[str, Any]):
    content["train"] = str(tmp_path / "labeled.tar")
    write_shard(Path(content["train"]), range(8))
    path = write(tmp_path, content)
    before = stages(read_plan(path), "mae", 100, 0, tmp_path)
    for change in ("labeled", "train"):
        write_shard(tmp_path / f"{change}.tar", range(200, 240), labels=change == "labeled")
        after = stages(read_plan(path), "mae", 100, 0, tmp_path)
        assert [stage.words for stage in after] == [stage.words for stage in before]
        alike = [one.prints == other.prints for one, other in zip(before, after, strict=True)]
        assert alike == [change == "labeled", False, False]


def test_a_list_of_what_no_pretraining_sees_counts_by_what_is_on_it(tmp_path: Path, content: dict[str, Any]):
    content["without"] = str(tmp_path / "duplicates.jsonl")
    index, prints = open_index(content["shards"]), []
    for key in ("0001", "0002"):
        write_exclusions(Path(content["without"]), index, [{"shard": "train.tar", "key": key}], {})
        plan = read_plan(write(tmp_path, content))
        prints.append(plan.prints["images"])
        assert plan.samples == 39 and plan.prints["train"] == index.fingerprint
    assert prints[0] != prints[1]


PRE, FINE = (str(FOLDER / name) for name in ("pretrain/mae_vit_tiny_64px.yaml", "downstream/vit_tiny_64px.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sheds": 1}, "unknown key sheds: did you mean seeds"),
        ({"images_seen": 0}, "images_seen is 0"),
        ({"images_seen": None, "minutes": 0.0}, "minutes is 0.0: give a number above 0"),
        ({"images_seen": None}, "no length is given: give one of images_seen, minutes, flops"),
        ({"flops": 1e15}, "images_seen and flops are all given: give one of images_seen, minutes, flops"),
        ({"seeds": 0}, "seeds is 0"),
        ({"entries": {}}, "the number of entries is 0"),
        ({"entries": {"mae": "mae_vit_b16"}}, "entries.mae is mae_vit_b16, it holds keys: write {config: RECIPE}"),
        ({"entries": {"mae": {"config": None}, "scratch": None}}, "entries.scratch is None, it holds keys"),
        ({"entries": {"../mae": {"config": None}}}, "'../mae' cannot name an entry"),
        ({"entries": {"mae": {"config": "mae_vit_b61"}}}, "no recipe mae_vit_b61: did you mean pretrain/mae_vit_b16"),
        ({"finetune": {"config": None}}, "finetune.config is null"),
        ({"entries": {"mae": {"config": None, "against": "me"}}}, "entries.mae.against is me: name one of mae"),
        ({"finetune": {"config": "nothing"}}, "no recipe nothing"),
        ({"shards": "nowhere-*.tar"}, "no .tar shard"),
        ({"entries": {"mae": {}}}, "entries.mae.config is missing: give a recipe, or null for a training from scratch"),
        ({"entries": {"mae": {"confg": None}}}, "unknown key entries.mae.confg: it may be one of config, overrides,"),
        (
            {"finetune": {"config": "mae_vit_tiny_64px"}},
            "mae_vit_tiny_64px is a recipe of pretrain: did you mean downstream/vit_tiny_64px",
        ),
        ({"finetune": {"config": PRE}}, f"finetune.config is {PRE}, a recipe of pretrain: give one of finetune"),
        ({"entries": {"a": {"config": FINE}}}, f"entries.a.config is {FINE}, a recipe of finetune: give one of pretr"),
        ({"images_seen": 1}, "images_seen is 1, and entries.mae of batches of 16 would see 16: give a multiple of"),
        ({"images_seen": 40}, "images_seen is 40, and entries.mae of batches of 16 would see 32"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, content: dict[str, Any], change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        read_plan(write(tmp_path, content | change))


@pytest.mark.parametrize("key", ["help", "objective.help", "json", "print_config", "resume", "--data.flip"])
@pytest.mark.parametrize("where", ["entries.mae", "finetune"])
def test_words_of_a_command_line_are_no_settings(tmp_path: Path, content: dict[str, Any], where: str, key: str):
    place: dict[str, Any] = content
    for name in where.split("."):
        place = place[name]
    place["overrides"] = {key: True}
    with pytest.raises(UserError, match=f"^{where}.overrides has .*, which is no setting: give dotted ones"):
        read_plan(write(tmp_path, content))


def test_weights_are_told_apart_wherever_they_are_named(tmp_path: Path):
    weights = tmp_path / "a.safetensors"
    for overrides in ({"model.weights": str(weights)}, {"model": {"name": "x", "weights": str(weights)}}):
        prints = []
        for content in (b"one", b"other"):
            weights.write_bytes(content)
            prints.append(weights_prints(Recipe("vit_tiny_64px", overrides), "downstream"))
        assert prints[0].keys() == {"weights"} and prints[0] != prints[1]


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("[]", {}, "pre.yaml is no recipe"),
        ("a: [", {}, "pre.yaml is not YAML"),
        ("data: {batch_size: 8}", {}, r"optimization.epochs of .*pre.yaml is 0"),  # an overlay, such as on/gpu
        ("optimization: {epochs: 10}", {}, r"data.batch_size of .*pre.yaml is 0"),
        ("optimization: {epochs: [3]}", {}, r"optimization.epochs of .*pre.yaml is \[3\]: give a number"),
        ("optimization: 3", {}, r"optimization.epochs of .*pre.yaml is 0"),
        (PRETRAIN, {"data.batch_size": "abc"}, r"data.batch_size of .*pre.yaml is abc: give a number"),
        (PRETRAIN, {"data.batch_size": [8]}, r"data.batch_size of .*pre.yaml is \[8\]: give a number"),
    ],
)
def test_what_would_fail_after_hours_is_told_at_once(
    tmp_path: Path, content: dict[str, Any], recipe: str, overrides: Any, message: str
):
    (tmp_path / "pre.yaml").write_text(recipe)
    content["entries"]["mae"]["overrides"] = overrides
    with pytest.raises(UserError, match=message):
        read_plan(write(tmp_path, content))


@pytest.mark.parametrize(
    ("where", "overrides", "message"),
    [
        (
            "entries.mae",
            {"objective.init_args.mask_ratoi": 0.5},
            "unknown key objective.mask_ratoi",
        ),
        ("entries.mae", {"optimization.learning_rate": "fast"}, "optimization.learning_rate does not take 'fast'"),
        ("entries.scratch", {"augmentaton.mixup": 0.5}, "unknown .*augmentaton"),
        ("finetune", {"optimizations.epochs": 3}, "unknown .*optimization"),
        ("entries.mae", {"objective.mask_ratio": 3}, "mask_ratio 3"),
        ("entries.mae", {"objective": "SimMIM"}, "the recipe is of MAE, and the objective SimMIM: begin with a recipe"),
        ("entries.mae", {"objective": {"class_path": "mae_kit.objectives.SimMIM"}}, "the recipe is of MAE, and the ob"),
        (
            "entries.mae",
            {"objective.encoder.name": "vit_small_patch16_224"},
            "its encoder is a vit_small_patch16_224, and",
        ),
        ("entries.scratch", {"model.name": "vit_tinny"}, "model.name 'vit_tinny' is not in timm"),
        ("entries.mae", {"objective.encoder.depth": 1}, "the encoder of this entry does not fit the model: blocks.1"),
        ("entries.mae", {"objective.encoder.num_heads": 4}, "model.args give attention 3 heads, the encoder of this"),
        ("entries.mae", {"data.mean": [0.5]}, "data.mean and data.std have 1 and 3 values, the encoder 3"),
        ("entries.mae", {"data.batch_size": 50}, ".* holds 40 images, fewer than data.batch_size 50"),
        ("finetune", {"data.labels_per_class": 50}, "data.labels_per_class 50, but a class of .* has 10 images"),
        ("entries.mae", {"init": "nowhere"}, "no file nowhere"),
        ("entries.scratch", {"model": None}, "model.name is missing"),
        ("finetune", {"generative": 1}, "the model is not an iGPT"),
        ("entries.mae", {"optimization.base_learning_rate": 1}, "optimization needs one of .*, and has both"),
        ("entries.mae", {"optimization.learning_rate": None}, "optimization needs one of .*, and has none"),
        ("finetune", {"optimization.base_learning_rate": 1}, "optimization needs one of .*, and has both"),
        ("entries.mae", {"data.crop_scale": [0, 2]}, "data.crop_scale is 0 to 2"),
        ("finetune", {"data.crop_scale": [0, 2]}, "data.crop_scale is 0 to 2"),
        ("finetune", {"blocks": 3}, "blocks is 3, the model has 2"),
        ("finetune", {"ema": 1}, "ema is 1"),
        ("finetune", {"drop_path": 2}, "drop_path is 2"),
        ("finetune", {"data.std": [0, 1, 1]}, "the std of channel 0 is 0"),
        ("entries.mae", {"data.std": [0, 1, 1]}, "the std of channel 0 is 0"),
        ("finetune", {"data.std": [1, 1]}, "data.mean has 3 values and data.std 2"),
        ("finetune", {"machine.accumulate_grad_batches": 16}, "micro-batches of one image cannot be mixed"),
    ],
)
def test_overrides_that_a_verb_would_refuse_are_told_at_once(
    tmp_path: Path, content: dict[str, Any], where: str, overrides: dict[str, Any], message: str
):
    place: dict[str, Any] = content
    for name in where.split("."):
        place = place[name]
    place["overrides"] = overrides
    with pytest.raises(UserError, match=f"^entries.{'scratch' if 'scratch' in where else 'mae'}: {message}"):
        must_be_trainable(read_plan(write(tmp_path, content)), tmp_path)


def test_colors_of_gray_images_are_told_at_once(tmp_path: Path, content: dict[str, Any]):
    gray: dict[str, Any] = {"data.mean": [0.5], "data.std": [0.5]}
    mae = content["entries"]["mae"]
    mae["overrides"] = gray | {"objective.encoder.in_chans": 1}
    content["finetune"]["overrides"] = gray | {"augmentation.color_jitter": 0}
    must_be_trainable(read_plan(write(tmp_path, content)), tmp_path)
    for place in (mae["overrides"] | {"data.color_jitter": 0.4}, None), (None, {"augmentation.randaugment": 9}):
        other = json.loads(json.dumps(content))
        other["entries"]["mae"]["overrides"] = place[0] or mae["overrides"]
        other["finetune"]["overrides"] |= place[1] or {}
        with pytest.raises(UserError, match=r"^entries.mae: .* needs images of 3 channels, these have 1"):
            must_be_trainable(read_plan(write(tmp_path, other)), tmp_path)


def test_a_file_of_weights_for_gray_images_is_looked_at_as_the_verb_does(tmp_path: Path, content: dict[str, Any]):
    args: dict[str, Any] = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    trained = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, num_classes=0, **args)
    save_file(trained.state_dict(), tmp_path / "gray.safetensors")
    gray = {"data.mean": [0.5], "data.std": [0.5], "augmentation.color_jitter": 0}
    weights = {"model.weights": str(tmp_path / "gray.safetensors")}
    content["entries"] = {"scratch": {"config": None, "overrides": weights}}
    content["finetune"]["overrides"] = gray
    must_be_trainable(read_plan(write(tmp_path, content)), tmp_path)


@pytest.mark.parametrize("file", ["encoder.safetensors", "pytorch_model-00001-of-00002.bin", "encoder.pkl"])
def test_weights_that_are_replaced_are_others(tmp_path: Path, file: str):
    recipe = Recipe(None, {"init": str(tmp_path)})
    prints = []
    for content in (b"one", b"two"):
        (tmp_path / file).write_bytes(content)
        prints.append(weights_prints(recipe, "pretrain")["init"])
    assert prints[0] != prints[1]


def test_a_hyphen_is_an_underscore(tmp_path: Path, content: dict[str, Any]):
    content["entries"]["mae"]["overrides"] = {"data.batch-size": 8, "data.crop-scale": [0.5, 1.0]}
    entry = read_plan(write(tmp_path, content)).entries["mae"]
    assert setting(entry, "data.batch_size") == 8 and entry.words()[0] == "--data.batch_size"


def test_numbers_are_read_as_the_command_line_reads_them(tmp_path: Path, content: dict[str, Any]):
    """YAML takes 1e1 for text, and 0.75 is no text."""
    (tmp_path / "pre.yaml").write_text(PRETRAIN.replace("epochs: 3,", "epochs: 1e1,"))
    mae = content["entries"]["mae"] | {"overrides": None}
    content["entries"] = {0.75: mae, 0.5: mae | {"against": 0.5}}
    plan = read_plan(write(tmp_path, content))
    assert plan.against("0.75") == "0.75" and plan.against("0.5") == "0.5"
    pretrain, *_ = (stage.words for stage in stages(plan, "0.75", 100, 0, tmp_path))
    assert arguments(pretrain)["optimization"].warmup_epochs == pytest.approx(0.5 * 2.5 / 10, rel=1e-5)


def test_steps_of_the_rate_come_as_early_as_the_end(tmp_path: Path, content: dict[str, Any]):
    own = PRETRAIN.replace("epochs: 3,", "epochs: 10, decay: steps, steps: [4, 8],")
    assert own != PRETRAIN
    (tmp_path / "pre.yaml").write_text(own)
    plan = read_plan(write(tmp_path, content))
    pretrain, *_ = (stage.words for stage in stages(plan, "mae", 100, 0, tmp_path))
    made = arguments(pretrain)["optimization"]
    assert made.steps == (pytest.approx(1), pytest.approx(2)) and made.epochs == 2.5
    content["entries"]["mae"]["overrides"] = {"optimization.steps": [], "optimization.decay": "cosine"}
    pretrain, *_ = (stage.words for stage in stages(read_plan(write(tmp_path, content)), "mae", 100, 0, tmp_path))
    assert arguments(pretrain)["optimization"].steps == ()
    (tmp_path / "pre.yaml").write_text(own.replace("[4, 8]", "late"))
    content["entries"]["mae"]["overrides"] = {}
    with pytest.raises(UserError, match=r"optimization.steps of .*pre.yaml is late: give a list of numbers"):
        read_plan(write(tmp_path, content))


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ("entries.mae", "optimization.epochs"),
        ("entries.mae", "optimization.warmup-epochs"),
        ("entries.mae", "data.path"),
        ("entries.mae", "data.exclude"),
        ("entries.mae", "data"),
        ("entries.scratch", "data.path"),
        ("entries.mae.finetune", "encoder"),
        ("finetune", "data.val"),
        ("finetune", "seed"),
    ],
)
def test_what_all_have_alike_is_nobodys_to_change(tmp_path: Path, content: dict[str, Any], where: str, key: str):
    place: dict[str, Any] = content
    for name in where.split("."):
        place = place.setdefault(name, {"config": None})
    place["overrides"] = {key: 4}
    key = key.replace("-", "_")
    said = rf"^{where}.overrides has {key}, and the comparison sets {key}.* for all: leave it out"
    with pytest.raises(UserError, match=said):
        read_plan(write(tmp_path, content))


@pytest.mark.slow
def test_the_recipes_are_comparisons(tmp_path: Path, content: dict[str, Any]):
    for path in (FOLDER / "compare").glob("*.yaml"):
        given = yaml.safe_load(path.read_text())
        for overrides in (entry.get("overrides", {}) for entry in given["entries"].values()):
            if "objective.tokenizer" in overrides:
                overrides["objective.tokenizer"] = str(save_tokenizer(tmp_path))
        write_shard(tmp_path / "train.tar", range(256))  # as many as a batch
        plan = read_plan(write(tmp_path, given | {"shards": content["shards"], "val": content["val"]}))
        assert next(iter(plan.entries)) == "scratch" and plan.seeds > 1
        assert f"compare recipes/compare/{path.name}" in path.read_text()
        must_be_trainable(plan, tmp_path)
        for name in plan.entries:
            tuned = arguments(next(s.words for s in stages(plan, name, 100, 0, tmp_path) if s.verb == "finetune"))
            assert tuned["model"] is not None or name == "beit"
