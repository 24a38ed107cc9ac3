# `make demo` and `make test` need python3 >= 3.10 (with venv, or uv beside it) and a package index, nothing else; tests of the
# job store in PostgreSQL want its server's programs, which `make test` installs on a Debian, as root.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test soak bench bench-all lint types format
.DELETE_ON_ERROR:

demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/demo

test: $(READY)
	@bash scripts/postgresql
	$(BIN)/python -m pytest -n 4 --dist loadfile

# Two hundred seeded rounds of killing servers, workers and databases under load; about ten minutes.
soak: $(READY)
	$(BIN)/python -m tests.faults.soak --rounds 200

# Beside the peers, about twenty minutes on a machine that does nothing else; then docs/benchmarks.md is of this machine.
bench: $(READY)
	$(BIN)/python benchmarks/run.py

# With BentoML, Ray Serve and the figures of size too.
bench-all: $(READY)
	$(BIN)/python benchmarks/run.py --all

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Made again whenever pyproject.toml changes.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "flashfw needs Python 3.10 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv && uv venv --quiet --seed --python $(PYTHON) .venv; } \
	  || { rm -rf .venv; echo "$(PYTHON) cannot make environments: install python3-venv, or uv" >&2; exit 1; }
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --editable . --group dev
	@touch $@
