"""The notebooks: they run from top to bottom, shortened, and hold no logic of their own."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SHORTER = {"from_photos_to_classifier": "PRETRAINING_EPOCHS = 1\nFINETUNING_EPOCHS = 2"}


def code(notebook: Path) -> list[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_logic(notebook: Path):
    logic = ast.FunctionDef | ast.ClassDef | ast.For | ast.While | ast.If | ast.Try
    for source in code(notebook):
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, logic)], source


@pytest.mark.long
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook: Path, tmp_path: Path):
    content = nbformat.read(notebook, as_version=4)
    place = next(i for i, cell in enumerate(content.cells) if "parameters" in cell.metadata.get("tags", []))
    content.cells.insert(place + 1, nbformat.v4.new_code_cell(SHORTER[notebook.stem]))
    NotebookClient(content, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [
        output
        for cell in content.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result" and "image/png" in output.data
    ]
    assert pictures
    assert (tmp_path / notebook.stem / "classifier" / "report.html").is_file()
