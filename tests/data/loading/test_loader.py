"""Batches are functions of their number: the same in any worker, with any split, after any damage."""
# Also tests data/loading/batch.py.

import errno
import io
import json
import os
import statistics
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.errors import raises
from support.gates import Measured
from support.photo_shards import classes_of, photo, write_shard

from mae_kit.data import scale
from mae_kit.data.decode import decode
from mae_kit.data.index import index as columns
from mae_kit.data.index.index import Descriptor
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.loader import EvaluationBatches, Loader, Replica, TrainBatches
from mae_kit.data.order import samples_at, step_positions
from mae_kit.data.remote import filesystem

SIZE = (24, 32)


@pytest.fixture(scope="module")
def index(photos: Path) -> Index:
    return open_index(photos / "train-*.tar")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """64 images, four of them (a sixteenth) with garbage that only decoding finds."""
    folder = tmp_path_factory.mktemp("damaged")
    write_shard(folder / "train-0.tar", range(64), damaged=(3, 20, 21, 63))
    return open_index(folder)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "PAUSES", [0.001] * 3)


def batches(index: Index, part: Replica | None = None, batch_size: int = 16, seed: int = 0) -> TrainBatches:
    return TrainBatches(index, np.arange(len(index)), batch_size, SIZE, seed=seed, replica=part)


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one[:4], other[:4], strict=True)) and one.bad == other.bad


def test_a_batch_is_what_it_says(index: Index):
    batch = batches(index)[0]
    assert batch.images.shape == (16, 3, *SIZE) and batch.images.dtype == torch.uint8
    assert batch.seeds.dtype == batch.ids.dtype == batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [int(index.keys[row]) % 4 for row in batch.ids.tolist()]
    assert len(batch.seeds.unique()) == 16 and batch.bad == []


def test_crops_show_the_image_they_name(index: Index):
    whole = TrainBatches(index, np.arange(96), 16, SIZE, crop_scale=(0.9, 1.0))[3]
    for image, row in zip(whole.images, whole.ids.tolist(), strict=True):
        original = torch.from_numpy(np.array(photo(int(index.keys[row])).resize((SIZE[1], SIZE[0])))).permute(2, 0, 1)
        distances = (image.float() - original.float()).abs().mean()
        assert distances < 25, index.keys[row]


def test_the_same_batch_every_time_and_another_at_another_step(index: Index):
    assert equal(batches(index)[5], batches(index)[5])
    assert not torch.equal(batches(index)[5].images, batches(index)[6].images)
    assert not torch.equal(batches(index)[5].ids, batches(index, seed=1)[5].ids)
    again, before = batches(index)[6].ids.tolist(), batches(index)[0].ids.tolist()
    assert sorted(again) != sorted(before), "step 6 is the first of the second epoch"


@pytest.mark.parametrize(("world", "parts"), [(2, 1), (1, 4), (4, 2), (16, 1)])
def test_any_split_of_a_step_shows_the_same_crops(index: Index, world: int, parts: int):
    whole = batches(index)[7]
    shares = [
        batches(index, Replica(rank, world, parts))[7 * parts + part] for part in range(parts) for rank in range(world)
    ]
    for one, together in zip(whole[:4], zip(*(part[:4] for part in shares), strict=True), strict=True):
        assert torch.equal(one, torch.cat(together))


def whole(data: bytes, height: int, width: int, channels: int) -> np.ndarray:
    return decode(data, channels)


@pytest.mark.parametrize("larger", [1, 10])
def test_jpegs_much_larger_than_the_crop_are_decoded_smaller_and_look_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, larger: int
):
    write_shard(tmp_path / "a.tar", range(16), larger=larger)
    found = [batches(open_index(tmp_path))[step].images for step in range(2)]
    monkeypatch.setattr(scale, "decode_scaled", whole)
    expected = [batches(open_index(tmp_path))[step].images for step in range(2)]
    apart = (torch.cat(found).float() - torch.cat(expected).float()).abs()
    if larger == 1:
        assert apart.max() == 0
    else:
        assert 0 < apart.mean() < 1.5 and apart.max() < 24, "a quarter of a pixel off, at most, in images full of noise"


