"""Packing masks: what ends beside its image, turned and scaled with it, and what is left out and told."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.errors import raises
from support.shapes import NAMES, shapes, write_pair, write_shapes

from mae_kit.commands.shard import shard
from mae_kit.data.decode import IGNORED, decode, decode_mask
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.orientation import UPRIGHT


def pack(source: Path, tmp_path: Path, **how) -> tuple[dict, Index]:
    out = tmp_path / "shards"
    stats = shard(str(source), out, workers=1, **how)
    return stats, open_index(out / "train-*.tar")


def masks_of(index: Index) -> dict[str, np.ndarray]:
    return {index.keys[row]: decode_mask(index.read_mask(row)) for row in index.masked().tolist()}


def reasons(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "shards/skipped.jsonl").read_text().splitlines()
    return [json.loads(line)["reason"].partition(":")[0] for line in lines]


def test_masks_are_packed_beside_their_images(tmp_path: Path):
    stats, index = pack(write_shapes(tmp_path / "in"), tmp_path)
    assert len(index.masked()) == 12 and index.classes == NAMES
    assert [stats["splits"][split]["images"] for split in ("train", "val")] == [12, 4]
    assert stats["splits"]["train"]["classes"] == dict.fromkeys(NAMES, 12)
    for row in index.masked().tolist():
        image, mask = decode(index.read(row)), decode_mask(index.read_mask(row))
        assert (image[mask == 1, 0] > 200).all() and (image[mask == 2, 2] > 200).all()


def test_palette_and_gray_of_few_bits_are_the_same_mask(tmp_path: Path):
    image, mask = shapes(0)
    for name in ("gray", "palette", "bits"):
        write_pair(tmp_path / "in", f"{name}.png", image, mask)
    picture = Image.fromarray(mask)
    picture.putpalette([0, 0, 0, 250, 9, 9, 9, 9, 250])
    picture.save(tmp_path / "in/masks/palette.png")
    picture.save(tmp_path / "in/masks/bits.png", bits=2)
    _, index = pack(tmp_path / "in", tmp_path)
    assert all((found == mask).all() for found in masks_of(index).values())
    assert len(index.masked()) == 3 and index.classes == ["0", "1", "2"]


def test_the_ignored_value_is_255_in_the_shards_and_no_class(tmp_path: Path):
    source = write_shapes(tmp_path / "in")
    (source / "classes.txt").write_text("ground\nsquare\nnothing\n")
    _, index = pack(source, tmp_path, ignore=2)
    assert index.classes == ["ground", "square"]
    assert {IGNORED} == {value for mask in masks_of(index).values() for value in np.unique(mask)} - {0, 1}


@pytest.mark.parametrize("resize", [None, 20])
@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
def test_a_mask_turns_with_its_image(tmp_path: Path, orientation: int, resize: int | None):
    image, mask = shapes(3)
    write_pair(tmp_path / "in", "1.png", image, mask)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "in/images/1.png").unlink()
    Image.fromarray(image).save(tmp_path / "in/images/1.jpg", quality=95, exif=exif)
    _, index = pack(tmp_path / "in", tmp_path, resize=resize)
    shown, found = decode(index.read(0)).astype(int), decode_mask(index.read_mask(0))
    assert shown.shape[:2] == found.shape == (index.height[0], index.width[0])
    agree = (shown[..., 0] - shown[..., 2] > 60) == (found == 1)
    assert agree.mean() > 0.9


def stems(folder: Path, *masks: np.ndarray) -> Path:
    """N.jpg, each with one of these as N.png next to it."""
    folder.mkdir()
    for number, mask in enumerate(masks):
        Image.fromarray(shapes(number)[0]).save(folder / f"{number}.jpg", quality=95)
        Image.fromarray(mask).save(folder / f"{number}.png")
    return folder


def test_a_mask_of_the_same_stem_next_to_its_image(tmp_path: Path):
    """By what it shows: the same picture in another format is none, and where only some are masks, none is guessed."""
    masks, pictures = [shapes(number)[1] for number in range(3)], [shapes(number)[0] for number in range(3)]
    _, index = pack(stems(tmp_path / "in", *masks), tmp_path)
    assert all((found == masks[int(key)]).all() for key, found in masks_of(index).items()) and len(index.masked()) == 3
    mixed = stems(tmp_path / "mixed", *masks[:2], pictures[2])
    with raises("shard.labels.stems"):
        pack(mixed, tmp_path / "of mixed")
    _, index = pack(mixed, tmp_path / "of mixed", labels="masks")
    assert len(index) == 2 == len(index.masked()) and reasons(tmp_path / "of mixed")
    ramp = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48).astype(np.uint8)
    for name, shown in (("color", pictures), ("gray", [ramp] * 3), ("smaller", [mask[1:] for mask in masks])):
        _, index = pack(stems(tmp_path / name, *shown), tmp_path / f"of {name}")
        assert len(index) == 6 and not len(index.masked()), name
    _, index = pack(tmp_path / "in", tmp_path / "of none", labels="none")
    assert len(index) == 3


def test_what_does_not_fit_is_left_out_and_told(tmp_path: Path):
    source = write_shapes(tmp_path / "in", train=6, val=2)
    image, mask = shapes(0)
    write_pair(source, "train/small.png", image, mask[:20])
    write_pair(source, "train/unknown.png", image, np.where(mask == 2, 3, mask).astype(np.uint8))
    write_pair(source, "train/colors.png", image, image)
    write_pair(source, "train/alone.png", image, mask)
    write_pair(source, "train/bare.png", image, mask)
    (source / "images/train/alone.png").unlink()
    (source / "masks/train/bare.png").unlink()
    stats, index = pack(source, tmp_path)
    assert sorted(reasons(tmp_path)) == [
        "a mask is a gray or palette PNG of 8 bits, not a PNG of mode RGB",
        "a mask without an image",
        "mask of another size",
        "mask with a class that is not known",
    ]
    assert stats["splits"]["train"]["images"] == 7 and stats["splits"]["train"]["without_label"] == 1
    assert len(index.masked()) == 6
    assert [problem.kind for problem in index.problems] == ["image without mask"]


def test_shards_with_masks_are_packed_again(tmp_path: Path):
    _, before = pack(write_shapes(tmp_path / "in"), tmp_path)
    shard(str(tmp_path / "shards"), tmp_path / "again", resize=24, workers=1)
    after = open_index(tmp_path / "again/train-*.tar")
    assert after.classes == NAMES and sorted(masks_of(after)) == sorted(masks_of(before))
    assert {mask.shape for mask in masks_of(after).values()} == {(24, 29)}


def test_pictures_are_no_masks(tmp_path: Path):
    """Auto packs the images alone, as before there were masks; asked for, they are refused."""
    image, _ = shapes(0)
    write_pair(tmp_path / "in", "1.png", image, image)
    stats, index = pack(tmp_path / "in", tmp_path)
    assert stats["splits"]["train"]["images"] == 1 and not len(index.masked())
    with raises("shard.nothing"):
        shard(str(tmp_path / "in"), tmp_path / "other", labels="masks", workers=1)
    (tmp_path / "in/masks/1.png").unlink()
    with raises("shard.labels.masks"):
        shard(str(tmp_path / "in"), tmp_path / "other", labels="masks", workers=1)


def test_an_ignored_value_is_one_of_a_mask(tmp_path: Path):
    with raises("shard.ignore"):
        shard(str(write_shapes(tmp_path / "in")), tmp_path / "out", ignore=300)


@pytest.mark.parametrize("labels", ["masks", "none"])
def test_a_second_held_out_split_is_told(tmp_path: Path, labels: str):
    for split in ("train", "val", "test"):
        write_pair(tmp_path / "in", f"{split}/0.png", *shapes(0))
    stats, _ = pack(tmp_path / "in", tmp_path, labels=labels)
    assert [stats["splits"][split]["images"] for split in ("train", "val")] == [1, 1]
    assert "of a second held-out split, which is not used" in reasons(tmp_path)


def test_masks_of_0_and_255_have_two_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    for number in range(2):
        image, mask = shapes(number)
        write_pair(tmp_path / "in", f"{number}.png", image, np.where(mask, 255, 0).astype(np.uint8))
    _, index = pack(tmp_path / "in", tmp_path)
    assert index.classes == ["0", "1"] and "read as classes 0 and 1" in caplog.text
    assert {value for mask in masks_of(index).values() for value in np.unique(mask)} == {0, 1}


def test_a_soft_edge_among_masks_of_0_and_255_is_left_out(tmp_path: Path):
    image, _ = shapes(0)
    for number in range(200):  # one that is not looked at before
        write_pair(tmp_path / "in", f"{number:03d}.png", image[:2, :2], np.full((2, 2), 255 * (number % 2), np.uint8))
    write_pair(tmp_path / "in", "001.png", image[:2, :2], np.array([[0, 255], [128, 0]], np.uint8))
    _, index = pack(tmp_path / "in", tmp_path)
    assert len(index.masked()) == 199
    assert reasons(tmp_path) == ["mask with the value 128, where others hold 0 and 255 alone"]


def test_255_is_ignored_where_there_are_other_classes(tmp_path: Path):
    image, mask = shapes(0)
    write_pair(tmp_path / "in", "1.png", image, np.where(mask, 255, 0).astype(np.uint8))
    write_pair(tmp_path / "in", "2.png", image, mask)
    _, index = pack(tmp_path / "in", tmp_path)
    assert {value for mask in masks_of(index).values() for value in np.unique(mask)} == {0, 1, 2, IGNORED}
