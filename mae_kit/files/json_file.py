"""JSON files of anybody, read through one doorway: bounded in size and depth, or one line that says why not."""

import json
import re
from pathlib import Path
from typing import Any

from mae_kit.errors import UserError
from mae_kit.files.plain_types import mismatch

MAX_BYTES = 100_000_000  # as many as safetensors allows for a header
MAX_DEPTH = 50
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)  # a string may lack its end

_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(file: Path, key: str, fix: str, kind: Any = dict[str, Any]) -> Any:
    """Read a file that holds one JSON value, by default an object.

    Args:
        file: It exists.
        key: Of the error.
        fix: What the user can do then.
        kind: Its type, a TypedDict for one.

    Raises:
        UserError: It is not JSON, not of this type, larger than `MAX_BYTES` or nested deeper than `MAX_DEPTH`.
    """
    try:
        content = parse_json(file.read_bytes() if file.stat().st_size <= MAX_BYTES else b" " * (MAX_BYTES + 1))
    except ValueError as error:
        raise UserError(key, f"{file} is not JSON that mae_kit reads ({error})", fix) from error
    if fault := mismatch(content, kind):
        raise UserError(key, f"{file} is malformed: {fault}", fix)
    return content


def parse_json(text: bytes) -> Any:
    """Plain values from JSON of bounded size and depth, whose texts other files can hold.

    Raises:
        ValueError: It is larger or deeper, or not JSON in UTF-8.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    found = json.loads(text.decode("utf-8-sig"))
    if _HALF_CHARACTER.search(text):
        json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return found