def test_a_turned_jpeg_is_cropped_where_it_would_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    photo(0).resize((640, 480)).save(stream, "JPEG", exif=exif)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("0.jpg")
        info.size = len(stream.getvalue())
        tar.addfile(info, io.BytesIO(stream.getvalue()))
    found = batches(open_index(tmp_path), batch_size=1)[0].images
    monkeypatch.setattr(scale, "decode_scaled", whole)
    expected = batches(open_index(tmp_path), batch_size=1)[0].images
    assert 0 < (found.float() - expected.float()).abs().mean() < 1


def test_an_epoch_shows_every_image_once(index: Index):
    ids = torch.cat([batches(index)[step].ids for step in range(12)])
    assert sorted(ids[:96].tolist()) == sorted(ids[96:].tolist()) == list(range(96))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_change_nothing(damaged: Index, workers: int):
    loader = Loader(batches(damaged), 2, 9, workers)
    got = list(loader)
    assert len(loader) == len(got) == 7 and loader.waited > 0
    assert all(equal(batch, batches(damaged)[step]) for step, batch in zip(range(2, 9), got, strict=True))


def test_damaged_images_are_replaced_alike_and_written_down(damaged: Index):
    epoch = [batches(damaged)[step] for step in range(4)]
    lines = [json.loads(line) for batch in epoch for line in batch.bad]
    assert {line["key"] for line in lines} == {"0003", "0020", "0021", "0063"}
    assert all(line["shard"] == "train-0.tar" and line["reason"] and line["offset"] > 0 for line in lines)
    replaced = sum(int((batch.shown != batch.seeds).sum()) for batch in epoch)
    assert replaced == 4 and len({key for batch in epoch for key in batch.shown.tolist()}) <= 60
    again = [batches(damaged, Replica(rank, 2))[step] for step in range(4) for rank in range(2)]
    assert torch.equal(torch.cat([b.ids for b in epoch]), torch.cat([b.ids for b in again]))
    assert torch.equal(torch.cat([b.images for b in epoch]), torch.cat([b.images for b in again]))


def test_only_the_damaged_images_are_replaced_and_labels_follow(damaged: Index):
    for step in range(4):
        batch = batches(damaged)[step]
        wanted = samples_at(step_positions(step, 16, 0, 1), 64, 0)[1]
        replaced = batch.ids.numpy() != wanted
        assert set(wanted[replaced]) <= {3, 20, 21, 63} and set(batch.ids.tolist()).isdisjoint({3, 20, 21, 63})
        assert batch.labels.tolist() == [row % 4 for row in batch.ids.tolist()]


@pytest.mark.slow
@pytest.mark.gate("R11")
def test_damaged_images_cost_little_time(tmp_path: Path, campaign: bool, measured: Measured):
    """Processor time of an epoch with 5% damage over that of one without, in turn."""
    if not campaign:
        pytest.skip("a figure of the campaign: a few turns on a busy machine say nothing")
    ways = {"sound": (), "damaged": tuple(range(0, 200, 20))}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way, damaged in ways.items():
        write_shard(tmp_path / f"{way}.tar", range(200), damaged=damaged, larger=6)
    epochs = {way: TrainBatches(open_index(tmp_path / f"{way}.tar"), np.arange(200), 50, (224, 224)) for way in ways}
    for _ in range(11):
        for way, epoch in epochs.items():
            start = time.process_time()
            bad = sum(len(epoch[step].bad) for step in range(4))
            seconds[way].append(time.process_time() - start)
            assert bool(bad) == (way == "damaged")
    slower = 100 * (statistics.median(seconds["damaged"]) / statistics.median(seconds["sound"]) - 1)
    measured(f"{slower:+.1f}% processor time of the loader at 5% damage")
    assert slower < 10


