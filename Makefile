# make demo and make test prepare .venv by themselves; only python3 (3.11 or newer) with venv, make and iproute2 are needed.

# The distribution's Python before another one in PATH: what pyenv builds by itself lacks the optimisations by profile, and the
# daemon costs an eighth more with it. It has to be new enough and to have venv.
PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null \
  && echo /usr/bin/python3 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
LOCK := requirements.lock
CHARTS := $(VENV)/.charts
IMAGE ?= calico-bgpd:dev$(if $(TARGET),-$(TARGET))
TARGET ?=
UV ?= uv
ARGS ?=
KEEP ?=

.PHONY: help venv test lint demo demo-down bench count image lock clean

help:
	@echo "make demo      a small cluster in network namespaces; loses no packet while speakers are killed (KEEP=1: leave it up)"
	@echo "make demo-down remove what a demo with KEEP=1 left"
	@echo "make test      every test this machine can run (ARGS=... goes to pytest)"
	@echo "make lint      ruff and mypy"
	@echo "make bench     figures beside other daemons, with a verdict for each target, a chart and JSON (about 25 minutes)"
	@echo "make count     instructions of the reflector's hot path, against the committed baseline (needs valgrind)"
	@echo "make venv      only prepare $(VENV)"
	@echo "make image     build the container image calico-bgpd:dev (TARGET=node: calico-bgpd:dev-node, under runit, with BIRD's names)"
	@echo "make lock      resolve the lock files again (needs uv)"
	@echo "make clean     remove $(VENV) and caches"

venv: $(STAMP)

# The stamp is written last, so an interrupted installation is repeated.
$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is too old: Python 3.11 or newer is needed (make PYTHON=python3.12 ...)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@echo "preparing $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --diff . ; exit 1; }
	$(BIN)/ruff check .
	$(BIN)/mypy

demo: $(STAMP)
	@KEEP=$(KEEP) $(BIN)/python -m tests.lab.demo $(ARGS)

demo-down: $(STAMP)
	@$(BIN)/python -m tests.lab.demo --down

bench: $(STAMP) $(CHARTS)
	@mkdir -p build
	$(BIN)/python -m tests.bench --json build/bench.json --chart build/bench.png $(ARGS)

# Where the chart's library cannot be had, the table comes without a chart.
$(CHARTS): tests/bench/requirements.lock $(STAMP)
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<; then touch $@; fi

count: $(STAMP)
	$(BIN)/python -m tests.bench.count $(ARGS)

image:
	@tool=$$(command -v podman || command -v docker) \
	  || { echo "neither podman nor docker is installed: one of them builds the image" >&2; exit 2; }; \
	$$tool build -t $(IMAGE) $(if $(TARGET),--target $(TARGET)) -f containers/Containerfile .

# --universal: one file for every Python from 3.11 on, with markers where versions differ.
lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra dev pyproject.toml -o $(LOCK)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra uvloop --extra etcd3 -c $(LOCK) pyproject.toml -o containers/requirements.lock
	echo "matplotlib>=3.8" | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  -c $(LOCK) - -o tests/bench/requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
