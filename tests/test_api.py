"""The library as an outsider uses it: plain modules, plain Trainers, recipes by name, an objective of one's own."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import timm
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from support.photo_shards import photo
from support.processes import Programs

import mae_kit as mk

pytestmark = [  # Lightning's advice, and what it calls in torch
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
]

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
SILENT: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
UNRECORDED: dict[str, Any] = {"logger": False, "enable_checkpointing": False, **SILENT}

MY_OBJECTIVE = '''
import torch.nn.functional as F

import mae_kit as mk


class Softened(mk.MAE):
    """Predict the image after a 3 x 3 mean filter."""

    def target(self, images):
        return super().target(F.avg_pool2d(images, kernel_size=3, stride=1, padding=1))
'''

MY_RECIPE = """
objective:
  class_path: my_objective.Softened
  init_args:
    encoder:
      class_path: mae_kit.ViT
      init_args: {name: vit_tiny_patch16_224, img_size: 32, patch_size: 8, embed_dim: 48, depth: 2, num_heads: 3}
    decoder_dim: 32
    decoder_depth: 1
    decoder_heads: 2
data: {batch_size: 16}
optimization: {epochs: 0.5, learning_rate: 1.0e-3}
"""


def small_mae(encoder: Any = None) -> Any:
    return mk.MAE(encoder or mk.ViT("vit_tiny_patch16_224", **SMALL), decoder_dim=32, decoder_depth=1, decoder_heads=2)


def test_an_objective_is_a_module_that_returns_a_loss():
    mae, images = small_mae(), torch.randn(4, 3, 32, 32)
    outcome = mae(images)
    outcome.loss.backward()
    assert torch.isfinite(outcome.loss) and outcome.hidden.float().mean() == 0.75
    assert all(parameter.grad is not None for parameter in mae.parameters() if parameter.requires_grad)


def test_seeds_decide_what_is_hidden():
    mae, images, seeds = small_mae(), torch.randn(4, 3, 32, 32), torch.arange(4)
    first, second = mae(images, seeds), mae(images, seeds)
    assert torch.equal(first.hidden, second.hidden)


COPIES: dict[str, Any] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda mae: pickle.loads(pickle.dumps(mae)),
    "average": lambda mae: torch.optim.swa_utils.AveragedModel(mae).module,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_compute_the_same(copied: Any):
    mae, images, seeds = small_mae().eval(), torch.randn(4, 3, 32, 32), torch.arange(4)
    other = copied(mae)
    assert torch.equal(other(images, seeds).loss, mae(images, seeds).loss)


def test_weights_that_are_given_are_kept_until_they_are_initialized():
    model = timm.create_model("vit_tiny_patch16_224", **SMALL, num_classes=0)
    given = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("blocks")}
    mae = small_mae(mk.ViT.from_timm(model))
    kept = mae.encoder.model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in given.items())
    mae.init_weights()
    assert not torch.equal(given["blocks.0.attn.qkv.weight"], mae.encoder.model.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize(
    "name",
    ["MAE", "ContrastiveMAE", "CrossMAE", "SimMIM", "BEiT", "IGPT", "MaskedPatch", "FCMAE", "HieraMAE", "MaskFeat"],
)
def test_objectives_have_public_names(name: str):
    assert issubclass(getattr(mk, name), torch.nn.Module)


def test_shards_feed_a_loop_of_ones_own(photos: Path):
    data = mk.ShardDataModule(str(photos), batch_size=16, image_size=32)
    data.setup("fit")
    mae = small_mae()
    optimizer = torch.optim.AdamW(mae.parameters(), 1e-3)
    losses = []
    for batch, _ in zip(data.train_dataloader(), range(3), strict=False):
        loss = mae(data.transform(batch).images).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert len(losses) == 3


def test_a_plain_trainer_resumes_exactly(photos: Path, tmp_path: Path):
    def fit(steps: int, name: str, ckpt_path: str | None = None) -> tuple[Any, pl.Trainer]:
        torch.manual_seed(0)
        folder = tmp_path / name
        saver = ModelCheckpoint(folder, every_n_train_steps=4, save_top_k=-1)
        logger = CSVLogger(tmp_path / f"{name}-logs")
        trainer = pl.Trainer(max_steps=steps, callbacks=[saver], logger=logger, log_every_n_steps=1, **SILENT)
        module = mk.PretrainModule(small_mae(), lr=1e-3, seed=0)
        data = mk.ShardDataModule(str(photos), batch_size=16, image_size=32, seed=0)
        trainer.fit(module, data, ckpt_path=ckpt_path)
        assert any("loss" in metric for metric in trainer.logged_metrics)
        return module, trainer

    whole, _ = fit(8, "whole")
    _, half = fit(4, "half")
    checkpoint = half.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    resumed, _ = fit(8, "resumed", checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert isinstance(mk.PretrainModule.load_from_checkpoint(checkpoint), mk.PretrainModule)


def test_a_tokenizer_trains_under_a_plain_trainer():
    module = mk.TokenizerModule(mk.DVAE(codes=16, stride=8, width=8, blocks=1, code_dim=8), lr=1e-3)
    trainer = pl.Trainer(max_steps=2, **UNRECORDED)
    images: Any = [torch.rand(3, 32, 32) for _ in range(8)]
    trainer.fit(module, torch.utils.data.DataLoader(images, 4))
    assert trainer.global_step == 2


def test_an_image_folder_of_torchvision_trains(tmp_path: Path):
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    for number in range(8):
        folder = tmp_path / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        photo(number).save(folder / f"{number}.png")
    images = ImageFolder(str(tmp_path), transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()]))
    loader = torch.utils.data.DataLoader(images, 4, shuffle=True)
    trainer = pl.Trainer(max_steps=2, **UNRECORDED)
    trainer.fit(mk.PretrainModule(small_mae(), lr=1e-3), loader)
    assert trainer.global_step == 2


MY_COMPARISON = """
data: {photos}/train-*.tar
val: {photos}/val-0.tar
images_seen: 64
seeds: 1
entries:
  softened: {{config: recipe.yaml}}