def test_bytes_that_changed_since_the_index_are_found(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(16))
    found = open_index(tmp_path)
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[int(found.offset[5]) + 300] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    (line,) = batches(found)[0].bad
    assert json.loads(line)["key"] == "0005" and "checksum differs" in json.loads(line)["reason"]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_nothing_that_decodes_is_one_clear_error(tmp_path: Path, workers: int):
    write_shard(tmp_path / "a.tar", range(16))
    found = open_index(tmp_path)
    (tmp_path / "a.tar").write_bytes(bytes(1 << 18))
    with raises("loader.images"):
        next(iter(Loader(batches(found), 0, 1, workers)))


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_fails_now_and_then_changes_nothing(
    index: Index, monkeypatch: pytest.MonkeyPatch, short_pauses: None, fault: int
):
    right, faults, read_at = batches(index)[3], iter([True, False, True, True]), columns.read_at

    def failing(file: Descriptor, size: int, offset: int) -> bytes:
        if next(faults, False):
            raise OSError(fault, "fails")
        return read_at(file, size, offset)

    monkeypatch.setattr(columns, "read_at", failing)
    assert equal(batches(index)[3], right)


def test_a_checksum_that_differs_once_is_no_damage(index: Index, monkeypatch: pytest.MonkeyPatch):
    right, first, read_at = batches(index)[3], iter([True]), columns.read_at
    monkeypatch.setattr(
        columns,
        "read_at",
        lambda file, size, offset: bytes(size) if next(first, False) else read_at(file, size, offset),
    )
    assert equal(batches(index)[3], right)


@pytest.mark.parametrize("kept", [0, 2000, None])
def test_a_shard_that_is_cut_or_gone_ends_the_run(tmp_path: Path, short_pauses: None, kept: int | None):
    """Other images in place of its samples would be another training."""
    write_shard(tmp_path / "a.tar", range(16))
    found = open_index(tmp_path)
    if kept is None:
        (tmp_path / "a.tar").unlink()
    else:
        os.truncate(tmp_path / "a.tar", kept)
    with raises("data.read"):
        batches(found)[0]


def test_evaluation_leaves_bad_images_out_and_keeps_the_order(damaged: Index):
    evaluation = EvaluationBatches(damaged, np.arange(64), 30, SIZE, crop_pct=0.9)
    assert len(evaluation) == 3
    got = list(evaluation)  # type: ignore[call-overload]
    assert torch.cat([b.ids for b in got]).tolist() == [row for row in range(64) if row not in (3, 20, 21, 63)]
    assert sum(len(b.bad) for b in got) == 4
    assert all(b.labels.tolist() == [row % 4 for row in b.ids.tolist()] for b in got)


def test_a_batch_of_bad_images_alone_is_empty(damaged: Index):
    batch = EvaluationBatches(damaged, np.array([20, 21]), 8, SIZE)[0]
    assert batch.images.shape == (0, 3, *SIZE) and len(batch.bad) == 2 and len(batch.labels) == 0


def test_one_channel(index: Index):
    batch = TrainBatches(index, np.arange(96), 16, SIZE, channels=1)[0]
    assert batch.images.shape == (16, 1, *SIZE)


def test_samples_without_label_have_minus_one(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(16), labels=False)
    assert batches(open_index(tmp_path))[0].labels.tolist() == [-1] * 16


def test_sets_of_classes_are_rows_of_yes_and_no(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(16), sets=True)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    index = open_index(tmp_path)
    for batch in (batches(index)[0], EvaluationBatches(index, np.arange(16), 16, SIZE)[0]):
        assert batch.labels.dtype == torch.bool and batch.labels.shape == (16, 5)
        shown = [set(row.nonzero().flatten().tolist()) for row in batch.labels]
        assert shown == [set(classes_of(number)) for number in batch.ids.tolist()]
