"""Names of splits: which of them to train on, and which one is held out."""

import re
from collections.abc import Sequence

TRAIN = ("train", "training")
# Held-out splits in the order in which one of them is taken as `val`; the others are left out, so that none are mixed.
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
_YEAR = re.compile(r"[-_]?(19|20)\d\d$")
_BETWEEN = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])")


def split_of(name: str) -> str:
    """A name in lower case, without the year of COCO's `train2017`; a split if it is in TRAIN or HELD_OUT."""
    return _YEAR.sub("", name.lower())


def split_word(shard: str) -> str:
    """The split that the words of a shard's name tell, `train` where none does."""
    words = set(re.split(r"[^a-z]+", shard.lower()))
    return next((name for name in HELD_OUT if name in words), "train")


def choose_splits(names: Sequence[str]) -> dict[str, bool] | None:
    """Which splits to take, and whether each is held out; None unless all names are splits and one is `train`."""
    told = _told(names)
    train, held_out, others = kinds_of_splits(names)
    if not train or others:
        return None
    first = min((told[name] for name in held_out), key=HELD_OUT.index, default="")
    return {**dict.fromkeys(train, False), **{name: True for name in held_out if told[name] == first}}


def kinds_of_splits(names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Names of training splits, of held-out ones, and others; each once."""
    kinds: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name, split in _told(names).items():
        kinds[0 if split in TRAIN else 1 if split in HELD_OUT else 2].append(name)
    return kinds


def within(name: str) -> tuple[str, str]:
    """The one word of a name that is a split, empty where there is none, and the rest: `train_images`, `trainA`."""
    words = _BETWEEN.split(name)
    found = [word for word in words if split_of(word) in (*TRAIN, *HELD_OUT)]
    return (split_of(found[0]), "_".join(word for word in words if word != found[0])) if len(found) == 1 else ("", name)


def _told(names: Sequence[str]) -> dict[str, str]:
    """The split that each name is, or contains as the one word that differs: `train_images`, `val_images`."""
    found = {name: within(name) for name in names}
    alike = len({rest for _, rest in found.values()}) == 1 and len({split for split, _ in found.values()} - {""}) > 1
    return {name: split if alike else split_of(name) for name, (split, _) in found.items()}
