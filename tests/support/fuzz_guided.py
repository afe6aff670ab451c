"""A reader under mutations that atheris guides by the code they reach: `fuzz_guided.py READER FOLDER TIMES`.

A program of its own, since atheris ends its process.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")  # untyped, and not there on all systems

with atheris.instrument_imports(include=["mae_kit"]):
    from support.fuzz_targets import READERS


def main() -> None:
    name, folder, times = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    seeds, read = READERS[name](folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], f"-runs={times}", "-seed=1", f"-artifact_prefix={folder}/", str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
