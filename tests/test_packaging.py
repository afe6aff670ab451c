"""What `pip install .` brings along."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_every_recipe(tmp_path: Path):
    for name in ("mae_kit", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    words = ["wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", "out"]
    subprocess.run([sys.executable, "-m", "pip", *words], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "out").glob("mae_kit-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    data = f"{wheel.name.removesuffix('-py3-none-any.whl')}.data/data/share/mae_kit"
    assert held >= {f"{data}/{path.relative_to(ROOT)}" for path in (ROOT / "recipes").glob("*/*.yaml")}
    assert held >= {str(path.relative_to(ROOT)) for path in (ROOT / "mae_kit").rglob("*.py")}
    assert not [name for name in held if name.startswith(("tests", "notebooks"))]
