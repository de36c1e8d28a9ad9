# Everything runs in .venv, which the first target that needs it sets up; nothing outside this folder is changed.
# Needed: make and Python 3.11 or newer (name another one with `make serve PYTHON=/path/to/python3.12`).

PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 2024
# `=` and not `?=`: several shells and conda export a HOST of their own. Use `make serve HOST=0.0.0.0`.
HOST    = 127.0.0.1
# Passed on as they are: `make serve ARGS=--no-watch`, `make test ARGS="-k rollback"`.
ARGS   ?=

BIN     := $(VENV)/bin
RUN     := $(VENV)/.installed-run
DEV     := $(VENV)/.installed-dev
PIP     := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve browser pictures test faults invariants check format bench soak clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{printf "  make %-8s %s\n", $$1, $$2}'

serve: $(RUN) ## serve this folder on http://127.0.0.1:2024 (PORT=, HOST=, ARGS=)
	$(BIN)/changeover serve . --host $(HOST) --port $(PORT) $(ARGS)

browser: ## install the distribution's Chromium, which the tests of the page drive
	.ci/browser

pictures: $(DEV) ## take pictures of every page, into build/pictures
	$(BIN)/python tests/ui/pictures.py

# Most tests wait, for processes and moments: there are more of them at once than cores.
# Processes that tests start read what the first of them has compiled, whatever the environment says.
test: $(DEV) ## run all tests (ARGS=)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

faults: $(DEV) ## kill a server at every statement that it sends to its database; takes hours (ARGS=)
	CHANGEOVER_FAULTS=all $(BIN)/python -m pytest -n 2 -s tests/faults tests/recovery $(ARGS)

invariants: $(DEV) ## search for a sequence of steps that breaks an invariant; EXAMPLES=200 is ten minutes (ARGS=)
	CHANGEOVER_INVARIANTS=$(or $(EXAMPLES),200) $(BIN)/python -m pytest -n 2 --timeout 0 tests/invariants $(ARGS)

check: $(DEV) ## format, lint, types, import layers; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV) ## measure, and print a table (ARGS=)
	$(BIN)/python -m bench $(ARGS)

soak: $(DEV) ## edit, switch, roll back and hand over under 200 conversations for minutes (ARGS=--help)
	$(BIN)/python -m bench soak $(ARGS)

clean: ## remove the environment, caches and the server's state in .changeover/
	rm -rf $(VENV) .changeover .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are newer than what they were made from, so that setting up is done once per change of either file.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; '$(PYTHON)' is not. Name one: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) (once, takes a minute or two)"
	$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) with the tools for development (once, takes a minute or two)"
	$(PIP) -e '.[dev]'
	@touch $(RUN) $@
