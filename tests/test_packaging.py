"""The wheel and the sdist: what they hold, and that what they install works from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import mae_kit

ROOT = Path(__file__).parents[1]
SHORT_DEMO = """
import mae_kit.commands.demo as room
from mae_kit.cli.main import main

room.DIGITS = room.DIGITS._replace(pretrain_images=256, few_images=64, all_images=64)
raise SystemExit(main(["demo", "--seeds", "1"]))
"""
LIST_FILES = """
import mae_kit
from pathlib import Path

folder = Path(mae_kit.__file__).parent
print(sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py")))
"""
SOURCES = ("mae_kit", "recipes", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")


def run(*words: str | Path, folder: Path) -> str:
    """Output of a program that sees nothing of this checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("built")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", folder=folder)
    return folder / "dist"


def install(archive: Path, folder: Path) -> Path:
    """Install into an environment that borrows the dependencies of this one; return the folder of its programs."""
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    borrowed = Path(sysconfig.get_path("purelib", "venv", paths)) / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib"))
    programs = Path(sysconfig.get_path("scripts", "venv", paths))
    words = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", archive]
    run(sys.executable, "-m", "pip", "--python", programs / "python", "install", *words, folder=folder)
    return programs


@pytest.mark.long
def test_archives_hold_the_package_and_every_recipe(built: Path):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    packed = set(zipfile.ZipFile(wheel).namelist())
    data = f"mae_kit-{mae_kit.__version__}.data/data/share/mae_kit"
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mae_kit").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").glob("*/*")}
    assert packed >= package | {f"{data}/{name}" for name in recipes}
    assert not [name for name in packed if name.startswith(("tests", "notebooks", "docs"))]
    with tarfile.open(sdist) as tar:
        assert set(tar.getnames()) >= {f"mae_kit-{mae_kit.__version__}/{name}" for name in package | recipes}


@pytest.fixture(scope="module")
def programs(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the installed wheel."""
    (wheel,) = built.glob("*.whl")
    return install(wheel, tmp_path_factory.mktemp("environment"))


@pytest.mark.long
def test_an_installed_wheel_runs_the_demo_from_an_empty_folder(programs: Path, tmp_path: Path):
    assert run(programs / "mae-kit", "--version", folder=tmp_path).split()[-1] == mae_kit.__version__
    where = run(programs / "python", "-c", "import mae_kit; print(mae_kit.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(programs.parent)
    run(programs / "python", "-c", SHORT_DEMO, folder=tmp_path)
    assert (tmp_path / "demo" / "report.html").is_file()


@pytest.mark.long
def test_an_installed_wheel_is_a_library(programs: Path, tmp_path: Path):
    """As test_api.py uses the checkout."""
    for name in ("support", "conftest.py", "test_api.py"):
        copy = shutil.copytree if (ROOT / "tests" / name).is_dir() else shutil.copy
        copy(ROOT / "tests" / name, tmp_path / name)
    run(programs / "python", "-m", "pytest", "-q", "-m", "not slow and not long", "test_api.py", folder=tmp_path)


@pytest.mark.long
def test_an_installed_sdist_is_the_same(built: Path, programs: Path, tmp_path: Path):
    (sdist,) = built.glob("*.tar.gz")
    others = install(sdist, tmp_path / "environment")
    ours, theirs = (run(at / "python", "-c", LIST_FILES, folder=tmp_path) for at in (programs, others))
    assert ours == theirs
