"""Every input that somebody once reported: what a person expects is what happens, or a line says otherwise."""

import csv
import importlib.util
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.errors import raises

from mae_kit.commands.index import index
from mae_kit.commands.shard import shard
from mae_kit.data.decode import decode
from mae_kit.data.index.open import open_index
from mae_kit.data.packing.label_file import read_label_file
from mae_kit.errors import UserError


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases/data").is_dir():
        pytest.skip("no cases in the shared data folder")
    return shared / "cases/data"


def pack(tmp_path: Path, *files: Path, **options) -> dict:
    """Pack some files alone."""
    source = tmp_path / "in"
    source.mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, source)
    return shard(str(source), tmp_path / "out", workers=1, **options)


def stored(tmp_path: Path) -> list[np.ndarray]:
    """Pixels as training reads them, by key."""
    found, scale = [], open_index(tmp_path / "out").scale
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in sorted(tar, key=lambda member: member.name):
                data = tar.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith(".npy"):
                    values = np.load(io.BytesIO(data))
                    found.append(scale.levels(values) if scale else values)
                elif not member.name.endswith((".cls", ".classes")):
                    found.append(decode(data))
    return found


def skipped(tmp_path: Path) -> dict[str, str]:
    lines = (tmp_path / "out/skipped.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["name"]: line["reason"] for line in map(json.loads, lines)}


def spread(image: np.ndarray) -> float:
    return float(np.percentile(image, 99) - np.percentile(image, 1))


def problems(path: Path) -> dict[str, int]:
    return {group["reason"]: group["count"] for group in index(path)["problems"]}


def test_every_case_is_looked_at(cases: Path):
    """Each line of the list has a test here that names its file."""
    text = Path(__file__).read_text(encoding="utf-8")
    with (cases / "index.csv").open(encoding="utf-8", newline="") as lines:
        files = [line["file"].removesuffix("/train.parquet") for line in csv.DictReader(lines)]
    assert [file for file in files if file.split(":")[-1].split("/")[-1] not in text] == []


# depth/


def test_16_bit_colors_of_12_bits(cases: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """colour-12-in-16.png: the picture, and a word about the scale."""
    caplog.set_level("INFO")
    stats = pack(tmp_path, cases / "depth/colour-12-in-16.png")
    assert max(stats["scale"]["high"]) < 4096 and "becomes 1" in caplog.text
    (image,) = stored(tmp_path)
    assert image.shape == (64, 96, 3) and image.max() > 200


def test_a_scale_has_an_effect_on_16_bit_colors(cases: Path, tmp_path: Path):
    pack(tmp_path, cases / "depth/colour-12-in-16.png", scale="0,8191")
    (image,) = stored(tmp_path)
    assert 100 < image.max() < 130


def test_near_infrared_beside_rgb(cases: Path, tmp_path: Path):
    """rgb-nir-12-in-16.tif: four channels, or three and a line."""
    file = cases / "depth/rgb-nir-12-in-16.tif"
    pack(tmp_path, file)
    (image,) = stored(tmp_path)
    assert image.shape == (64, 96, 4) and image.max() > 200
    shutil.rmtree(tmp_path / "out")
    pack(tmp_path, file, channels=3)
    (image,) = stored(tmp_path)
    assert image.shape == (64, 96, 3) and image.max() > 200 and "band 4" in skipped(tmp_path)[file.name]


def test_a_marker_hides_nothing(cases: Path, tmp_path: Path):
    """one-marker-hides-dark/a.png and b.png: one scale that the burnt-in marker does not decide."""
    stats = pack(tmp_path, *(cases / "depth/one-marker-hides-dark").glob("*.png"))
    assert max(stats["scale"]["high"]) < 4096
    assert all(image.mean() > 50 for image in stored(tmp_path))


def test_shards_of_others_are_reported(cases: Path, tmp_path: Path):
    """foreign-12-bit.tar: dark as it is, so `index` says so, and `shard` mends it."""
    shutil.copy(cases / "depth/foreign-12-bit.tar", tmp_path)
    assert [reason for reason in problems(tmp_path) if "dark" in reason]
    shard(str(tmp_path / "foreign-12-bit.tar"), tmp_path / "out", workers=1)
    assert all(image.max() > 150 for image in stored(tmp_path)) and not problems(tmp_path / "out")


# tiff/


def scene(cases: Path, name: str, tmp_path: Path, **options) -> np.ndarray:
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    pack(tmp_path, cases / "tiff" / name, **options)
    (image,) = stored(tmp_path)
    return image[..., 0].astype(float)


@pytest.mark.parametrize("name", ["int8.tif", "uint32-full.tif", "dem-int16-inland.tif"])
def test_numbers_that_do_not_wrap(cases: Path, tmp_path: Path, name: str):
    import tifffile

    values = tifffile.imread(cases / "tiff" / name).astype(float)
    image = scene(cases, name, tmp_path)
    assert spread(image) > 100
    assert np.corrcoef(image.ravel(), values.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ["min-is-white-8.tif", "min-is-white-16.tif"])
def test_where_zero_is_white(cases: Path, tmp_path: Path, name: str):
    import tifffile

    values = tifffile.imread(cases / "tiff" / name).astype(float)
    assert np.corrcoef(scene(cases, name, tmp_path).ravel(), values.ravel())[0, 1] < -0.99


def test_pixels_without_data_do_not_count(cases: Path, tmp_path: Path):
    """nodata-9999.tif: the rest of it looks as it would without the corner, which is the mean."""
    import tifffile

    values = tifffile.imread(cases / "tiff/nodata-9999.tif")
    image, sound = scene(cases, "nodata-9999.tif", tmp_path), values > -9999
    assert spread(image[sound]) > 100 and spread(image[~sound]) == 0
    assert np.corrcoef(image[sound], values[sound])[0, 1] > 0.99


def test_separate_planes(cases: Path, tmp_path: Path):
    """planar-rgb-16-uncompressed.tif, which Pillow scrambles."""
    import tifffile

    pack(tmp_path, cases / "tiff/planar-rgb-16-uncompressed.tif")
    (image,) = stored(tmp_path)
    values = np.moveaxis(tifffile.imread(cases / "tiff/planar-rgb-16-uncompressed.tif"), 0, 2)
    assert np.corrcoef(image.ravel(), values.ravel())[0, 1] > 0.99


def test_a_brighter_scene_is_nearly_the_same_picture(cases: Path, tmp_path: Path):
    """reflectance-max-0.99.tif and reflectance-max-1.01.tif."""
    found = [scene(cases, f"reflectance-max-{value}.tif", tmp_path) for value in ("0.99", "1.01")]
    assert np.abs(found[0] - found[1]).mean() < 5


# bands/


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("13-bands-uint16.tif", 13),
        ("13-pages-uint16.tif", 13),
        ("4-bands-uint8-minisblack.tif", 4),
        ("5-channels.ome.tif", 5),
        ("3x16-minisblack.tif", 3),
    ],
)
def test_as_many_channels_as_there_are(cases: Path, tmp_path: Path, name: str, channels: int):
    pack(tmp_path, cases / "bands" / name, channels=channels)
    (image,) = stored(tmp_path)
    assert image.shape[2] == channels and spread(image) > 50