finetune: {{config: {finetune}}}
"""


@pytest.mark.long
def test_an_objective_of_ones_own_by_every_command(programs: Programs, photos: Path, recipes: Path, tmp_path: Path):
    (tmp_path / "my_objective.py").write_text(MY_OBJECTIVE)
    (tmp_path / "recipe.yaml").write_text(MY_RECIPE)
    finetune = recipes / "finetune.yaml"
    (tmp_path / "compare.yaml").write_text(MY_COMPARISON.format(photos=photos, finetune=finetune))

    def run(line: str) -> dict[str, Any]:
        ended = programs.run(*line.split(), "--json", folder=tmp_path, XDG_DATA_HOME=str(tmp_path / "home"))
        assert ended.code == 0, f"{line}: {ended.err}"
        return json.loads(ended.out)

    run(f"pretrain recipe.yaml --data {photos} --run run")
    assert (tmp_path / "run" / "encoder.safetensors").is_file()
    run(f"reconstruct run {photos} --out grid.png")
    trained = run(f"evaluate run --data {photos} --methods knn")["scores"]
    untrained = run(f"evaluate run --data {photos} --methods knn --untrained")["scores"]
    assert len(trained) == len(untrained) > 0
    plots = run("inspect run")
    assert {"attention", "features", "positions", "reconstructions", "losses", "ratios"} <= plots.keys()
    tuned = run(f"finetune {finetune} --data {photos} --encoder run --run tuned --epochs 1")
    assert 0 <= tuned["top1"] <= 1
    assert run(f"predict tuned {photos}/val-0.tar")
    compared = run("compare compare.yaml --out compared")
    assert not compared["failed"] and compared["entries"][0]["scores"]
    assert "model.safetensors" in run("export run --out exported")["files"]


@pytest.mark.long
def test_a_recipe_by_name_then_its_encoder(photos: Path, tmp_path: Path):
    run = tmp_path / "run"
    mk.pretrain("mae_vit_tiny_64px", data=str(photos), run=run, epochs=0.5, batch_size=16)
    encoder = mk.load_encoder(run)
    assert isinstance(encoder, torch.nn.Module)
    assert encoder(torch.randn(2, 3, 64, 64)).shape[0] == 2
    classifier = mk.FinetuneModule(encoder, num_classes=10, lr=1e-3, layer_decay=0.75)
    data = mk.ShardDataModule(str(photos), batch_size=16, image_size=64)
    trainer = pl.Trainer(max_steps=2, limit_val_batches=1, **UNRECORDED)
    trainer.fit(classifier, data)
    assert trainer.global_step == 2
    assert mk.bench(run, out=tmp_path / "bench.png", sizes=[64], batch_size=2)["sizes"][0]["images_per_second"] > 0
