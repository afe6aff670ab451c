"""Size and shape of the package, counted from its source: the figures of recipes/LOG.md on the house.

python tests/benchmarks/house.py [FOLDER]      FOLDER: another checkout, to compare with
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
PACKAGE = "mae_kit"


def count(root: Path) -> dict[str, object]:
    """Count what a checkout holds.

    Args:
        root: Its folder.

    Returns:
        `rooms` (modules and packages directly below `mae_kit`, and the package itself), `arrows` (pairs of rooms of
        which the first imports the second, lazily or not), `files`, `lines`, `words` (of README.md), and lengths of
        functions in lines: median, 95th percentile, maximum, and which is the longest, with and without docstrings.
    """
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((root / PACKAGE).rglob("*.py"))}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    functions = [
        (f"{path.relative_to(root)}:{node.name}", node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, FunctionNode)
    ]
    return {
        "rooms": len({_room(path.relative_to(root).with_suffix("").parts) for path in sources}),
        "arrows": len({arrow for path, tree in trees.items() for arrow in _arrows(path.relative_to(root), tree)}),
        "files": len(sources),
        "lines": sum(len(source.splitlines()) for source in sources.values()),
        "words": len((root / "README.md").read_text(encoding="utf-8").split()),
        "functions": _lengths([(name, _length(node)) for name, node in functions]),
        "without docstrings": _lengths([(name, _length(node) - _docstring(node)) for name, node in functions]),
    }


def _room(parts: tuple[str, ...]) -> str:
    """Name of the module or package directly below the package; or of the package itself."""
    return parts[1] if len(parts) > 1 and parts[1] != "__init__" else PACKAGE


def _arrows(path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    start = _room(path.with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            module = str(node.module)
            names = [f"{module}.{alias.name}" for alias in node.names] if module == PACKAGE else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith(PACKAGE)]
        else:
            continue
        for name in names:
            end = _room(tuple(name.split(".")))
            if start != end:
                yield start, end


def _length(node: FunctionNode) -> int:
    return int(node.end_lineno or 0) - node.lineno + 1


def _docstring(node: FunctionNode) -> int:
    if ast.get_docstring(node) is None:
        return 0
    return int(node.body[0].end_lineno or 0) - node.body[0].lineno + 1


def _lengths(named: list[tuple[str, int]]) -> dict[str, object]:
    lengths = [length for _, length in named]
    return {
        "count": len(named),
        "median": int(np.median(lengths)),
        "p95": int(np.percentile(lengths, 95)),
        "max": max(lengths),
        "longest": max(named, key=lambda pair: pair[1])[0],
    }


if __name__ == "__main__":
    print(json.dumps(count(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2]), indent=2))
