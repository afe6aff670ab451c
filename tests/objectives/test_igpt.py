"""iGPT against transformers' model with the same weights, and its own laws: raster order, the palette, completion."""
# Also tests encoders/image_gpt.py, encoders/image_gpt_model.py.

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support.errors import raises
from support.processes import Programs
from support.training_steps import ten_losses
from torch import Tensor

import mae_kit
from mae_kit.cli import main as cli
from mae_kit.commands.predict import predict
from mae_kit.commands.reconstruct import reconstruct
from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.encoders import ImageGPT
from mae_kit.encoders.image_gpt import complete, draw
from mae_kit.evaluation import probe
from mae_kit.objectives import IGPT
from mae_kit.objectives.igpt import classify_and_predict
from mae_kit.tasks.classifier import build_classifier, unfreeze_color_head
from mae_kit.training.optimizer import parameter_groups
from mae_kit.training.train import Job
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.initialize import start_from
from mae_kit.weights.native import save_encoder, save_model
from mae_kit.weights.recognize import load_encoder

SIZES: dict[str, Any] = {"img_size": 8, "colors": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
KEYS = torch.tensor([3, 5])
IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def make(**changed: Any) -> IGPT:
    """Its output does not start at zero, so that all that is before it shows."""
    torch.manual_seed(1)
    objective = IGPT(ImageGPT("igpt_s", **(SIZES | changed)))
    torch.nn.init.normal_(objective.encoder.model.color_head.weight, std=0.2)
    objective.load_state_dict(objective.state_dict())  # its placeholder palette will do
    return objective.eval()


def test_gray_pixels_have_no_more_colors_than_levels():
    make(in_chans=1, colors=256)
    with raises("encoder.colors"):
        make(in_chans=1, colors=257)


def their_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as transformers has them: the start is one more color, matrices lie on their side."""
    t, ours = "transformer.", dict(tensors)
    theirs = {"lm_head.weight": ours.pop("color_head.weight"), f"{t}wpe.weight": ours.pop("pos_embed")}
    theirs[f"{t}wte.weight"] = torch.cat([ours.pop("embed.weight"), ours.pop("start")[None]])
    theirs[f"{t}ln_f.weight"] = ours.pop("norm.weight")
    del ours["palette"]
    parts = {"qkv": "c_attn", "attn.proj": "attn.c_proj", "fc1": "c_fc", "fc2": "c_proj"}
    for name, tensor in ours.items():
        name = t + name.replace("blocks.", "h.").replace("norm", "ln_")
        for mine, other in parts.items():
            name = name.replace(mine, other)
        theirs[name] = tensor.T if tensor.ndim == 2 else tensor
        if tensor.ndim == 2:
            theirs[name.replace("weight", "bias")] = torch.zeros(len(tensor))
    return theirs


def theirs(objective: IGPT) -> Any:
    """Transformers' model with our weights; its biases stay zero, and without order all sees all."""
    from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

    sizes: dict[str, Any] = {"vocab_size": 17, "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 3}
    config = ImageGPTConfig(**sizes, tie_word_embeddings=False)
    model: Any = ImageGPTForCausalImageModeling(config).eval()
    tensors = dict(objective.encoder.model.state_dict())
    tensors.setdefault("start", torch.zeros(48))
    model.load_state_dict(their_names(tensors), strict=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith("bias"))
    if not objective.encoder.causal:
        for block in model.transformer.h:
            block.attn.bias.fill_(True)
    return model


def their_step(model: Any, objective: IGPT, hidden: Tensor) -> tuple[Any, Tensor]:
    """What it puts out, and the loss."""
    codes = objective.encoder.model.codes(IMAGES)
    if objective.encoder.causal:
        out = model(input_ids=torch.cat([torch.full((2, 1), 16), codes[:, :-1]], dim=1), output_hidden_states=True)
    else:
        out = model(inputs_embeds=model.transformer.wte(codes) * ~hidden[:, :, None], output_hidden_states=True)
    return out, F.cross_entropy(out.logits[hidden], codes[hidden])


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_model_of_transformers(causal: bool):
    objective = make(causal=causal)
    outcome = objective(IMAGES, KEYS)
    expected, loss = their_step(model := theirs(objective), objective, outcome.hidden)
    torch.testing.assert_close(outcome.prediction, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outcome.loss, loss, rtol=1e-5, atol=0)
    ours = objective.encoder.model
    ours.reset_classifier(4)
    both = ours.head(expected.hidden_states[-1].mean(dim=1)), loss  # of one image, with pixels hidden from a BERT
    torch.testing.assert_close(classify_and_predict(ours, IMAGES, KEYS), both, rtol=1e-4, atol=1e-5)
    if causal:
        norms = [block.ln_1 for block in model.transformer.h[1:]]
        layers = [norm(x) for norm, x in zip(norms, expected.hidden_states[1:], strict=False)]
        found = objective.encoder.layers(IMAGES, [1, 2, 3])
        torch.testing.assert_close(found, [*layers, expected.hidden_states[-1]], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_ten_training_steps_are_those_of_transformers(causal: bool):
    objective = make(causal=causal)
    model, losses = theirs(objective), []
    groups = [parameter_groups(objective, 0.0), [{"params": [p for p in model.parameters() if p.requires_grad]}]]
    optimizers = [torch.optim.AdamW(group, 3e-3, betas=(0.9, 0.95), weight_decay=0.0) for group in groups]
    for step in range(10):
        outcome = objective(IMAGES, KEYS + step)
        both = outcome.loss, their_step(model, objective, outcome.hidden)[1]
        for loss, optimizer in zip(both, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append([loss.item() for loss in both])
    ours, expected = zip(*losses, strict=True)
    assert ours == pytest.approx(expected, rel=1e-4) and ours[-1] < 0.9 * ours[0]


@pytest.mark.parametrize(
    ("causal", "golden"),
    [
        (True, [3.68841, 3.14648, 3.17702, 2.85073, 2.63725, 2.59135, 2.61106, 2.59771, 2.54184, 2.50777]),
        (False, [3.61914, 3.1464, 3.43469, 2.94524, 2.67169, 2.79743, 2.83463, 2.7778, 2.71846, 2.58188]),
    ],
)
def test_ten_training_steps(causal: bool, golden: list[float]):
    """The losses of this implementation, whose arithmetic is transformers': a change is seen here."""
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert ten_losses(make(causal=causal), images, (0.9, 0.95)) == pytest.approx(golden, rel=1e-3)


def test_later_pixels_do_not_reach_earlier_predictions():
    objective = make()
    before = objective(IMAGES, KEYS).prediction
    for place in (0, 17, 62):
        changed = IMAGES.flatten(2).clone()
        changed[:, :, place] = -changed[:, :, place].sign()
        after = objective(changed.unflatten(2, (8, 8)), KEYS).prediction
        assert torch.equal(after[:, : place + 1], before[:, : place + 1])
        assert not torch.equal(after[:, place + 1], before[:, place + 1])


def test_it_starts_as_the_original_does():
    torch.manual_seed(0)
    model: Any = ImageGPT("igpt_s", 16, embed_dim=256, depth=4, num_heads=4).model
    assert not model.color_head.weight.any() and (model.norm.weight == 1).all()
    found = [model.embed.weight, model.pos_embed, model.start, model.blocks[0].attn.qkv.weight]
    found += [model.blocks[3].attn.proj.weight, model.blocks[1].mlp.fc1.weight, model.blocks[2].mlp.fc2.weight]
    stds = [float(tensor.detach().std()) for tensor in found if tensor is not None]
    assert stds == pytest.approx([0.02, 0.01, 0.02, 1 / 16, 1 / 32, 0.02, 0.02], rel=0.1)
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


def test_the_paper_s_sizes():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in ImageGPT(name).parameters()) for name in ("igpt_s", "igpt_m", "igpt_l")]
    assert [round(size / 1e6) for size in sizes] == [77, 455, 1362]  # the paper counts 76, 455 and 1.4 thousand


def test_hidden_embeddings_are_zero_and_the_others_are_seen_from_both_sides():
    objective = make(causal=False)
    model = objective.encoder.model
    outcome = objective(IMAGES, KEYS)
    assert outcome.hidden.sum(dim=1).tolist() == [10, 10]
    embedded = model.embed(model.codes(IMAGES)) * ~outcome.hidden[:, :, None]
    torch.testing.assert_close(outcome.prediction, model.color_head(model.encode(embedded)))
    last = embedded.clone()
    last[:, -1] += 1
    assert not torch.equal(model.encode(last)[:, 0], model.encode(embedded)[:, 0])


def test_a_completion_keeps_the_upper_half_and_draws_from_what_the_model_says():
    objective = make()
    model, codes = objective.encoder.model, objective.encoder.model.codes(IMAGES)
    chances = torch.rand(2, 64, generator=torch.Generator().manual_seed(2))
    drawn = complete(model, codes, 30, chances)
    assert torch.equal(drawn[:, :30], codes[:, :30]) and not torch.equal(drawn, codes)
    logits = model.color_head(model.encode(model.colors_before(drawn)))  # of all places at once, without a past
    again = torch.stack([draw(logits[:, place], chances[:, place]) for place in range(30, 64)], dim=1)
    assert torch.equal(drawn[:, 30:], again)
    hidden, pixels = objective.reconstruct(IMAGES, KEYS)
    assert hidden.unflatten(1, (8, 8)).all(dim=2).tolist() == [[False] * 4 + [True] * 4] * 2
    seen = model.palette[codes].transpose(1, 2).unflatten(2, (8, 8))
    assert torch.equal(pixels[:, :, :4], seen[:, :, :4])
    assert torch.equal(objective.reconstruct(IMAGES, KEYS)[1], pixels)
    assert not torch.equal(objective.reconstruct(IMAGES, KEYS + 1)[1], pixels)


def test_colors_are_drawn_by_their_probabilities():
    logits = torch.tensor([0.5, 1e-9, 0.2, 0.3]).log().expand(4000, -1)
    shares = torch.bincount(draw(logits, torch.arange(4000) / 4000), minlength=4) / 4000
    assert shares.tolist() == pytest.approx([0.5, 0, 0.2, 0.3], abs=1e-3)


def test_the_palette_is_found_in_images_and_kept_with_the_weights():
    objective = make()
    assert objective.fit_images > 0
    colors = torch.rand(16, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    codes = torch.arange(16).repeat(5, 4)
    images = colors[codes].transpose(1, 2).unflatten(2, (8, 8))
    objective.fit(images)
    palette = objective.state_dict()["encoder.model.palette"]
    assert torch.cdist(palette, colors).amin(dim=0).max() < 1e-5
    sure = 50 * F.one_hot(objective.encoder.model.codes(images), 16).float()
    torch.testing.assert_close(objective.pixels(sure, images), images)


def test_layers_are_asked_for_by_number():
    encoder = make().encoder
    first, last = encoder.layers(IMAGES, [1, 3])
    assert torch.equal(last, encoder(IMAGES)) and torch.equal(first, encoder.layers(IMAGES, [1])[0])
    assert encoder.depth == 3 and first.shape == last.shape == (2, 64, 48) and not torch.equal(first, last)


def save(folder: Path, objective: IGPT) -> Path:
    folder.mkdir(exist_ok=True)
    encoder = objective.encoder
    config = ModelConfig(encoder.name, encoder.model_args, [0.5] * 3, [0.5] * 3, "igpt", 1)
    save_encoder(folder, encoder.model.state_dict(), config)
    return folder


@pytest.mark.parametrize("causal", [True, False])
def test_a_classifier_has_its_palette_and_learns_colors_only_if_asked_to(causal: bool, tmp_path: Path):
    objective = make(causal=causal)
    objective.fit(IMAGES)
    built = build_classifier(None, 4, load_encoder(save(tmp_path, objective)), 0.0, (8, 8))
    model: Any = built.model
    assert built.fresh == ["head.bias", "head.weight"] and not built.dropped
    assert torch.equal(model.palette, objective.encoder.model.palette)
    torch.testing.assert_close(model(IMAGES), model.head(objective.encoder(IMAGES).mean(dim=1)))
    F.cross_entropy(model(IMAGES), torch.tensor([0, 1])).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None], "else DDP waits"
    unfreeze_color_head(model)
    logits, loss = classify_and_predict(model, IMAGES, KEYS)
    assert torch.allclose(logits, model(IMAGES)) == causal, "from a BERT pixels are hidden"
    torch.testing.assert_close(loss, objective(IMAGES, KEYS).loss)
    loss.backward()
    assert model.color_head.weight.grad.any()


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        (lambda: ImageGPT("igpt_x"), "encoder.name"),
        (lambda: ImageGPT("resnet18"), "encoder.model_args"),
        (lambda: ImageGPT("igpt_s", embed_dim=50, num_heads=3), "encoder.model_args"),
        (lambda: unfreeze_color_head(timm.create_model("test_vit")), "generative"),
    ],
)
def test_what_cannot_be_is_refused(wrong: Callable[[], Any], key: str):
    with raises(key):
        wrong()


