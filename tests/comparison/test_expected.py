import pytest

from mae_kit.comparison import expected
from mae_kit.comparison.expected import expectation


@pytest.mark.parametrize(
    ("objective", "images", "labels", "said"),
    [
        ("MAE", 500_000, None, "Your images will differ; we measured 46.5% top-1 against 36.4% from scratch"),
        ("MAE", 130_000, 50, "we measured 39.8%"),
        ("MAE", 50_000, None, "50,000 images, repetitions counted, are too few to expect a gain: we measured 33.1%"),
        ("MAE", 1_000, None, "1,000 images, repetitions counted, are too few"),
        ("SimMIM", 200_000, None, "the least that gained was 379,000"),
        ("MAE", 500_000, 10, "have not measured what MAE with 10 labels per class gains"),
        ("Blurred", 500_000, None, "have not measured what Blurred gains"),
    ],
)
def test_only_what_was_measured_is_expected(objective: str, images: int, labels: int | None, said: str):
    assert said in expectation(objective, images, 9469, labels)


MEASURED = [
    {"objective": "MAE", "recipe": "quick", "data": "photos", "images": 9469, "labels_per_class": 10}
    | {
        "scratch": 30.0,
        "pretrained": {40_000: 33.0, 300_000: 45.0},
        "gain": {40_000: [-1.0, 7.0], 300_000: [9.0, 21.0]},
    },
    {"objective": "MAE", "recipe": "quick", "data": "photos", "images": 1000, "labels_per_class": None}
    | {"scratch": 50.0, "pretrained": {40_000: 51.0}},
]


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (20_000, 10, "we measured 33.0% top-1 against 30.0% from scratch (95% interval of the gain -1.0 to +7.0)"),
        (20_000, 10, "the least that gained was 300,000"),
        (
            800,
            None,
            "after training on 40,000 images, repetitions counted, with quick on 1,000 photos, with all labels",
        ),
    ],
)
def test_the_dataset_closest_in_size_counts(
    images: int, labels: int | None, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(expected, "_table", lambda: MEASURED)
    assert said in expected.expectation("MAE", 50_000, images, labels)
