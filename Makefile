# One environment for everything: on a new machine `make demo` needs only Python 3.10 or newer.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.mae_kit-installed
# Bytecode is written, whatever the environment says: tests start many programs, which compile everything otherwise.
# The tests of a file run in one process, which makes what they share once.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --durations=25

.DEFAULT_GOAL := help
.PHONY: help install demo test long fast faults bench lint

help:
	@echo "make install   the environment, in $(VENV) (PYTHON=$(PYTHON) makes it if there is none)"
	@echo "make demo      shard, pretrain, plot and fine-tune on handwritten digits; writes demo/report.html"
	@echo "make test      all tests except the long ones, JOBS=$(JOBS) in parallel; lists the slowest"
	@echo "make long      the long tests: whole programs, kills, compilers, other engines"
	@echo "make fast      the tests that take no more than a second or two"
	@echo "make faults    every fault, as often as its gate requires; writes tests/faults/RESULTS.md"
	@echo "make bench     the speed figures of the README as ratios, in half an hour; writes bench.md"
	@echo "make lint      style, types and the import contracts"

install: $(STAMP)

demo: install
	$(BIN)/mae-kit demo --out demo

test: install
	$(PYTEST) -m "not long"

long: install
	$(PYTEST) -m long $$(grep -rl --include='test_*.py' 'mark\.long' tests)

fast: install
	$(PYTEST) -m "not slow and not long"

faults: install
	$(BIN)/python -m pytest -m gate --campaign --timeout 0 --cache-clear

bench: install
	$(BIN)/python tests/benchmarks/speed.py --out bench.md

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[demo,test,lint]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "mae_kit needs Python 3.10 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
