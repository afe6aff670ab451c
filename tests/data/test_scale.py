import numpy as np
import pytest
import torch
from torch.nn import functional

from mae_kit.data.decode import Raw
from mae_kit.data.loading.crop import Box, crop_resize
from mae_kit.data.scale import Scale, decode_on_scale, keep, missing, rounded, select, to_gray, to_rgb, wanted
from mae_kit.errors import BadImage


def scale(kind: str = "uint16", low: float = 100, high: float = 4100, bands: int = 2, **more) -> Scale:
    return Scale(kind, "given", [low] * bands, [high] * bands, [200.0] * bands, **more)  # type: ignore[arg-type]


def array(values: np.ndarray) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_levels_are_linear_and_clipped():
    values = np.array([0, 100, 2100, 4100, 65535], np.uint16)[None, :, None].repeat(2, axis=2)
    np.testing.assert_allclose(scale().levels(values)[0, :, 1], [0, 0, 127.5, 255, 255], rtol=1e-6)


@pytest.mark.parametrize(("kind", "nodata"), [("uint16", 0), ("int16", -9999), ("float32", -9999), ("float32", None)])
def test_what_has_no_data_is_filled_with_the_mean(kind: str, nodata: float | None):
    values = np.full((2, 2, 1), 300, kind)
    values[0, 0] = np.nan if nodata is None else nodata
    levels = scale(kind, bands=1, nodata=nodata).levels(values)
    np.testing.assert_allclose(levels[..., 0], np.array([[100, 200], [200, 200]]) * 255 / 4000, rtol=1e-6)
    assert missing(values, nodata).sum() == 1


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_crops_are_resized_with_antialias_as_in_float64(kind: str, mode: str):
    values = np.random.default_rng(0).normal(2000, 500, (61, 47, 3)).clip(0, 4000).astype(kind)
    how = scale(kind, 0, 4000, bands=3)
    found = crop_resize(values, Box(5, 3, 51, 40), (16, 24), mode, how)
    exact = torch.from_numpy(values[5:56, 3:43].astype(np.float64)).permute(2, 0, 1)[None] * 255 / 4000
    expected = functional.interpolate(exact, size=(16, 24), mode=mode, antialias=True)[0].clamp(0, 255)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=0)


def test_a_value_beyond_the_scale_spreads_no_further_than_its_end():
    """It is clipped before crops are resized."""
    values = np.random.default_rng(0).integers(100, 4100, (20, 20, 2), dtype=np.uint16)
    hot, clipped = values.copy(), values.copy()
    hot[9, 9], clipped[9, 9] = 65535, 4100
    box = Box(0, 0, 20, 20)
    assert torch.equal(crop_resize(hot, box, (8, 8), scale=scale()), crop_resize(clipped, box, (8, 8), scale=scale()))


def test_values_of_8_bits_become_what_8_bits_become():
    """But for the rounding of uint8: the two ways through the loader are one."""
    values = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    box, size = Box(2, 3, 30, 33), (16, 16)
    deep = crop_resize(values.astype(np.uint16), box, size, scale=scale(low=0, high=255, bands=3))
    assert (deep - crop_resize(values, box, size).float()).abs().max() <= 1


def test_the_kind_of_number_and_the_bands_must_fit():
    values = np.ones((3, 4, 2), np.uint16)
    assert decode_on_scale(array(values), 2, scale()).dtype == np.uint16
    for other in (values.astype(np.int16), values[..., :1], values.astype(np.uint8)):
        with pytest.raises(BadImage):
            decode_on_scale(array(other), 2, scale())
    with pytest.raises(BadImage, match="channels"):
        decode_on_scale(array(values), 3, scale())
    assert decode_on_scale(array(values[..., :1]), 3, scale(bands=1)).shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("kind", "kept"),
    [("uint16", "uint16"), ("int8", "int16"), ("int32", "float32"), (">u2", "uint16"), ("f8", "float32")],
)
def test_other_kinds_of_numbers_are_kept_as_one_of_ours(kind: str, kept: str):
    values = np.arange(6).reshape(1, 2, 3).astype(kind)
    assert keep(values).dtype == kept and (keep(values) == values).all()


@pytest.mark.parametrize("values", [np.full((1, 1, 1), np.inf), np.full((1, 1, 1), 1e300)])
def test_what_float32_does_not_hold_is_refused(values: np.ndarray):
    with pytest.raises(BadImage):
        keep(values)


def test_integers_that_float32_does_not_hold_are_rounded_and_noticed():
    values = np.array([[[3], [2**24 + 1]]], np.uint32)
    kept = keep(values)
    assert kept.dtype == np.float32 and kept[0, 1, 0] == 2**24
    assert missing(kept, 2**24 + 1)[0, :, 0].tolist() == [False, True]
    assert rounded(values, kept, None) and not rounded(values, kept, nodata=2**24 + 1)
    assert not rounded(values[:, :1], keep(values[:, :1]), None)


def test_bands_are_taken_by_number_or_name():
    image = Raw(np.arange(4, dtype=np.uint16).reshape(1, 1, 4), names=("B2", "B3", "B4", "B8"))
    assert select(image, []) is image
    found = select(image, ["B8", "1"])
    assert found.values.tolist() == [[[3, 0]]] and found.names == ("B8", "B2")
    for lost in ("B5", "5", "0"):
        with pytest.raises(BadImage, match=f"without band {lost}"):
            select(image, [lost])
    assert wanted(["B4", "B3", "B2"], ["B3", "B2"], ["2", "1"]) == ["B3", "B2"]
    assert wanted(["B4", "B3"], ["B3", "B2"], ["2", "1"]) == wanted([], ["B3"], ["2", "1"]) == ["2", "1"]


def test_too_many_bytes_are_refused_before_they_are_copied():
    with pytest.raises(BadImage, match="over the cap"):
        keep(np.broadcast_to(np.uint16(1), (20_000, 20_000, 13)))


def test_pictures():
    values = np.stack([np.full((2, 2), value, np.uint16) for value in (100, 4100, 100, 100)], axis=2)
    assert to_rgb(array(values), scale(bands=4))[0, 0].tolist() == [0, 255, 0]
    assert to_gray(array(values), 1, scale(bands=4))[0, 0] == 64


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "uint8"},
        {"low": [5.0, 5000.0]},
        {"fill": [0.0]},
        {"low": []},
        {"more": 1},
        {"nodata": "no"},
        {"high": 3},
    ],
)
def test_a_scale_of_a_file_is_checked(change: dict):
    from dataclasses import asdict

    content = asdict(scale(nodata=-1.0))
    assert Scale.of(content) == scale(nodata=-1.0)
    with pytest.raises(ValueError, match="scale"):
        Scale.of(content | change)


def test_raw_values_keep_what_marks_no_data():
    assert Raw(np.zeros((1, 1, 1))).nodata is None
