"""Every message that a user's mistake can get, read from the source; as a program, it records them.

python tests/support/messages.py
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests" / "messages.txt"


class Message(NamedTuple):
    """One place that raises `UserError`: its key, and templates of problem and fix with `{expression}` for values."""

    key: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key} | {self.problem} | {self.fix}"


@cache
def messages() -> list[Message]:
    """Collect all messages, sorted by key."""
    files = sorted((ROOT / "mae_kit").rglob("*.py"))
    return sorted(message for file in files for message in _of(ast.parse(file.read_text(encoding="utf-8"))))


def record() -> str:
    """Contents of tests/messages.txt, one message a line."""
    return "".join(f"{message}\n" for message in messages())


def _of(tree: ast.Module) -> Iterator[Message]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "UserError":
            key, *rest = [_template(part) for part in node.args]
            yield Message(key, rest[0], rest[-1])


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    return f"{{{ast.unparse(node)}}}"


if __name__ == "__main__":
    RECORD.write_text(record(), encoding="utf-8")
