"""Names of shards as people write them: a folder, one tar, `train-*.tar`, `train-{000..031}.tar`, several with `::`."""

import glob
import os
import re
from fnmatch import translate
from typing import NamedTuple

from mae_kit.data.remote.filesystem import is_url
from mae_kit.errors import UserError

TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|lz4))?|tgz)$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000


class Pattern(NamedTuple):
    """Some shards of one folder.

    Attributes:
        base: The folder, or its URL.
        names: Shell patterns of the shards' names.
    """

    base: str
    names: tuple[str, ...]

    def select(self, names: list[str]) -> list[str]:
        """Those of some names that are meant, in their order."""
        if self.names == ("*",):
            return names
        wanted = re.compile("|".join(map(translate, self.names)))
        return [name for name in names if wanted.match(name)]

    def __str__(self) -> str:
        return ", ".join(self.names[:3]) + (", ..." if len(self.names) > 3 else "")


def parse_pattern(place: str, folder: bool) -> Pattern:
    """Split a place into the folder and the names of the shards.

    Args:
        place: A path or URL.
        folder: Whether it is known to be a folder, so that its name is no pattern.

    Raises:
        UserError: `shards.pattern`: shards of several folders, or braces that expand to more than a million names.
    """
    if folder:
        return Pattern(place, ("*",))
    if os.path.isfile(place):
        return Pattern(os.path.dirname(place) or ".", (glob.escape(os.path.basename(place)),))
    found = [os.path.split(each) for part in place.split("::" if "::" in place else "\0") for each in expand(part)]
    bases = sorted({base or "." for base, _ in found})
    if len(bases) > 1:
        fix = "put the shards, or links to them, into one folder and give that"
        raise UserError("shards.pattern.folders", f"{place} names shards of {len(bases)} folders", fix)
    return Pattern(bases[0], tuple(name for _, name in found))


def expand(text: str) -> list[str]:
    """Expand braces as a shell does: {a,b} and {000..031}, which keeps leading zeros."""
    braces = _BRACES.search(text)
    if braces is None:
        return [text]
    inside, numbers = braces[1], _RANGE.fullmatch(braces[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        if abs(last - first) >= _MOST:
            what = f"{text} names {abs(last - first) + 1:,} shards"
            raise UserError("shards.pattern.range", what, "give a * instead")
        step = 1 if first <= last else -1
        words = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + step, step)]
    else:
        words = inside.split(",")
    rest = expand(text[braces.end() :])
    return [f"{text[: braces.start()]}{word}{tail}" for word in words for tail in rest]


def must_be_there(place: str) -> None:
    """Raises UserError where a place is no URL or pattern, and there is no such path."""
    if not (is_url(place) or has_pattern(place) or os.path.exists(place)):
        fix = "give a folder of images, a folder of shards, a pattern such as 'DIR/train-*.tar' or a URL"
        raise UserError("data.path.missing", f"{place} does not exist", fix)


def has_pattern(place: str) -> bool:
    return glob.has_magic(place) or _BRACES.search(place) is not None or "::" in place