@pytest.mark.parametrize(
    "name", ["13-bands-uint16.tif", "13-pages-uint16.tif", "4-bands-uint8-minisblack.tif", "5-channels.ome.tif"]
)
def test_bands_that_are_not_asked_for_have_a_line(cases: Path, tmp_path: Path, name: str):
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    pack(tmp_path, cases / "bands" / name, tmp_path / "plain.png")
    (reason,) = skipped(tmp_path).values()
    assert name.split("-")[0] in reason


def test_an_array_of_channels_first(cases: Path, tmp_path: Path):
    """chw-uint16.npy."""
    with raises("shard.nothing") as error:
        pack(tmp_path, cases / "bands/chw-uint16.npy", channels=13)
    assert "transpose" in str(error.value)


# jpeg/, formats/


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("orientation-as-long-big-endian.jpg", None),
        ("exif-behind-68-kB-of-icc.jpg", (64, 96)),
        ("comment-that-holds-exif.jpg", None),
        ("two-bytes-between-segments.jpg", None),
    ],
)
def test_jpegs_as_pillow_turns_them(cases: Path, name: str, size: tuple[int, int] | None):
    from PIL import ImageOps

    image = decode((cases / "jpeg" / name).read_bytes())
    with Image.open(cases / "jpeg" / name) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert np.abs(image.astype(int) - expected).mean() < 1
    assert size is None or image.shape[1::-1] == size


def test_formats(cases: Path, tmp_path: Path):
    """photo.avif is read, heic-named.jpg where its plugin is at hand, and else is named."""
    pack(tmp_path, *(cases / "formats").iterdir())
    if importlib.util.find_spec("pillow_heif"):
        assert len(stored(tmp_path)) == 2
    else:
        assert len(stored(tmp_path)) == 1 and "HEIC" in skipped(tmp_path)["heic-named.jpg"]


# tars/


@pytest.mark.parametrize(
    ("name", "samples"), [("names-with-a-number.tar", 4), ("avif-among-jpg.tar", 4), ("image-and-mask.tar", 3)]
)
def test_members_of_foreign_tars(cases: Path, tmp_path: Path, name: str, samples: int):
    shutil.copy(cases / "tars" / name, tmp_path)
    assert index(tmp_path)["samples"] == samples


def test_the_mask_beside_an_image_is_its_mask(cases: Path, tmp_path: Path):
    shutil.copy(cases / "tars/image-and-mask.tar", tmp_path)
    assert index(tmp_path)["masked"] == 3


def test_class_folders_inside_a_tar(cases: Path, tmp_path: Path):
    """classes-as-folders.tar."""
    shard(str(cases / "tars/classes-as-folders.tar"), tmp_path / "out", workers=1, labels="folders")
    found = open_index(tmp_path / "out")
    assert len(found.classes or ()) > 1 and len(found.labeled()) == len(found)


# tables/


