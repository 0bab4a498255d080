# Every target below sets up what it needs: a virtual environment in .venv with the versions of
# requirements.lock. That happens once, and again only when the project's requirements change.
# Needed beforehand: Python 3.11 or newer with pip and venv, and make. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Another environment's settings must not leak into this one.
unexport PYTHONPATH
unexport PYTHONHOME
unexport VIRTUAL_ENV

# An interpreter for the new environment; found by itself, or named: make test PYTHON=/opt/py/bin/python3
PYTHON ?=
EXTRAS ?= dev,detection

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(EXTRAS)
CODE := nas orchestration detection experiments tests

.PHONY: help demo test test-gpu test-cluster lint format bench install clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## the paper's ablation in small, detection, and a report, on real images
	@$(BIN)/bnnas sweep experiments/configs/ablation_quickstart.yaml
	@$(BIN)/bnnas detect experiments/configs/detect_digit_scenes.yaml
	@$(BIN)/bnnas report

test: $(STAMP) ## run the tests
	@$(BIN)/pytest -n 2 --no-loadscope-reorder

test-gpu: $(STAMP) ## run the tests that need a GPU
	@$(BIN)/pytest -m gpu

test-cluster: $(STAMP) ## run the test that needs the machine for itself: a cluster with a lost node
	@BNNAS_OWN_CLUSTER=1 $(BIN)/pytest tests/deploy/test_own_cluster.py

lint: $(STAMP) ## check style, format, types and import contracts
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## mend style and format where a tool can
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: $(STAMP) ## measure speed and memory
	@for program in experiments/benchmarks/[!_]*.py; do \
	    module=$${program%.py}; $(BIN)/python -m "$${module//\//.}"; \
	done

install: $(STAMP) ## only set up the environment
	@:

clean: ## remove caches and builds
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment, too
	@rm -rf $(VENV)

# The first interpreter that runs, is new enough and can build environments. Names come in the
# order of preference: 3.11 is what the lock was tested with.
define find_python
python=; \
for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
        >/dev/null 2>&1; then python=$$candidate; break; fi; \
done; \
if [ -z "$${python:-}" ]; then \
    echo "No usable Python found$(if $(PYTHON), at $(PYTHON)): bnnas needs Python 3.11 or newer with the venv module" \
        "(Debian and Ubuntu: apt-get install python3 python3-venv). If you have one, name it:" \
        "make PYTHON=/path/to/python3" >&2; \
    exit 1; \
fi
endef

$(STAMP): pyproject.toml requirements.lock
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    $(find_python); \
	    echo "Creating $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing into $(VENV): once, a few minutes"
	@quiet=$$([ -t 1 ] || echo --quiet); \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check \
	    --constraint requirements.lock --editable ".[$(EXTRAS)]"
	@touch $@
