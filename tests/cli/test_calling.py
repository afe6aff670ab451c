"""Commands called from Python: recipes by name, objects, and plain values."""

from pathlib import Path
from typing import Any

import pytest
from support import toy_commands
from support.errors import raises
from support.photo_shards import jpeg

import mae_kit
from mae_kit.cli.calling import with_plain_values, with_recipes

train = with_recipes(toy_commands.train, "pretrain")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(toy_commands.RECIPE)
    return path


def test_a_recipe_with_settings_by_name_and_path(recipe: Path):
    result = train(recipe, data="shards", run="r", steps=3, **{"objective.ratio": 0.6, "data.size": 48})
    assert (result["path"], result["run"], result["ratio"], result["size"]) == ("shards", "r", 0.6, 48)
    assert result["steps"] == 3 and result["resume"] is False
    assert train(config=recipe, data="shards", run="r", steps=3)["ratio"] == 0.5


def test_resume_takes_the_folder(recipe: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(recipe.read_text())
    result = train(resume=str(tmp_path / "run"), steps=4)
    assert (result["run"], result["resume"], result["steps"]) == (str(tmp_path / "run"), True, 4)


def test_objects_are_taken_as_they_are(recipe: Path):
    hide = toy_commands.Hide(toy_commands.Encoder(5), 0.25)
    data = toy_commands.Data(Path("photos"), 96)
    result = train(objective=hide, data=data, run=Path("r"))
    assert (result["ratio"], result["weight"], result["size"]) == (0.25, hide.weight, 96)
    assert train(objective=hide, data=data, run="r", **{"data.size": 16})["size"] == 16
    assert train(recipe, data={"path": "photos", "size": 8}, run="r")["size"] == 8


def test_mistakes_have_the_key_of_the_setting(recipe: Path):
    for settings, key in (({"stps": 1}, "stps"), ({"steps": "x"}, "steps"), ({"data.siz": 1}, "data.siz")):
        with raises(key):
            train(recipe, run="r", **settings)
    with raises("objective"):
        train(data="x", run="r")


def test_the_commands_are_wrapped():
    with raises("data.path"):
        mae_kit.pretrain("mae_vit_tiny_64px", run="r")
    with raises("recipe.kind"):
        mae_kit.finetune("mae_vit_tiny_64px", data="x", run="r")


def test_paths_may_be_strings_and_strings_paths(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(jpeg(0))
    commands: Any = mae_kit
    packed = commands.shard(tmp_path / "photos", str(tmp_path / "shards"), workers=1)
    assert packed["splits"]["train"]["images"] == 1 and (tmp_path / "shards/stats.json").is_file()


def test_plain_values_take_the_type_of_the_parameter():
    def command(
        path: Path | None, place: str | Path, name: str, images: list[str | Path], count: int = 0
    ) -> list[object]:
        return [path, place, name, images, count]

    call = with_plain_values(command)
    assert call("a", "b", Path("c"), "d", count=1) == [Path("a"), "b", "c", ["d"], 1]
    assert call(None, Path("b"), "c", ["d", Path("e")]) == [None, Path("b"), "c", ["d", Path("e")], 0]
    with pytest.raises(TypeError, match="missing a required argument: 'place'"):
        call("a")
