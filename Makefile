# On a fresh machine, `make demo` and `make test` set everything up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test test-full fuzz lint clean

setup: $(VENV)/.ready

# Exact versions, also of the build back end, come from constraints.txt. torch is installed first, so that no other
# package decides which build of it is installed.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/bitemporal data synth runs/demo-pairs --pairs 300 --size 128 --seed 0
	$(BIN)/bitemporal distill --config recipes/demo.yaml --data runs/demo-pairs --out runs/demo
	@echo "six pairs of the test split: runs/demo/overview.png"

# One process per core with one thread each, because there are many small tests.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test: setup
	$(TESTS)

test-full: setup
	$(TESTS) -m "full or not full"

# Damaged files for every reader, for an hour from a new seed; a fixed number of them is part of test-full.
SECONDS := 3600
fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/trial.py $(SECONDS) $(shell date +%s)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs/demo runs/demo-pairs build dist
