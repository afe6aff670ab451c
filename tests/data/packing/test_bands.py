import numpy as np
import pytest
from support.errors import raises

from mae_kit.data.packing.bands import BandSums, band_statistics, faults, find_scale


def statistics(*shards: list[np.ndarray], nodata: float | None = None):
    records = []
    for images in shards:
        sums = BandSums(images[0].shape[2], len(images))
        for image in images:
            sums.add(image, nodata)
        records.append(sums.record())
    return band_statistics(records)


def images(kind: str, count: int = 30) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    spread = np.array([100, 20, 300])
    return [(generator.normal(0, 1, (20, 30, 3)) * spread + 1000).astype(kind) for _ in range(count)]


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
def test_they_are_those_of_all_values(kind: str):
    all_of_them = images(kind)
    found, spreads = statistics(all_of_them[:7], all_of_them[7:])
    values = np.stack(all_of_them).reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.std, values.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal([found.smallest, found.largest], [values.min(axis=0), values.max(axis=0)])
    for low, high, band in zip(found.percentile_low, found.percentile_high, values.T, strict=True):
        np.testing.assert_allclose([low, high], np.percentile(band, [0.1, 99.9]), atol=0.15 * band.std())
    mean, std = spreads[0].moments(found.smallest[0], found.largest[0])
    scaled = (values[:, 0] - found.smallest[0]) / (found.largest[0] - found.smallest[0])
    np.testing.assert_allclose([mean, std], [scaled.mean(), scaled.std()], atol=2e-3)


@pytest.mark.parametrize("nodata", [-9999, None])
def test_what_has_no_data_does_not_count(nodata: float | None):
    sound = images("float32", 4)
    holed = [image.copy() for image in sound]
    for image in holed:
        image[:2, :, 1] = np.nan if nodata is None else nodata
    found, _ = statistics(holed, nodata=nodata)
    values = np.stack([image[2:] for image in sound]).reshape(-1, 3).astype(float)
    np.testing.assert_allclose([found.mean[1], found.std[1]], [values[:, 1].mean(), values[:, 1].std()], rtol=1e-6)
    assert found.nodata == pytest.approx([0, 0.1, 0]) and found.smallest[1] > 0


def test_a_marker_does_not_decide_on_the_percentiles():
    """3 pixels of 6,000, at the largest value of all."""
    marked = images("uint16", 10)
    for image in marked[::4]:
        image[0, 0] = 65535
    found, _ = statistics(marked)
    assert found.largest[0] == 65535 and found.percentile_high[1] < 1100


def test_scales():
    found, _ = statistics(images("uint16"))
    kept = {"kind": "uint16", "nodata": None}
    scale = find_scale(found, "percentile", None, **kept)
    assert (scale.low, scale.high, scale.fill) == (found.percentile_low, found.percentile_high, found.mean)
    assert find_scale(found, "range", None, **kept).high == found.largest
    assert find_scale(found, "given", (0, 4095), **kept).high == [4095] * 3
    with raises("shard.scale.none"):
        find_scale(found, "none", None, **kept)
    fractions, _ = statistics([image / 10_000 for image in images("float32", 2)])
    assert find_scale(fractions, "none", None, kind="float32", nodata=None).high == [1] * 3


def test_a_band_of_few_values_is_scaled_by_all_of_them():
    image = np.zeros((100, 100, 2), np.uint16)
    image[5, 5, 0] = 9
    scale = find_scale(statistics([image])[0], "percentile", None, kind="uint16", nodata=None)
    assert (scale.low, scale.high) == ([0, 0], [9, 1])


def test_bands_without_use_are_told():
    image = np.zeros((10, 10, 4), np.uint16)
    image[..., 0] = 7
    image[..., 1] = np.arange(10)
    image[..., 2] = 500
    image[0, :, 3] = 65535
    image[1:, :, 3] = 3
    found, _ = statistics([image], nodata=500)
    assert [line.split()[1] for line in faults(found)] == ["1", "3", "4"]
