"""The page itself, and the pieces that all its sections are put together from."""

import base64
from datetime import datetime
from html import escape

from mae_kit.reports.style import STYLE


def page(title: str, *sections: str) -> str:
    """A whole HTML document."""
    name = escape(title)
    written = f"<footer>Written by mae_kit, {datetime.now():%Y-%m-%d %H:%M}</footer>"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{name}</h1>{''.join(sections)}{written}</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def note(text: str) -> str:
    return f"<p class=note>{escape(text)}</p>"


def warning(text: str) -> str:
    return f"<p class=warning>{escape(text)}</p>"


def folded(summary: str, content: str) -> str:
    """Shown at a click, and on paper."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def choice(name: str, views: dict[str, str]) -> str:
    """One of two or three views at a time, by a click on its title.

    Args:
        name: Of the choice, on the page.
        views: By title; the first is shown until another is chosen, and on paper what is chosen.
    """
    buttons = "".join(
        f"<input type=radio name={name} id={name}-{number}{'' if number else ' checked'}>"
        f"<label for={name}-{number}>{escape(title)}</label>"
        for number, title in enumerate(views)
    )
    return f"<div class=choice>{buttons}{''.join(f'<div>{view}</div>' for view in views.values())}</div>"


def table(names: tuple[str, ...], rows: str) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def text_row(cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def image(data: bytes, kind: str, alt: str, style: str = "") -> str:
    """A picture inside the page; `kind` is png or jpeg, `style` a class of the style sheet."""
    source = base64.b64encode(data).decode()
    return f'<img{f" class={style}" if style else ""} src="data:image/{kind};base64,{source}" alt="{escape(alt)}">'


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"
