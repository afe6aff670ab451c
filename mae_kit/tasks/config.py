"""The parts of a fine-tuning recipe that say what is learned from."""

from dataclasses import dataclass

from mae_kit.errors import UserError
from mae_kit.training.ranges import (
    AREAS,
    COLORS,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_FRACTION,
    Range,
    check_ranges,
)


@dataclass(frozen=True)
class FinetuneData:
    """Labeled images, crops and normalization.

    Attributes:
        path: What `mae-kit shard` made, with labels; a pattern such as "DIR/train-*.tar"; a URL of shards (s3://,
            gs://, https://) with their index; or a plain folder of labeled images (one subfolder per class; or with
            masks or boxes), which is packed once.
        batch_size: Images per optimizer step, over all devices and micro-batches; reduced if there are fewer images.
        image_size: Side in pixels, or height and width; position embeddings are interpolated if it differs from the
            encoder's.
        val: Labeled shards, or a plain folder, to score on; by default the validation split of `path`.
        exclude: File that lists training samples to leave out: the duplicates.jsonl of `mae-kit dedup`.
        labels_per_class: Train on this many images of each class, drawn at random by the seed; by default all.
        labels_fraction: Train on this fraction of the labeled images, drawn at random by the seed, for any task; a
            smaller fraction is part of a larger one. By default all.
        crop_scale: Smallest and largest fraction of an image's area that a training crop covers.
        crop_pct: Fraction of the shorter side that the center crop keeps in scoring (MAE: 224/256).
        mean: Mean of each channel, in 0..1; by default the encoder's, or from scratch that of the images (stats.json).
        std: Standard deviation of each channel, in 0..1.
        mix_shards: Shuffle samples among this many shards at a time, grouped differently each epoch; 0 = among all. For
            remote shards larger than the cache, hard disks and network file systems.
    """

    path: str
    batch_size: int
    image_size: int | list[int]
    val: str | None = None
    exclude: str | None = None
    labels_per_class: int | None = None
    labels_fraction: float | None = None
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_pct: float = 0.875
    mean: list[float] | None = None
    std: list[float] | None = None
    mix_shards: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "labels_per_class": POSITIVE,
            "labels_fraction": POSITIVE_FRACTION,
            "crop_pct": POSITIVE_FRACTION,
            "crop_scale": AREAS,
        }
        check_ranges(vars(self), "data", **ranges, mean=COLORS, std=COLORS)
        if self.labels_per_class and self.labels_fraction:
            what = "data.labels_per_class and data.labels_fraction both choose the labels to train on"
            raise UserError("data.labels_fraction.both", what, "give one of the two")


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of a batch, on the device.

    Attributes:
        flip: Flip half of the images horizontally.
        randaugment: Magnitude of RandAugment (MAE: 9); by default it is off.
        color_jitter: Strength of brightness, contrast and saturation jitter.
        erasing: Probability of random erasing, which replaces a rectangle of the image with noise.
        mixup: Alpha of mixup; 0 turns it off.
        cutmix: Alpha of CutMix; 0 turns it off.
        smoothing: Label smoothing.
    """

    flip: bool = True
    randaugment: float | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        strengths = dict.fromkeys(("mixup", "cutmix", "color_jitter"), NOT_NEGATIVE)
        ranges = {"erasing": FRACTION, "smoothing": FRACTION, "randaugment": Range(0, 10)} | strengths
        check_ranges(vars(self), "augmentation", **ranges)

    def check_mixing(self, images: int) -> None:
        """Refuse to mix where so many at a time are one.

        Raises:
            UserError: They are, and are to be mixed.
        """
        if images == 1 and (self.mixup or self.cutmix):
            fix = "give a larger batch or fewer micro-batches, or --augmentation.mixup 0 --augmentation.cutmix 0"
            raise UserError(
                "augmentation.mixup.one_image", "mixup and CutMix need micro-batches of two images or more", fix
            )
