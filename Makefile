# Every target makes .venv from constraints.txt when it is missing.
#   make demo    the main job on the embedded default: what did the pretrained weights buy? ends with a report
#   make test    the tests            make check   what CI runs: format, lint, types, tests
#   make bench   the side-by-side speed benchmarks
#   make soak    random kills, signals, disk errors and damage against random runs (SOAK="--minutes 30 --seed 1")
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
DEMO ?= experiment=demo

.PHONY: demo test check lint format bench soak build clean
.DEFAULT_GOAL := check

$(VENV)/made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 15), "headswap needs Python 3.11 to 3.14; set PYTHON=..."'
	@echo "making $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e ".[demo]"
	@touch $@

$(VENV)/made-dev: $(VENV)/made
	$(PIP) -e ".[dev]"
	@touch $@

demo: $(VENV)/made
	$(BIN)/headswap compare $(DEMO)
	@echo "open the report: $$(ls -t outputs/demo/study-*/report.html | head -n 1)"

test: $(VENV)/made-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/made-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

check: lint test

format: $(VENV)/made-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/made-dev
	$(BIN)/python bench/train_speed.py

soak: $(VENV)/made-dev
	$(BIN)/python tests/soak.py $(SOAK)

build: $(VENV)/made-dev
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache
