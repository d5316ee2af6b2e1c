# make demo    set up, run the digits showdown, write its comparison page (minutes)
# make test    set up, run every test
# make check   set up, format, lint, types, import layers
# make bench   set up, measure: optimizer step, input pipeline, sweeps, checkpoints, resuming, several processes
# make format  rewrite the formatting that `make check` looks at

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := $(or $(shell command -v uv 2>/dev/null),$(BIN)/uv)
JOBS   ?= 2

export OMP_NUM_THREADS = 1
export PYTHONUNBUFFERED = 1

.PHONY: demo test check bench format setup clean
.DELETE_ON_ERROR:

setup: $(READY)

# The stamp is written last: a set-up that was interrupted goes on where it stopped.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "bbi_lightning needs Python 3.10 or newer: make PYTHON=/path/to/python3"; exit 2; }
	@test -x $(BIN)/python || rm -rf $(VENV)
	@test -x $(BIN)/python || test ! -x $(UV) || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed: install it (Debian: apt-get install python3-venv)"; exit 2; }
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing into $(VENV) (about 6 GB with PyTorch; half a minute from a warm cache)"
	@$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/bbi sweep run sweep=digits_showdown
	@$(BIN)/bbi compare digits_showdown

test: $(READY)
	@.ci/packages
	@$(BIN)/pytest --numprocesses $(JOBS) --dist worksteal

check: $(READY)
	@$(BIN)/ruff format --check --quiet . && echo "format: clean"
	@$(BIN)/ruff check --quiet . && echo "lint: clean"
	@$(BIN)/mypy
	@$(BIN)/pytest --quiet tests/test_imports.py

format: $(READY)
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --fix --quiet .

bench: $(READY)
	@$(BIN)/python benchmarks/optimizer_step.py
	@$(BIN)/python benchmarks/input_pipeline.py
	@$(BIN)/python benchmarks/sweep_throughput.py
	@$(BIN)/python benchmarks/sweep_bookkeeping.py
	@BBI_TEST_TRIALS=10000 $(BIN)/pytest --quiet --capture=no --timeout=4000 tests/slurm/test_ten_thousand.py
	@$(BIN)/python benchmarks/checkpoint_cost.py
	@$(BIN)/python benchmarks/resume_cost.py
	@$(BIN)/python benchmarks/loss_exchange.py
	@$(BIN)/python benchmarks/lightning_overhead.py
	@$(BIN)/python benchmarks/registry.py
	@$(BIN)/python benchmarks/top.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
