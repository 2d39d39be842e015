# medray: every target makes .venv and installs on its first call. See README.md.
#   make demo [KEEP=1]   records to served answers on this machine; KEEP=1 leaves the server up,
#                        PORT=8001 moves it
#   make test            test-fast + the tests that start Ray     make test-slow   the rest
#   make lint            ruff, ruff format, pyright               make bench       benchmarks
# PYTHON=python3.12 chooses an interpreter. TORCH_INDEX=URL names an index with CPU builds of torch,
# where pip would else fetch CUDA on a machine without a GPU.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	if "$$p" -c '$(SUITABLE)' 2>/dev/null; then echo "$$p"; break; fi; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -q -q -c constraints.txt $(addprefix --extra-index-url ,$(TORCH_INDEX))

# Two workers share two cores; nothing is downloaded; nothing is reported.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export DS_ACCELERATOR ?= $(if $(shell nvidia-smi -L 2>/dev/null),cuda,cpu)

.PHONY: help install demo test test-fast test-slow bench lint format

help:
	@sed -n 's/^#   //p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "medray needs Python 3.11 or 3.12 and found neither; install one or set PYTHON=..." >&2; \
		exit 2; fi
	@echo "installing into $(VENV) with $(PYTHON): about two minutes, 3 GB of disk ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/medray demo $(if $(filter-out 0,$(KEEP)),--keep) $(addprefix --port ,$(PORT))

test: test-fast
	$(BIN)/python -m pytest -m "cluster and not slow"

test-fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not cluster and not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The last line of a benchmark is its result as JSON. Files without a main are parts of others; a
# GPU, another environment or a finished run is asked for by those left out.
ALONE = benchmarks/gpu_% benchmarks/ppo_round% benchmarks/demo_table.py \
	benchmarks/gateway_overhead.py benchmarks/serve_load.py benchmarks/chaos_serving.py \
	benchmarks/rag_gain.py

bench: $(STAMP)
	@mkdir -p benchmarks/results
	@for file in $(filter-out $(ALONE),$(shell grep -l __main__ benchmarks/*.py)); do \
		name=$$(basename $$file .py); echo "== $$name"; \
		$(BIN)/python $$file | tee benchmarks/results/$$name.log; \
		tail -n 1 benchmarks/results/$$name.log > benchmarks/results/$$name.json; \
	done
