# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test test-full lint clean

setup: $(VENV)/.ready

# Exact versions come from constraints.txt, those of the build back end too; torch goes first, so that no other
# package chooses its build.
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

# A process a core, a thread each: the tests are many and small.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test: setup
	$(TESTS)

test-full: setup
	$(TESTS) -m "full or not full"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs/demo runs/demo-pairs build dist
