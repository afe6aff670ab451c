"""The tests mirror the modules: each has a test file of its name, or a word in the file that tests it."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "mae_kit"


def test_each_module_is_tested_where_one_looks_for_it():
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.stem != "__init__"}
    texts = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    words = [word for text in texts for word in re.findall(r"^# Also tests .*(?:\n# .*)*", text, re.MULTILINE)]
    also = {Path(name) for word in words for name in re.findall(r"[\w/]+\.py", word)}
    assert also <= modules, "they have moved"
    assert [path for path in sorted(modules - also) if not (TESTS / _test_of(path)).is_file()] == []


def _test_of(module: Path) -> Path:
    return module.with_name(f"test_{module.stem.rstrip('_')}.py")