PRETRAIN = """
objective:
  class_path: mae_kit.objectives.IGPT
  init_args:
    encoder:
      class_path: mae_kit.encoders.image_gpt.ImageGPT
      init_args: {name: igpt_s, img_size: 8, colors: 32, embed_dim: 48, depth: 2, num_heads: 3}
data: {batch_size: 16, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], knn_shards: KNN}
optimization: {epochs: 3, warmup_epochs: 0.5, learning_rate: 3.0e-3, weight_decay: 0.0}
intervals: {log_every_n_steps: 3, checkpoint_every_n_steps: 5, eval_every_n_steps: 1000}
machine: {num_workers: 0, precision: fp32}
"""
FINETUNE = """
model: {name: igpt_s}
data: {batch_size: 16, image_size: 8}
generative: 1.0
optimization: {epochs: 1, learning_rate: 1.0e-3, layer_decay: 0.75}
intervals: {log_every_n_steps: 3}
machine: {num_workers: 0, precision: fp32}
"""


@pytest.mark.long
@pytest.mark.parametrize("causal", ["true", "false"])
def test_the_whole_road(causal: str, programs: Programs, photos: Path, tmp_path: Path):
    """Pretrain, be stopped and go on, fine-tune, look at both."""
    recipe = PRETRAIN.replace("KNN", str(photos / "val-0.tar")).replace(
        "num_heads: 3", f"num_heads: 3, causal: {causal}"
    )
    (tmp_path / "pretrain.yaml").write_text(recipe)
    (tmp_path / "finetune.yaml").write_text(FINETUNE)
    run, fine, train, val = tmp_path / "run", tmp_path / "fine", photos / "train-*.tar", photos / "val-0.tar"

    def do(*words: Any) -> None:
        ended = programs.run(*words)
        assert ended.code == 0, ended.err

    do("pretrain", "--config", tmp_path / "pretrain.yaml", "--data.path", train, "--run", run)
    trained = load_file(run / "encoder.safetensors")
    assert len(trained["palette"].unique(dim=0)) == 32 and list((run / "reconstructions").glob("*.png"))
    shutil.rmtree(sorted((run / "checkpoints").iterdir())[-1])
    do("pretrain", "--resume", run)
    again = load_file(run / "encoder.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in trained.items())
    assert reconstruct(run, val, tmp_path / "grid.png")["images"] == 8
    data = ["--data.path", train, "--data.val", val]
    do("finetune", "--config", tmp_path / "finetune.yaml", "--encoder", run, *data, "--run", fine)
    logged = json.loads((fine / "metrics.jsonl").read_text().splitlines()[0])
    assert logged["loss"] == pytest.approx(logged["class_loss"] + logged["generative_loss"], rel=1e-5)
    assert len(predict(fine, [val], limit=3)["predictions"]) == 3


@pytest.mark.slow
def test_few_labels_are_tuned(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "STEPS", 1)
    (tmp_path / "finetune.yaml").write_text(FINETUNE.replace("generative: 1.0", "tune: auto"))
    settings = {"data": str(photos), "data.labels_per_class": 12, "run": str(tmp_path / "run")}
    args = {"img_size": 8, "colors": 16, "embed_dim": 16, "depth": 1, "num_heads": 2}
    mae_kit.finetune(str(tmp_path / "finetune.yaml"), **settings, **{"model.args": args})
    assert json.loads((tmp_path / "run" / "result.json").read_text())["candidates"][-1]["method"] == "finetune"


def test_from_scratch_too_the_palette_is_found_in_the_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A palette is no training's work: a baseline that had colors of no image would be none."""
    started = []
    monkeypatch.setattr(Job, "train", lambda job, *rest: started.append(job.module) or sys.exit(143))
    (tmp_path / "finetune.yaml").write_text(FINETUNE)
    data = ["--data.path", str(photos / "train-0.tar"), "--data.val", str(photos / "val-0.tar")]
    words = ["finetune", "--config", str(tmp_path / "finetune.yaml"), "--run", str(tmp_path / "run"), *data]
    args = ["--model.args", '{"img_size": 8, "colors": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}']
    with pytest.raises(SystemExit, match="143"):
        cli.main([*words, *args])
    images = EvaluationBatches(open_index(photos / "train-0.tar"), np.arange(16), 16, (8, 8), 3)[0].images
    model, seen = started[0].model, started[0].augment.normalize(images)
    error = (seen - model.palette[model.codes(seen)].unflatten(1, (8, 8)).movedim(3, 1)).square().mean()
    assert error < 0.1 * seen.var()


def test_pretraining_goes_on_from_its_own_files_with_their_palette(tmp_path: Path):
    old = make()
    old.fit(IMAGES)
    torch.nn.init.normal_(old.encoder.model.pos_embed)
    config = ModelConfig(old.encoder.name, old.encoder.model_args, [0.5] * 3, [0.5] * 3, "igpt", 1)
    save_model(save(tmp_path / "run", old), old, config)
    for path in (tmp_path / "run", tmp_path / "run" / "encoder.safetensors"):
        new = make()
        start_from(path, new, [0.5] * 3, [0.5] * 3)
        assert all(torch.equal(new.state_dict()[name], tensor) for name, tensor in old.state_dict().items())


def test_what_others_have_no_place_for_is_told(tmp_path: Path, mistake: Callable[..., str]):
    run = str(save(tmp_path / "run", make()))
    assert mistake("export", run, "--out", tmp_path / "out.png", "--format", "vit_mae") == "format.family"
