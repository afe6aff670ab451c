"""Names that somebody else has chosen, for a terminal and for Markdown."""

import pytest
from rich.table import Table

from mae_kit.console import console
from mae_kit.inert import cell, fence, inert, markdown, uncell

HOSTILE = "\x1b]0;owned\x07[link=http:x]a[/link] :dog: \u202egpj.exe\u2028"


def test_a_terminal_obeys_no_name(capsys: pytest.CaptureFixture[str]):
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table, HOSTILE)
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e", "\u2028", "\U0001f436"} & set(shown)
    assert shown.count(r"\x1b]0;owned\x07[link=http:x]a[/link] :dog: \u202egpj.exe\u2028") == 4
    assert inert("two\nlines\tand tab, café 犬") == "two\nlines\tand tab, café 犬"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("train_1, vit-b/16 (img_size 32)", "train_1, vit-b/16 (img_size 32)"),
        ("![x](http://a)", r"\!\[x\](http\://a)"),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
        ("a|b\n# c", r"a\|b \# c"),
        ("_x_ *y* `z` $q$ &lt; www.a.b me@c", r"\_x\_ \*y\* \`z\` \$q\$ \&lt; www\.a.b me\@c"),
        ("\x1b[2J", r"\\x1b\[2J"),
    ],
)
def test_markdown_shows_a_name_as_it_is(text: str, shown: str):
    assert markdown(text) == shown


def test_a_code_block_is_not_ended_by_what_is_in_it():
    assert fence("a") == "```" and fence("x\n```\n<img>") == "````" and fence("`````") == "``````"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2", "@SUM(A1)", "'=x", "cat", "a=b", "\n=1"])
def test_a_spreadsheet_computes_nothing(text: str):
    assert cell(text)[0] not in "=+-@\t\n" and uncell(cell(text)) == text


def test_bytes_that_are_not_utf_8_are_spelled_out():
    assert cell("a\udcff\x1b") == r"a\xff\x1b"
