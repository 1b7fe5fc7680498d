# `make help` lists what there is. One environment, .venv, serves everything.

DEMO := sciffusion demo molecules --out out/demo

VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
TORCH := $(shell grep '^torch==' $(CONSTRAINTS))
SETUPTOOLS := $(shell grep '^setuptools==' $(CONSTRAINTS))

# The first of these that is at least 3.11; `make PYTHON=/path/to/python demo` decides otherwise.
PYTHONS := python3 python3.13 python3.12 python3.11
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for p in $(PYTHONS); do $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_PROGRESS_BAR := off
INSTALL := $(BIN)/python -m pip install -qq --constraint $(CONSTRAINTS)

.DEFAULT_GOAL := help
.PHONY: help demo test lint env clean

help:  ## list these targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: $(VENV)/.demo  ## sample molecules from shipped weights, judge them, leave files in out/demo
	$(BIN)/$(DEMO)

test: export OMP_NUM_THREADS ?= 1  # more threads than free cores slow small tensors down many times
test: lint  ## lint, types, every test and the coverage
	$(BIN)/pytest --numprocesses auto --cov --cov-report=term

lint: $(VENV)/.dev  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

env: $(VENV)/.dev  ## the environment alone, for work in an editor or a notebook

clean:  ## remove caches, build products and out/; runs/ and .venv stay
	rm -rf build dist out htmlcov .coverage .coverage.* *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Stamps: each stands for a finished installation and is renewed when the pins change.
# torch comes first and alone, so that nothing that follows can choose another build of it.
$(VENV)/.torch: $(CONSTRAINTS)
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' || { \
		echo "sciffusion needs Python 3.11 or newer; not so: $(or $(PYTHON),$(PYTHONS))." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.11 demo" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing $(TORCH) into $(VENV)"
	@$(INSTALL) $(TORCH) $(SETUPTOOLS)
	@touch $@

$(VENV)/.demo: EXTRAS := molecules
$(VENV)/.dev: EXTRAS := molecules,audio,text,weather,images,video,shapes,diffusers,hub,dev
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "installing sciffusion[$(EXTRAS)] into $(VENV)"
	@$(INSTALL) --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@
