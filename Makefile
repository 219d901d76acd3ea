# Everything here sets itself up: a virtual environment in .venv with the pinned packages.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

NEWEST ?= python3.12

.PHONY: phase paper test test-newest lint bench docs lock clean

phase: $(STAMP)
	$(RUN) -m experiments.phase --flagfile=experiments/flagfiles/phase.flags

paper: $(STAMP)
	$(RUN) -m experiments.paper --scale=laptop

test: $(STAMP) lint
	$(RUN) -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# The kernels under the newest JAX, which needs Python 3.12.
test-newest:
	$(MAKE) VENV=.venv-newest PYTHON=$(NEWEST) .venv-newest/.installed
	.venv-newest/bin/python -m pytest --numprocesses=2 tests/test_kernels.py

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP)
	$(RUN) -m benchmarks.simulation
	$(RUN) -m benchmarks.dimensions
	$(RUN) -m benchmarks.kernel
	$(RUN) -m benchmarks.optimizers
	$(RUN) -m benchmarks.startup
	$(RUN) -m benchmarks.drift
	$(RUN) -m benchmarks.monitor
	$(RUN) -m benchmarks.networks
	$(RUN) -m benchmarks.scale --check

docs: $(STAMP)
	$(RUN) -m sphinx -W --keep-going -q -d out/doctrees docs out/docs
	@echo wrote out/docs/index.html

# Resolves the packages that pyproject.toml allows, the newest with UPGRADE=--upgrade; commit the result.
lock: $(STAMP)
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip compile --quiet --universal $(UPGRADE) --python-version 3.11 --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links --extra networks --extra test --extra notebooks \
	  --extra docs --extra certify --output-file requirements.lock pyproject.toml

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) .venv-newest build docs/extra docs/notebooks *.egg-info .mypy_cache .ruff_cache .hypothesis
