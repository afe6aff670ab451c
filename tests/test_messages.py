"""All messages in one place: rewording one changes one line of tests/messages.txt, and no other test."""

import re
from collections import Counter
from pathlib import Path

import pytest
from support.messages import RECORD, ROOT, messages, record

DIALECT = re.compile(
    r"\b(tell|told|goes on|go on|anew|alike|lies beside|beside|share of|shares|whole number|data set|begun|is said)\b"
)
"""Words of this project alone, for which the field has others: reported, resumes, again, equal, next to, fraction."""

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md")])


def test_the_record_is_up_to_date():
    assert RECORD.read_text(encoding="utf-8") == record(), "if this is meant: python tests/support/messages.py"


def test_a_message_is_one_line_with_a_key_and_a_fix():
    key = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*|.*\{.*\}.*")
    wrong = [message for message in messages() if not (key.fullmatch(message.key) and message.problem and message.fix)]
    assert not wrong
    assert not [message for message in messages() if "\n" in str(message)]


def test_each_mistake_has_a_key_of_its_own():
    """Two places may report the same mistake, in the same words; a key with a `{value}` is the user's setting."""
    mistakes = {(message.key, message.problem) for message in messages() if "{" not in message.key}
    assert [key for key, count in Counter(key for key, _ in mistakes).items() if count > 1] == []


def test_messages_use_the_words_of_the_field():
    prose = [re.sub(r"\{.*?\}", "", f"{message.problem}: {message.fix}") for message in messages()]
    assert not [text for text in prose if DIALECT.search(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_use_the_words_of_the_field(page: Path):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not DIALECT.findall(prose)
