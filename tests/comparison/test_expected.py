import pytest

from mae_kit.comparison.expected import expectation


@pytest.mark.parametrize(
    ("objective", "images", "labels", "said"),
    [
        (
            "MAE",
            500_000,
            None,
            "Other images will differ; measured were 46.5% against 36.4% from scratch after 379",
        ),
        ("MAE", 130_000, 50, "measured were 39.8%"),
        ("MAE", 50_000, None, "50,000 images are too few to expect a gain: measured were 33.1%"),
        ("MAE", 1_000, None, "1,000 images are too few"),
        ("SimMIM", 200_000, None, "a gain after 379,000"),
        ("MAE", 500_000, 10, "not known: MAE with 10 labels per class was not measured"),
        ("Blurred", 500_000, None, "not known: Blurred was not measured"),
    ],
)
def test_only_what_was_measured_is_expected(objective: str, images: int, labels: int | None, said: str):
    assert said in expectation(objective, images, labels)
