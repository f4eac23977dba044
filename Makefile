# make demo    train on handwritten digits, then compare every gradient with autodiff and with float64
# make test    run the tests, but for the slow ones; make test-all runs all
#
# make gpu     look at an accelerator, with the python3 at hand; GPU=--dry shows on any machine what it does
#
# The first two set up a virtual environment in .venv on first use. PYTHON=... chooses the interpreter, VENV=... the folder.

VENV ?= .venv
JOBS ?= auto
TESTS ?=
DEMO ?=
GPU ?=

BIN := $(VENV)/bin
SOURCES := jaxcnnbp tests examples docs
# One worker a core, but no more than eight: each has a JAX of its own in memory.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8

# The first interpreter that is new enough and can make virtual environments.
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)

# Where Python must not write bytecode, every process of the tests would compile this package and theirs anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-all gpu docs lint format typecheck wheel clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.train ## train on handwritten digits, then compare every gradient
	$(BIN)/python -m jaxcnnbp train --report $(DEMO)

test: $(VENV)/.test ## run the tests, but for those marked slow; TESTS=tests/packaging runs some of them
	$(PYTEST) -m "not slow" $(TESTS)

test-slow: $(VENV)/.test ## run the tests marked slow: browsers, whole training runs, many processes, wide tables
	$(PYTEST) -m slow $(TESTS)

test-all: $(VENV)/.test ## run every test
	$(PYTEST) $(TESTS)

gpu: ## right, fast, deterministic on an accelerator? Results in build/gpu; nothing is installed
	PYTHONPATH=. $(or $(PYTHON),python3) -m tests.gpu $(GPU)

docs: $(VENV)/.docs ## build the documentation into build/site, without a network
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs build/site
	@echo "build/site/index.html: open it in a browser."

lint: $(VENV)/.dev ## check style and layout
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(VENV)/.dev ## mend what lint finds and a machine can mend
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

typecheck: $(VENV)/.test $(VENV)/.dev ## check types
	$(BIN)/pyright --pythonpath $(BIN)/python

wheel: $(VENV)/.dev ## build dist/*.whl and dist/*.tar.gz
	rm -rf dist
	$(BIN)/python -m build

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each extra is installed once, and again when pyproject.toml changes; its stamp is written only if that succeeded.
$(VENV)/.%: pyproject.toml | $(VENV)/.python
	@echo "Installing jaxcnnbp[$*] into $(VENV); this downloads a few hundred megabytes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.python:
	@for python in $(CANDIDATES); do \
	    if "$$python" -c '$(SUITABLE)' 2>/dev/null; then \
	        echo "Creating $(VENV) with $$("$$python" --version)."; \
	        "$$python" -m venv --clear $(VENV) && touch $@; exit; \
	    fi; \
	done; \
	echo "jaxcnnbp needs Python 3.11 or later with venv, and found none among: $(CANDIDATES)." >&2; \
	echo "Install one (on Debian and Ubuntu also python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
