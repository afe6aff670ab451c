"""Two spellings of the same tensors, theirs and ours, from one table that is read both ways."""

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
PARTS = "qkv"
_WILD = re.compile(r"#\+1|#|\*")
_NOTHING = r"(?!)"


class Names:
    """A table of names.

    In an entry `#` is a number, `#+1` on our side that number plus one, and `*` weight or bias; they stand in the same
    order on both sides. `|q`, `|k` and `|v` on our side are the thirds of a fused tensor, along its first axis.

    Args:
        table: Theirs to ours; of two entries that fit the first counts.
        left_out: Pattern of their names that have no counterpart here, such as mask tokens.
    """

    def __init__(self, table: Mapping[str, str], left_out: str = _NOTHING):
        self.table, self._left_out = dict(table), re.compile(left_out)
        self._theirs = [(_pattern(theirs), ours) for theirs, ours in self.table.items()]

    def ours(self, tensors: Tensors) -> tuple[dict[str, Tensor], list[str], list[str]]:
        """Rename and fuse.

        Returns:
            The tensors under our names, the names that are left out, and those that the table does not know.
        """
        renamed, left_out, unknown = {}, [], []
        for name, tensor in tensors.items():
            if ours := _first_translation(name, self._theirs):
                renamed[ours] = tensor
            else:
                (left_out if self._left_out.fullmatch(name) else unknown).append(name)
        return _fused(renamed), left_out, unknown

    def theirs(self, tensors: Tensors) -> dict[str, Tensor]:
        """Split and rename; every tensor of ours has a place in a table that is written with."""
        entries = [(_pattern(ours), theirs) for theirs, ours in self.table.items()]
        renamed = {}
        for name, tensor in _split(tensors, self.table.values()).items():
            theirs = _first_translation(name, entries)
            if theirs is None:
                raise ValueError(f"no name for {name} in their layout")
            renamed[theirs] = tensor
        return renamed


def prefixed(table: Mapping[str, str], theirs: str, ours: str = "") -> dict[str, str]:
    """The same table for tensors that lie deeper in a module."""
    return {theirs + key: ours + value for key, value in table.items()}


def _pattern(entry: str) -> re.Pattern[str]:
    kinds = {"#": r"(\d+)", "*": r"(weight|bias)"}
    return re.compile("".join(kinds.get(part, re.escape(part)) for part in re.split(r"(#|\*)", entry)))


def _first_translation(name: str, entries: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in entries:
        if found := pattern.fullmatch(name):
            values = iter(found.groups())
            return _WILD.sub(lambda wild: _filled(wild[0], next(values)), template)  # noqa: B023  # used at once
    return None


def _filled(wild: str, value: str) -> str:
    return str(int(value) + 1) if wild == "#+1" else value


def _fused(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the thirds together; one whose sisters are missing keeps its name, which no model knows."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name in [name for name in tensors if "|" in name]:
        whole, _, part = name.partition("|")
        parts[whole][part] = tensors.pop(name)
    for whole, thirds in parts.items():
        if set(thirds) == set(PARTS):
            tensors[whole] = torch.cat([thirds[part] for part in PARTS])
        else:
            tensors |= {f"{whole}|{part}": third for part, third in thirds.items()}
    return tensors


def _split(tensors: Tensors, ours: object) -> dict[str, Tensor]:
    fused = [_pattern(entry.partition("|")[0]) for entry in ours if "|" in entry]  # type: ignore[attr-defined]
    split = {}
    for name, tensor in tensors.items():
        if any(pattern.fullmatch(name) for pattern in fused):
            split |= {f"{name}|{part}": third for part, third in zip(PARTS, tensor.chunk(3), strict=True)}
        else:
            split[name] = tensor
    return split
