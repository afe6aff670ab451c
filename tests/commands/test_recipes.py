"""`mae-kit recipes`: what is listed, what is printed, and which names are refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.errors import raises

from mae_kit.cli import main as cli
from mae_kit.commands.recipes import facts, recipes
from mae_kit.files.recipe_file import FOLDER


def test_every_recipe_is_listed_with_its_facts():
    listed = {row["name"]: row for row in recipes()["recipes"]}
    assert set(listed) == {f"{file.parent.name}/{file.stem}" for file in FOLDER.glob("*/*.yaml")}
    assert listed["pretrain/mae_vit_l16"] == {
        "name": "pretrain/mae_vit_l16",
        "size": "ViT-L/16, 303M parameters, 224 px",
        "machine": "64 V100s",
        "time": "42 hours (PRETRAIN.md); not run by us",
        "expected": "fine-tuned 85.5% top-1 on ImageNet-1k after 800 epochs (PRETRAIN.md), 85.9% after 1600 "
        "(paper, table 3)",
    }
    assert [name for name, row in listed.items() if not row["size"]] == ["on/gpu"]
    assert not [name for name, row in listed.items() if bool(row["machine"]) != bool(row["time"])]


def test_a_line_that_is_indented_further_continues_a_fact(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("# Mine.\n# Expected: 80%,\n#           or more\n# Note.\nseed: 0\n# Time: no\n")
    assert facts(tmp_path / "own.yaml") == {"size": None, "machine": None, "time": None, "expected": "80%, or more"}


def test_the_list_fits_a_terminal(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":") and line[0] != " "] == [
        "compare:",
        "downstream, for mae-kit finetune:",
        "on, overlays for a machine:",
        "pretrain:",
        "tokenizer:",
    ]
    assert "  gpu" in lines and max(map(len, lines)) < 100
    (quick,) = [line.split() for line in lines if line.startswith("  mae_vit_tiny_64px_quick ")]
    assert quick[1] == "ViT-Ti/8,"


@pytest.mark.parametrize("name", ["mae_vit_b16", "pretrain/mae_vit_b16", "mae_vit_b16.yaml"])
def test_one_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]):
    text = (FOLDER / "pretrain" / "mae_vit_b16.yaml").read_text()
    assert cli.main(["recipes", name]) == 0
    assert capsys.readouterr().out == text
    assert cli.main(["recipes", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "pretrain/mae_vit_b16", "text": text}


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("mae_vit_b61", "pretrain/mae_vit_b16"), ("beit_b16", "downstream/beit_b16"), ("zzz", "mae-kit recipes")],
)
def test_a_name_that_is_none_or_several(name: str, suggested: str):
    with raises("recipe.name") as caught:
        recipes(name)
    assert suggested in caught.value.fix


def test_torch_is_not_imported():
    program = "import sys; from mae_kit.cli.main import main; main(['recipes']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
