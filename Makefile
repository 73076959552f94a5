# Everything runs in .venv, which the first target that needs it makes from requirements.lock.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
ARGS ?=
# What starts whole installations goes two at a time, after the rest, which goes side by side: three
# for two cores, as some wait. A module's tests stay together: they share what its first one starts.
# In the order of the tree: else modules of one long test come last, and the very last keeps all but
# one core waiting.
WHOLE := beyond_one_machine dask demo installation online_workers work_pool worker worker_outages
LAST := $(WHOLE:%=tests/integration/test_%.py) tests/kill
BESIDE := --dist loadfile --no-loadscope-reorder
SHARED := -n 3 $(BESIDE) $(addprefix --ignore=,$(LAST))
WHOLES := -n 2 $(BESIDE) $(LAST)

# Tests start hundreds of our processes: what they import is compiled once, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test test-all bench bench-judgement soak lint format lock

help:
	@echo "make demo   watch a fleet age and be kept fresh on real data (about ten minutes)"
	@echo "make test   all checks that fit in ten minutes      make test-all   the long ones too"
	@echo "make bench  benchmarks, ratios measured in one run  make lint       style, types, import contracts"
	@echo "make bench-judgement   the scoreboard in full, an hour at most, written to its page"
	@echo "make soak   twelve models in real time, a watch every ten minutes, for an hour"
	@echo "make lock   pin requirements.lock from pyproject.toml"

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "driftloop needs Python 3.11, 3.12 or 3.13 on the PATH"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install
	$(BIN)/driftloop demo $(ARGS)

test: install lint
	$(BIN)/python -m pytest $(SHARED) -m "not long" $(ARGS)
	$(BIN)/python -m pytest $(WHOLES) -m "not long" $(ARGS)

test-all: install lint
	EXAMPLES=new $(BIN)/python -m pytest $(SHARED) $(ARGS)
	EXAMPLES=new $(BIN)/python -m pytest $(LAST) $(ARGS)

bench: install
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-judgement: install
	$(BIN)/python -m tests.benchmarks judgement --page tests/benchmarks/judgement.md $(ARGS)

soak: install
	$(BIN)/python -m tests.soak $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The lock holds names, versions and hashes; never an address.
lock: install
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-annotate --extra dev pyproject.toml -o requirements.lock
