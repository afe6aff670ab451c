"""Names of files and classes are anybody's text: here they lose what a terminal, a page or a model card would obey."""

import re

_CONTROL = (*range(32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPED = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROL if chr(code) not in "\n\t"}
_MARKDOWN = re.compile(
    r"[\\`*\[\]<>|#~$&!@]|(?<!\w)_|_(?!\w)|(?<=http):|(?<=https):|(?<=ftp):|(?<=www)\.", re.IGNORECASE
)


def inert(text: str) -> str:
    """Spell out control characters, and those that turn the direction of text."""
    return text.translate(_ESCAPED)


def markdown(text: object) -> str:
    """Text for one line or cell of Markdown, without links, images, HTML or emphasis."""
    return _MARKDOWN.sub(r"\\\g<0>", inert(" ".join(str(text).split())))


def fence(text: str) -> str:
    """The line that begins and ends a code block of Markdown which this text does not end."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
