"""`make bench` calls every benchmark with words that it understands."""

import importlib
from pathlib import Path

import pytest

from mae_kit.cli.parser import parse

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.mark.slow  # transformers are imported
def test_every_benchmark_understands_its_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    for _, (file, *words) in importlib.import_module("speed")._benchmarks("shards", 8):
        parse(getattr(importlib.import_module(file), file), file, words)
