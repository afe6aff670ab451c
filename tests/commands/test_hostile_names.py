"""Every command that shows names of classes, images or files, with names that somebody has chosen to do harm."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.processes import Programs

CLASS = '\x1b]0;owned\x07[b]y[link=x] <img src=x onerror=a> =1+1 |$x_1$` "\u202e'
FORBIDDEN = {chr(code) for code in (*range(32), *range(127, 160), 0x202E)} - {"\n", "\t"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one of them hostile, like one image of it that does not decode."""
    folder, dice = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in (CLASS, "dog"):
        (folder / name).mkdir()
        for number in range(20):
            pixels = dice.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number} {name}.png")
    (folder / CLASS / f"{CLASS}.jpg").write_bytes(b"\xff\xd8\xff damaged")
    return folder


class Tags(HTMLParser):
    """Fails at a tag or an attribute that came from a name."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script" and ("src", "x") not in attrs and not any(name.startswith("on") for name, _ in attrs)


def check_files(folder: Path) -> set[str]:
    """Names of the pages and cards, all of them harmless."""
    pages, cards = sorted(folder.rglob("*.html")), sorted(folder.rglob("README.md"))
    for file in (*pages, *cards):
        text = file.read_text(encoding="utf-8")
        assert not FORBIDDEN & set(text), file
        if file.suffix == ".html":
            Tags().feed(text)
        else:
            assert not re.search(r"(?<!\\)<img|(?<!\\)\|\$", text), text
    return {file.name for file in (*pages, *cards)}


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_no_command_obeys_a_name(programs: Programs, images: Path, recipes: Path, trained: Path, tmp_path: Path):
    shards, run, found = tmp_path / "shards", tmp_path / "run", f"{images / CLASS}"
    pretrained = shutil.copytree(trained, tmp_path / "pretrained")
    quick = ["--optimization.epochs", "1", "--optimization.warmup_epochs", "0", "--encoder", pretrained]
    commands = [
        ["shard", images, shards, "--val-fraction", "0.5", "--workers", "1"],
        ["index", shards, "--workers", "1"],
        ["dedup", shards, "--out", tmp_path / "dedup.jsonl", "--workers", "1"],
        ["finetune", "--config", recipes / "finetune.yaml", "--data", shards, "--run", run, *quick, "--model", "null"],
        ["predict", run, found],
        ["evaluate", pretrained, "--data", shards, "--methods", "knn", "--out", tmp_path / "scores", "--workers", "1"],
        ["evaluate", run, "--data", shards],
        ["report", run],
        ["inspect", pretrained, "--images", found, "--show", "reconstructions"],
        ["export", run, "--hub-dir", tmp_path / "export"],
    ]
    for words in commands:
        ended = programs.run(*words)
        assert ended.code == 0, (words, ended.out, ended.err)
        assert not FORBIDDEN & set(ended.out + ended.err), words
        shown = programs.run(*words, "--json") if words[0] in ("predict", "report") else None
        assert shown is None or (json.loads(shown.out) and not FORBIDDEN & set(shown.out))
    assert check_files(tmp_path) >= {"report.html", "README.md"}
