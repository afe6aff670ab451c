"""HTML from the templates in `templates/`, by jinja2 with autoescape: text from files cannot become markup."""

import base64
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mae_kit.inert import inert


def _plain(value: Any) -> Any:
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    finalize=_plain,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> Markup:
    """Fill a template."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def page(title: str, *sections: Markup) -> str:
    """Make a complete HTML document; empty sections are left out."""
    return render("page.html", title=title, sections=sections, written=f"{datetime.now():%Y-%m-%d %H:%M}")


def data_uri(data: bytes, kind: str) -> str:
    """Embed an image in a page; `kind` is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def pictures(folder: Path) -> list[str]:
    """Embed the PNG files of a folder, by name."""
    return [data_uri(file.read_bytes(), "png") for file in sorted(folder.glob("*.png"))]


def percents(row: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Format fractions of 1 as percentages; a dash where one is unknown."""
    return ["-" if row[name] is None else percent(row[name]) for name in names]


def percent(fraction: float) -> str:
    """Format a fraction of 1 as a percentage with one decimal."""
    return f"{100 * fraction:.1f}%"


_TEMPLATES.filters["percent"] = percent