@pytest.mark.parametrize("name", ["semicolon.csv", "metadata.csv", "nfc-name.csv"])
def test_tables(cases: Path, tmp_path: Path, name: str):
    image = "e\u0301.png" if name.startswith("nfc") else "a.png"
    found = read_label_file(cases / "tables" / name, tmp_path, [image])
    assert found.rows == {image: ["cat"]}


def test_a_column_for_each_class_says_what_was_found(cases: Path, tmp_path: Path):
    with raises("shard.labels") as error:
        read_label_file(cases / "tables/one-hot.csv", tmp_path, ["a.png"])
    assert "file, cat, dog" in str(error.value)


# hf/


@pytest.mark.parametrize(
    ("name", "classes", "images"), [("int-label", 2, None), ("null-label", None, None), ("null-image", None, None)]
)
def test_parquet(cases: Path, tmp_path: Path, name: str, classes: int | None, images: int | None):
    stats = shard(f"hf:{cases / 'hf' / name}", tmp_path / "out", workers=1)
    labels = stats["splits"]["train"]["classes"]
    assert classes is None or len(labels) == classes
    if name == "null-image":
        assert len(skipped(tmp_path)) == 1
    if name == "null-label":
        assert stats["splits"]["train"]["without_label"] == 1


# folders


def draw(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / name)
    return folder


def classes_of(folder: Path, tmp_path: Path, **options) -> dict[str, dict[str, int]]:
    out = tmp_path / f"out-{len(os.listdir(tmp_path))}"
    stats = shard(str(folder), out, workers=1, **options)
    return {split: part["classes"] or part["images"] for split, part in stats["splits"].items() if part["images"]}


def test_folders_that_are_links(tmp_path: Path):
    """linked-class, linked-split/set: both names of a folder are listed."""
    linked = draw(tmp_path / "linked-class", "cat/1.png", "dog/1.png")
    (linked / "wolf").symlink_to(linked / "dog")
    assert classes_of(linked, tmp_path) == {"train": {"cat": 1, "dog": 1, "wolf": 1}}
    images = draw(tmp_path / "images", "cat/1.png", "dog/1.png")
    (tmp_path / "set").mkdir()
    for split in ("train", "val"):
        (tmp_path / "set" / split).symlink_to(images)
    assert classes_of(tmp_path / "set", tmp_path).keys() == {"train", "val"}


@pytest.mark.parametrize(
    "names",
    [
        ("images/train/1.png", "images/valid/2.png"),  # yolo
        ("train/images/1.png", "valid/images/2.png"),
        ("train2017/1.png", "val2017/2.png"),
        ("set/data/train/1.png", "set/data/val/2.png"),
    ],
)
def test_known_layouts_have_splits(tmp_path: Path, names: tuple[str, str]):
    assert classes_of(draw(tmp_path / "in", *names), tmp_path) == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    "names",
    [
        ("JPEGImages/1.png", "SegmentationClass/1.png", "SegmentationObject/1.png"),
        ("images/1.png", "masks/1.png"),
        ("train/images/1.png", "train/labels/1.png"),
        ("1.png", "1_mask.png"),
        ("cat/1.png", "cat/1-seg.png"),
    ],
)
def test_masks_are_no_class(tmp_path: Path, names: tuple[str, ...]):
    folder = draw(tmp_path / "in", *names)
    assert classes_of(folder, tmp_path) == {"train": 1}


def test_a_single_split_keeps_its_classes(tmp_path: Path):
    folder = draw(tmp_path / "in", "valid/cat/1.png", "valid/dog/2.png")
    assert classes_of(folder, tmp_path) == {"train": {"cat": 1, "dog": 1}}


def test_folders_of_a_system(tmp_path: Path):
    """synology: its thumbnails are left out as hidden folders are."""
    folder = draw(
        tmp_path / "in", "cat/1.png", "dog/1.png", "cat/@eaDir/1.png/x.png", "lost+found/1.png", "#recycle/2.png"
    )
    assert classes_of(folder, tmp_path) == {"train": {"cat": 1, "dog": 1}}


def test_folders_of_img2dataset(tmp_path: Path):
    plain = draw(tmp_path / "plain", "00000/000000000.png", "00001/000010000.png")
    classes = draw(tmp_path / "classes", "cat/00000/000000000.png", "dog/00000/000000000.png")
    for image in tmp_path.rglob("*.png"):
        image.with_suffix(".json").write_text("{}")
    assert classes_of(plain, tmp_path) == {"train": 2}
    assert classes_of(classes, tmp_path) == {"train": {"cat": 1, "dog": 1}}


@pytest.mark.parametrize(
    "names",
    [
        ("cat/1.png", "dog/1.png", "stray.png"),
        ("train/1.png", "val/1.png", "cat/1.png"),
        ("cat/train/1.png", "cat/val/2.png", "dog/train/3.png", "dog/val/4.png"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(UserError):
        classes_of(draw(tmp_path / "in", *names), tmp_path)


def test_tars_with_an_image_beside_them_are_refused(tmp_path: Path, cases: Path):
    draw(tmp_path / "in", "preview.png")
    shutil.copy(cases / "tars/avif-among-jpg.tar", tmp_path / "in")
    with raises("shard.src"):
        classes_of(tmp_path / "in", tmp_path)
