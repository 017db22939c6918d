# Each target does all its set-up; a second run starts in seconds. Needs Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CORE := $(VENV)/.core
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.PHONY: help demo lab test check bench-setup bench docs clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "AngelOS needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }  # half a one would look ready

$(CORE): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(CORE)
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(CORE) ## the main job, end to end, headless, in a temporary directory
	$(BIN)/angelos demo

lab: $(CORE) ## JupyterLab with AngelOS on embedded stores; Ctrl-C stops it
	@$(BIN)/python -c 'import shutil; from angelos.adapters.host.datadir import DataDir, find_data_dir; data = DataDir(find_data_dir()); data.create(); book = data.workspace / "00_quickstart.ipynb"; book.exists() or shutil.copy("notebooks/00_quickstart.ipynb", book)'
	$(BIN)/angelos up --lab

test: check ## all tests (what the machine lacks is SKIPPED with the reason)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(DEV) ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench-setup: $(DEV) ## what the benchmarks and their peers need
	$(PIP) install --quiet -c constraints.txt -e '.[bench]'

bench: bench-setup ## every benchmark; each ends with one line of JSON
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(CORE) ## regenerate docs/reference from the code
	$(BIN)/python -m tools.reference docs/reference

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build dist artifacts .pytest_cache .ruff_cache .hypothesis .import_linter_cache
