"""The doorway for JSON files."""
# Also tests files/plain_types.py.

from pathlib import Path

import pytest
from support.errors import raises

from mae_kit.files.json_file import MAX_DEPTH, parse_json, read_json


def test_what_is_not_read(tmp_path: Path):
    for text in ("", "{", "[1]", "3", '{"a": ' * 5000 + "1" + "}" * 5000, "\xff", '{"a": [' + "[" * 9000, "null"):
        (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
        with raises("file"):
            read_json(tmp_path / "a.json", "file", "write it again")


@pytest.mark.parametrize(
    "text", ['{"a": "[[["}', r'{"a\"[[[": 1}', "[" * MAX_DEPTH + "]" * MAX_DEPTH, '{"a": [{}, []]}']
)
def test_depth_is_counted_outside_of_texts(text: str):
    parse_json(text.replace("[[[", "[" * 99).encode() if '"' in text else text.encode())


def test_a_string_without_an_end_is_read_once():
    """Searched again from each of its escaped quotes, a megabyte of them takes hours."""
    with pytest.raises(ValueError):
        parse_json(b'"' + b'\\"' * 500_000)


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', '{"\\uDfff\\ud83d": 1}'])
def test_half_a_character_is_refused(text: str):
    """No file in UTF-8 could hold it."""
    with pytest.raises(ValueError):
        parse_json(text.encode())
    found = parse_json(b'["\\ud83d\\ude00", "caf\\udce9"]')
    assert found == ["\U0001f600", "caf\udce9"], "bytes of file names may stay"


def test_text_is_utf8_alone():
    """In UTF-16 brackets hide behind what reads as quotes."""
    hidden = "\u225b" + "[" * 5000
    for text in (f'["{hidden}"]'.encode("utf-16"), '{"a": 1}'.encode("utf-16-le"), "[" * 5000 + "\u225b"):
        with pytest.raises(ValueError):
            parse_json(text if isinstance(text, bytes) else text.encode("utf-16"))
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
