"""`mae-kit recipes`: the recipes by folder, and the text of one."""

import difflib
import logging
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

from mae_kit.errors import UserError
from mae_kit.files.recipe_file import FOLDER

log = logging.getLogger(__name__)

HEADINGS = {"downstream": "downstream, for mae-kit finetune", "on": "on, overlays for a machine"}
FACTS = ("size", "machine", "time", "expected")


def recipes(name: str | None = None) -> dict[str, Any]:
    """List the recipes, or print one: `mae-kit recipes mae_vit_b16 > my.yaml` copies it.

    Args:
        name: A recipe, for example mae_vit_b16; with its folder if several have that name, for example
            pretrain/beit_b16.

    Returns:
        `recipes`: of each its `name`, and the `size`, `machine`, `time` and `expected` number that its first lines
        state, null where they do not; or the `name` and `text` of the one that was asked for.

    Raises:
        UserError: There is no recipe of that name, or there are several.
    """
    files = {f"{file.parent.name}/{file.stem}": file for file in sorted(FOLDER.glob("*/*.yaml"))}
    if name:
        full = _full_name(name.removesuffix(".yaml"), list(files))
        text = files[full].read_text(encoding="utf-8")
        log.info(text.rstrip("\n"))
        return {"name": full, "text": text}
    rows = [{"name": full, **facts(file)} for full, file in files.items()]
    log.info(_table(rows))
    return {"recipes": rows}


def facts(recipe: Path) -> dict[str, str | None]:
    """What a recipe's first lines state in the form `# Time: ...`; a line that is indented further continues it."""
    head = re.match(r"(#.*\n)*", recipe.read_text(encoding="utf-8"))
    found = re.findall(r"^# (\w+): +(.*(?:\n#  .*)*)", head[0] if head else "", re.MULTILINE)
    stated = {key.lower(): re.sub(r"\n# +", " ", text).strip() for key, text in found}
    return {key: stated.get(key) for key in FACTS}


def _full_name(name: str, names: list[str]) -> str:
    matches = [full for full in names if name in (full, full.partition("/")[2])]
    if len(matches) > 1:
        raise UserError(
            "recipe.name.ambiguous", f"{name} is the name of {len(matches)} recipes", f"give {' or '.join(matches)}"
        )
    if not matches:
        last = {full.partition("/")[2]: full for full in names}
        near = difflib.get_close_matches(name.rpartition("/")[2], last, 3)
        fix = f"did you mean {' or '.join(last[one] for one in near)}?" if near else "`mae-kit recipes` lists them all"
        raise UserError("recipe.name.unlisted", f"no recipe {name}", fix)
    return matches[0]


def _table(rows: list[dict[str, Any]]) -> str:
    """The recipes below the names of their folders; without what follows a fact in parentheses or after `;`."""
    width = max(80, shutil.get_terminal_size((100, 24)).columns - 1)
    column = max(len(row["name"].partition("/")[2]) for row in rows) + 4
    lines, folder = [], ""
    for row in rows:
        above, _, name = row["name"].partition("/")
        if above != folder:
            folder = above
            lines += [""] * bool(lines) + [f"{HEADINGS.get(folder, folder)}:"]
        text = "; ".join(_short(key, row[key]) for key in FACTS if row[key])
        first = f"  {name:<{column - 2}}"
        lines.append(textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * column) or first.rstrip())
    return "\n".join(lines)


def _short(key: str, fact: str) -> str:
    short = fact.partition(" (")[0].partition("; ")[0]
    return f"expected: {short}" if key == "expected" else short
