"""The file next to shards that `mae-kit shard` writes of them: statistics, and the scale of more than 8 bits."""

from pathlib import Path
from typing import Annotated, Any, TypedDict

from mae_kit.data.remote.filesystem import NotThere
from mae_kit.data.remote.store import Store, fetch_beside
from mae_kit.data.scale import Scale
from mae_kit.errors import UserError
from mae_kit.files.json_file import read_json

FILE = "stats.json"
_MEND = "remove it, or pack the images again with `mae-kit shard`"


class _Scale(TypedDict, total=False):
    scale: dict[str, Any]


class _Stats(_Scale):
    mean: list[Annotated[float, (0, 1)]]
    std: list[Annotated[float, (0, 1)]]


def read_stats(folder: Path, store: Store | None) -> dict[str, Any] | None:
    """Read it; None where nobody has written it.

    Raises:
        UserError: `stats.damaged`, or the server of remote shards cannot be reached.
    """
    try:
        file = fetch_beside(store.url, FILE, store.cache) if store else folder / FILE
    except NotThere:
        return None
    return read_json(file, "stats.damaged", _MEND, _Stats) if file.is_file() else None


def packed_scale(folder: Path, store: Store | None) -> Scale | None:
    """How values become model input where images of more than 8 bits were packed; else None.

    Raises:
        UserError: As `read_stats`.
    """
    content = (read_stats(folder, store) or {}).get("scale")
    try:
        return Scale.of(content) if content else None
    except ValueError as error:
        raise UserError("stats.damaged.scale", f"{FILE} of {folder} is damaged: {error}", _MEND) from None
