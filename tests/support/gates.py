"""Gates: what has to hold when a fault is injected. `@pytest.mark.gate("R1")` assigns a test to its gate.

`make faults` runs only these tests, as often as each gate requires (`--campaign`), and writes faults/RESULTS.md; rows
of gates that were not run are kept. A gate can be run in parts, a test at a time: pytest's cache knows the outcomes of
the others, which its row counts, too; `make faults` forgets them first. Without `--campaign` the same tests inject the
same faults fewer times.
"""

import os
import platform
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch

RESULTS = Path(__file__).parents[1] / "faults" / "RESULTS.md"
Measured = Callable[[str], None]


class Gate(NamedTuple):
    """What is injected, what has to hold, and what the best other tool does, quoted from elsewhere."""

    fault: str
    asked: str
    others: str


GATES = {
    "R1": Gate(
        "kill -9 at random moments, including while saving, then `--resume`",
        "loss curve and weights bit-identical to an uninterrupted run, 30 of 30",
        "torchtitan: equal batches; transformers: equal loss without loader workers",
    ),
    "R2": Gate(
        "several stops within an epoch, resumed with 0, 1, 2 and 4 workers",
        "every sample exactly once per epoch, by the audit in metrics.jsonl",
        "streaming: one stop, sorted ids; Megatron-Energon: deterministic restore of saved loader states",
    ),
    "R3": Gate(
        "1, 2, 4, then 1 processes between the stops, constant batch size",
        "the same samples in each epoch, loss within 1e-6",
        "streaming: where sizes divide; Megatron-Energon: where world size x workers is constant",
    ),
    "R4": Gate(
        "kill -9 while saving, 200 times, TMPDIR on another file system",
        "the newest checkpoint loads, 200 of 200",
        "Lightning: 1 of 12; stable-pretraining writes a temporary file and renames it",
    ),
    "R5": Gate(
        "the newest checkpoint with a flipped bit, truncated, or without its manifest",
        "detected by its hash, the previous one is loaded, one line",
        "Lightning: crash",
    ),
    "R6": Gate(
        "full disk while saving; too little space before the start",
        "the previous checkpoint stays, training continues and fails only at its end; refused before the start",
        "crash",
    ),
    "R7": Gate("a read-only run folder", "refused before training", "Lightning: silent"),
    "R8": Gate(
        "SIGTERM, SIGINT, SIGUSR1, also to a single rank, also during evaluation",
        "all ranks save that step and exit with 143 (130), the resumed run is bit-identical",
        "NeMo AutoModel",
    ),
    "R9": Gate(
        "shards truncated in header, data, at a boundary, empty, gzipped, shuffled; flipped header bits",
        "each named, no image with another's label, the rest used",
        "webdataset mislabels",
    ),
    "R10": Gate("79 unusual and damaged images", "the expected RGB, or quarantined with a reason", "-"),
    "R11": Gate(
        "damaged images among valid ones, the run killed",
        "the same replacements: bit-identical; at most 10% slower at 5% damage",
        "webdataset: half a second for each",
    ),
    "R12": Gate(
        "pickles that call functions, links, `..`, a million members, decompression bombs",
        "no code executed, nothing written outside, memory bounded",
        "timm",
    ),
    "R13": Gate("one shard, two ranks of three workers each", "no hang, the same training", "webdataset: hangs"),
    "R14": Gate("NaN in one batch; in three in a row; in all", "skipped; rolled back; one line", "MAE's code: exits"),
    "R15": Gate("a loader worker killed; all of them", "replaced, bit-identical; one line", "RuntimeError"),
    "R16": Gate(
        "shards changed, missing, new; the same ones in another place",
        "refused with the difference, or --allow-data-change; resumed",
        "-",
    ),
    "R17": Gate("50,000 steps of a tiny model", "memory grows by less than 1 MB per 1,000 steps", "-"),
    "R19": Gate(
        "one file operation of a command fails: 27 commands, 30 moments each, ten errnos",
        "one line, or the same result; the same command again then has the result that it would have had",
        "-",
    ),
    "R20": Gate(
        "hostile files of ten kinds, 10,000 of each, class paths and downloads everywhere; each value of a run bent",
        "no process, foreign import, connection or write elsewhere; typed errors only",
        "-",
    ),
    "R21": Gate(
        "a stuck loader worker or rank and SIGTERM; a rank that is killed, fails or is stuck; torchrun's agent",
        "left within seconds with 143, resumed; one line; restarted and resumed",
        "torchtitan: time-outs of collectives",
    ),
    "R22": Gate("ranks with another learning rate", "refused before the first step, by the setting", "-"),
    "R23": Gate("80 descriptors, little shared memory", "the same training", "-"),
    "R24": Gate(
        "a read that fails once or for good, a server that sends something else",
        "bit-identical, or stopped until it is right; never other weights",
        "streaming, litdata: retried, then an error",
    ),
    "R18": Gate("mutated images, tars, checkpoints and recipes", "typed errors only, 10,000 of each", "-"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign", action="store_true", help="inject every fault as often as its gate requires")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gate(name): a fault that a run has to survive; see tests/support/gates.py")
    if config.getoption("--campaign"):
        config.pluginmanager.register(Campaign(config), "campaign")


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> bool:
    """Whether to inject the fault as often as the gate requires."""
    return bool(request.config.getoption("--campaign"))


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Record a figure for the table."""
    return lambda figure: request.node.user_properties.append(("measured", figure))


class Outcome(NamedTuple):
    """Of one test: passed, failed or skipped; its figures; the day and commit of its run."""

    outcome: str
    figures: list[str]
    run: str


class Campaign:
    """Collect outcomes and figures, and write the table at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.cache = config.cache
        self.tests: dict[str, list[str]] = defaultdict(list)
        self.outcomes: dict[str, dict[str, Outcome]] = defaultdict(dict)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        for mark in item.iter_markers("gate"):
            self.tests[mark.args[0]].append(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report: pytest.TestReport = yield
        if report.when == "call" or report.outcome != "passed":
            figures = [str(value) for name, value in report.user_properties if name == "measured"]
            for mark in item.iter_markers("gate"):
                self.outcomes[mark.args[0]][item.nodeid] = Outcome(report.outcome, figures, _now())
        return report

    def pytest_sessionfinish(self) -> None:
        for name, new in self.outcomes.items():
            known = self.cache.get(f"gates/{name}", {})
            self.outcomes[name] = {test: Outcome(*one) for test, one in known.items()} | new
            self.cache.set(f"gates/{name}", self.outcomes[name])
        RESULTS.parent.mkdir(exist_ok=True)
        table = "\n".join(self._table())  # before the file is opened, which it reads
        RESULTS.write_text(table + "\n", encoding="utf-8")

    def _table(self) -> Iterable[str]:
        before = _rows(RESULTS)
        yield "# Injected faults"
        yield ""
        memory = psutil.virtual_memory().total / 2**30
        yield f"`make faults` on {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()},"
        yield f"Python {platform.python_version()}, torch {torch.__version__}."
        yield "Other tools: quoted from their documentation and issues, not measured by this command."
        yield ""
        yield "| gate | fault | has to hold | result | measured | best other tool | run |"
        yield "|---|---|---|---|---|---|---|"
        for name, gate in GATES.items():
            yield self._row(name, gate) if self.outcomes[name] or name not in before else before[name]

    def _row(self, name: str, gate: Gate) -> str:
        tests = self.outcomes[name].values()
        figures = "; ".join(dict.fromkeys(figure for test in tests for figure in test.figures)) or "-"
        runs = "; ".join(dict.fromkeys(test.run for test in tests)) or "-"
        return f"| {' | '.join([name, gate.fault, gate.asked, self._result(name), figures, gate.others, runs])} |"

    def _result(self, name: str) -> str:
        outcomes = [test.outcome for test in self.outcomes[name].values()]
        if not outcomes:
            return "not run"
        outcomes += ["not run" for test in self.tests[name] if test not in self.outcomes[name]]
        missing = [f"{outcomes.count(kind)} {kind}" for kind in ("failed", "skipped", "not run") if kind in outcomes]
        return ", ".join([f"{outcomes.count('passed')} of {len(outcomes)} tests pass", *missing])


def _now() -> str:
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return f"{time.strftime('%Y-%m-%d')}, {commit}"


def _rows(table: Path) -> dict[str, str]:
    """Rows of an earlier table by gate."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("| R")}
