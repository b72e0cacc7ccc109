# One environment for everything: `make demo` and `make test` build it when it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests run in so many processes, each with a thread for its arithmetic.
WORKERS ?= 2

.PHONY: demo test lint types figures guard clean

demo: $(VENV)/installed  ## train, export, compare and predict on small data that ships along
	$(BIN)/mtl-edge demo --overwrite

test: $(VENV)/installed  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The checker sees the packages where they will be installed: training/ as mtl_edge/training/, ...
types: $(VENV)/installed
	rm -rf build/types && mkdir -p build/types/mtl_edge
	ln -s $(CURDIR)/mtl_edge/* build/types/mtl_edge/
	ln -s $(CURDIR)/training $(CURDIR)/export $(CURDIR)/benchmarks build/types/mtl_edge/
	cd build/types && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml -p mtl_edge

figures: $(VENV)/installed  ## latency by shape and step by step, anew on this machine
	$(BIN)/python -m mtl_edge.benchmarks.experiments.shapes --out benchmarks/results/shapes --overwrite
	$(BIN)/python -m mtl_edge.benchmarks.experiments.steps --out benchmarks/results/steps --overwrite
	$(BIN)/python -m mtl_edge.benchmarks.experiments.readme

guard: $(VENV)/installed  ## whether an engine lost speed against torch: warns, never fails on time
	$(BIN)/python -m mtl_edge.benchmarks.experiments.guard --json build/guard.json

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf build dist *.egg-info $(VENV)
