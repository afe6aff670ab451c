"""Names of splits: which of them to train on, and which one is held out."""

import re
from collections.abc import Sequence

TRAIN = ("train", "training")
# Held-out splits in the order in which one of them is taken as `val`; the others are left out, so that none are mixed.
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
_YEAR = re.compile(r"[-_]?(19|20)\d\d$")


def split_of(name: str) -> str:
    """A name in lower case, without the year of COCO's `train2017`; a split if it is in TRAIN or HELD_OUT."""
    return _YEAR.sub("", name.lower())


def split_word(shard: str) -> str:
    """The split that the words of a shard's name tell, `train` where none does."""
    words = set(re.split(r"[^a-z]+", shard.lower()))
    return next((name for name in HELD_OUT if name in words), "train")


def choose_splits(names: Sequence[str]) -> dict[str, bool] | None:
    """Which splits to take, and whether each is held out; None unless all names are splits and one is `train`."""
    train, held_out, others = kinds_of_splits(names)
    if not train or others:
        return None
    first = min(map(split_of, held_out), key=HELD_OUT.index, default="")
    return {**dict.fromkeys(train, False), **{name: True for name in held_out if split_of(name) == first}}


def kinds_of_splits(names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Names of training splits, of held-out ones, and others; each once."""
    kinds: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in dict.fromkeys(names):
        kinds[0 if split_of(name) in TRAIN else 1 if split_of(name) in HELD_OUT else 2].append(name)
    return kinds
