from pathlib import Path

import numpy as np
import pytest
from support.errors import raises
from support.photo_shards import jpeg

from mae_kit.tasks.config import FinetuneData
from mae_kit.tasks.labeled import open_labeled
from mae_kit.training.config import Machine, Optimization


@pytest.mark.parametrize(("labels", "parts", "batch"), [(2, 1, 8), (2, 3, 6), (8, 1, 16)])
def test_a_batch_is_no_larger_than_the_training_set(photos: Path, labels: int, parts: int, batch: int):
    data = FinetuneData(str(photos), batch_size=18 if parts == 3 else 16, image_size=32, labels_per_class=labels)
    machine = Machine(accumulate_grad_batches=parts)
    stream = open_labeled(data, Optimization(epochs=1, learning_rate=1e-3), machine, seed=0).stream
    assert (len(stream.rows), stream.plan.batch_size) == (4 * labels, batch)


def test_a_class_without_a_training_image_is_told(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for shard in photos.glob("*.tar"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    labeled = open_labeled(
        FinetuneData(str(tmp_path), 16, 32), Optimization(epochs=1, learning_rate=1e-3), Machine(), 0
    )
    assert len(labeled.classes) == 5 and "no training image shows eel" in caplog.text


def test_a_fraction_of_the_labels_is_part_of_a_larger_one(photos: Path):
    def rows(fraction: float, seed: int = 0) -> set[int]:
        data = FinetuneData(str(photos), 16, 32, labels_fraction=fraction)
        return set(open_labeled(data, Optimization(1, learning_rate=1e-3), Machine(), seed).stream.rows.tolist())

    assert [len(rows(fraction)) for fraction in (0.02, 0.25, 0.5, 1.0)] == [2, 24, 48, 96]
    assert rows(0.25) < rows(0.5) and rows(0.25) != rows(0.25, seed=1)
    with raises("data.labels_fraction.both"):
        FinetuneData(str(photos), 16, 32, labels_per_class=2, labels_fraction=0.5)


def test_few_images_are_shown_for_the_recipes_steps(photos: Path):
    data = FinetuneData(str(photos), batch_size=16, image_size=32, labels_per_class=2)
    recipe = Optimization(epochs=3, warmup_epochs=0.3, min_steps=60, learning_rate=1e-3)
    labeled = open_labeled(data, recipe, Machine(), seed=0)
    assert labeled.stream.plan.steps == 60
    assert (labeled.optimization.epochs, labeled.optimization.warmup_epochs) == (60, pytest.approx(6))
    everything = open_labeled(FinetuneData(str(photos), 16, 32), recipe, Machine(), seed=0)
    assert everything.stream.plan.steps == 60 and len(np.unique(everything.stream.rows)) == 96
    longer = Optimization(epochs=11, min_steps=60, learning_rate=1e-3)
    assert longer.of_min_steps(96, 16) is longer


def test_images_to_score_on_that_are_those_to_learn_from_are_named_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder, and not that in the cache into which it is packed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    for number in range(8):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "ab"[number % 2] / f"{number}.jpg").write_bytes(jpeg(number))
    with raises("data.val") as caught:
        open_labeled(FinetuneData(str(folder), 16, 32, val=str(folder)), Optimization(1), Machine(), seed=0)
    assert str(folder) in str(caught.value) and "cache" not in str(caught.value)
