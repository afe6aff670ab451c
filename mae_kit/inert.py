"""Names of files and classes are anybody's text: they lose what a terminal, page, table or card would obey."""

import re

_CONTROL = (*range(32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPED = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROL if chr(code) not in "\n\t"}
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "'")
_MARKDOWN = re.compile(
    r"[\\`*\[\]<>|#~$&!@]|(?<!\w)_|_(?!\w)|(?<=http):|(?<=https):|(?<=ftp):|(?<=www)\.", re.IGNORECASE
)


def inert(text: str) -> str:
    """Spell out control characters, and those that turn the direction of text."""
    return text.translate(_ESCAPED)


def markdown(text: object) -> str:
    """Text for one line or cell of Markdown, without links, images, HTML or emphasis."""
    return _MARKDOWN.sub(r"\\\g<0>", inert(" ".join(str(text).split())))


def cell(text: str) -> str:
    """Text of a CSV file that no spreadsheet takes for a formula; an apostrophe before it says so."""
    shown = inert(text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def uncell(text: str) -> str:
    """What `cell` was given, but for control characters and bytes that are not UTF-8."""
    return text.removeprefix("'")


def fence(text: str) -> str:
    """The line that begins and ends a code block of Markdown which this text does not end."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
