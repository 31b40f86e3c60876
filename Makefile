# `make train` and `make test` set everything up: they need Python ≥ 3.11, pip and make.
PYTHON ?= python3
CONFIG ?= configs/shakespeare.yaml
ARGS ?=
# Tests run on all cores.
PARALLEL := -n auto --dist worksteal

ifneq ($(MAKECMDGOALS),clean)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
RECENT := $(shell $(PYTHON) -c 'import sys; print(int(sys.version_info >= (3, 11)))' 2>/dev/null)
ifneq ($(RECENT),1)
$(error $(PYTHON) is Python $(or $(VERSION),that cannot be run); Python 3.11 or newer is needed: make PYTHON=python3.13 …)
endif
endif

VENV := .venv/$(VERSION)
BIN := $(VENV)/bin
# Most of what is installed is never imported; the rest is compiled when it is.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --editable

.PHONY: train test test-heavy lint format docs docs-serve tables clean

train: $(VENV)/.run
	$(BIN)/python scripts/train.py $(CONFIG) $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-heavy: $(VENV)/.reference
	$(BIN)/python -m pytest -m heavy $(PARALLEL) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs
	$(BIN)/python scripts/documentation/pages.py $(ARGS)
	$(BIN)/python -m zensical build --strict --clean

docs-serve: $(VENV)/.docs
	$(BIN)/python scripts/documentation/pages.py --draft
	$(BIN)/python -m zensical serve $(ARGS)

tables: $(VENV)/.run
	$(BIN)/python scripts/documentation/tables.py

clean:
	rm -rf .venv build dist site *.egg-info

# Where Python was installed without ensurepip, its own pip installs into the environment. The pip
# that comes with Python 3.11 takes almost twice the time of a new one.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || ( \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install pip )
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.run: $(BIN)/python pyproject.toml
	$(INSTALL) '.[train]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(INSTALL) '.[dev]'
	touch $(VENV)/.run $(VENV)/.docs $@

$(VENV)/.docs: $(VENV)/.run
	$(INSTALL) '.[docs]'
	touch $@

$(VENV)/.reference: $(BIN)/python pyproject.toml
	$(INSTALL) '.[dev,reference]'
	touch $(VENV)/.run $(VENV)/.docs $(VENV)/.dev $@
