"""README and docs/: links resolve, the tree is the one there is, commands parse, code uses public names."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from support.messages import ROOT

import mae_kit as mk
from mae_kit.cli.main import main, read
from mae_kit.cli.words import take

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data" / "README.md"])
EXAMPLES = {"RECIPE": "mae_vit_tiny_64px", "NAME": "mae_vit_tiny_64px"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands() -> list[str]:
    """Command lines of all pages: those in blocks, and those in the text that name a verb and its arguments."""
    lines = set()
    for page in PAGES:
        for body in blocks(page, ""):
            lines |= {
                line.partition(" # ")[0].strip()
                for line in body.replace("\\\n", "").splitlines()
                if "mae-kit " in line or "-m -- mae_kit" in line
            }
        prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
        lines |= {" ".join(code.split()) for code in re.findall(r"`(mae-kit [a-z]+ [^`]+)`", prose)}
    return sorted(lines)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 12 * 1024


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_tree_is_the_one_there_is():
    (tree,) = [body for body in blocks(ROOT / "README.md", "") if body.startswith("mae_kit/")]
    shown = re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)
    assert sorted(shown) == sorted(path.parent.name for path in ROOT.glob("mae_kit/*/__init__.py"))


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str, capsys: pytest.CaptureFixture[str]):
    """Recipes, options and values exist; nothing is trained."""
    command, *words = shlex.split(re.split(r"mae-kit |-m -- mae_kit ", line, maxsplit=1)[1].partition(" > ")[0])
    _, words = take([EXAMPLES.get(word, word) for word in words], "devices")
    if any(word.endswith(".help") for word in words):
        assert main([command, *words]) == 0 and capsys.readouterr().out
    elif not {"--resume", "--objective.tokenizer"} & set(words):  # these read a run
        read(command, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_uses_public_names(page: Path):
    for body in blocks(page, "python"):
        used = [
            node.attr
            for node in ast.walk(ast.parse(body))
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "mk"
        ]
        assert set(used) <= set(mk.__all__)
