# Everything one does with this repository. Works with GNU make 3.81, which is what macOS has.
#
# Nothing but a Python (3.11 to 3.13) has to be there: the targets make their own environment once,
# from pinned versions, and make it again when the pins change.

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# Twice quiet: only errors are shown.
PIP := $(PY) -m pip -qq --disable-pip-version-check
# Nothing is resolved or built unpinned: every file has its hash, setuptools is one of them.
INSTALL := $(PIP) install --no-warn-script-location --no-build-isolation
SOURCES := orchestrator migrations tests benchmarks
SEEDS := 200
MINUTES := 10
# The tests of the pure core cover it whole by themselves; the others wait more than they work.
PURE := tests/core tests/providers
# These start a dozen daemons and kill or freeze them, or boot a machine: one at a time.
APART := tests/crash tests/service
WORKERS := 3

.DEFAULT_GOAL := help
.PHONY: help run install uninstall test check fmt fmt-check lint types arch tidy sim mutants chaos bench \
  lock clean
.DELETE_ON_ERROR:

help: ## show this
	@awk 'BEGIN { FS = ":.*## "; print "usage: make TARGET\n" } \
	  /^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

## environment

$(PY):
	@constraints/environment $(VENV)

# The package itself is installed in place, so the sources are what runs.
$(VENV)/run.stamp: constraints/run.txt pyproject.toml | $(PY)
	@echo "installing what the daemon needs"
	@$(INSTALL) --require-hashes -r constraints/run.txt
	@$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/dev.stamp: constraints/dev.txt $(VENV)/run.stamp
	@echo "installing what the tests and the tools need"
	@$(INSTALL) --require-hashes -r constraints/dev.txt
	@touch $@

## use

run: $(VENV)/run.stamp ## the daemon, simulated vendors and three example tasks, until Ctrl-C
	@$(BIN)/orchestrator dev

install: ## as a service, for all users; PREFIX=/usr/local DESTDIR= PYTHON=
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' PYTHON='$(PYTHON)' systemd/install

uninstall: ## remove what install made; the configuration and the database stay
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' systemd/uninstall

## judge

# The gate on coverage only means something for a whole suite, so a part of it is not held to it.
test: $(VENV)/dev.stamp ## the whole suite on SQLite and Postgres; a part: PYTEST_ARGS="tests/core -x"
ifeq ($(strip $(PYTEST_ARGS)),)
	@$(PY) -m coverage run -m pytest --quiet $(PURE)
	@$(PY) -m coverage report --fail-under=100 --skip-covered --show-missing \
	  --include='orchestrator/core/*,orchestrator/providers/*'
	@$(PY) -m pytest --numprocesses $(WORKERS) --dist worksteal $(addprefix --ignore=,$(PURE) $(APART))
	@$(PY) -m pytest $(APART)
else
	@$(PY) -m pytest $(PYTEST_ARGS)
endif

check: fmt-check lint types arch tidy ## everything that needs no run: format, lint, types, imports, house rules

fmt: $(VENV)/dev.stamp ## format the sources in place
	@$(BIN)/ruff format $(SOURCES)

fmt-check: $(VENV)/dev.stamp ## fail if `make fmt` would change anything
	@$(BIN)/ruff format --check $(SOURCES)

lint: $(VENV)/dev.stamp ## ruff, all rules
	@$(BIN)/ruff check $(SOURCES)

types: $(VENV)/dev.stamp ## mypy, strict
	@$(BIN)/mypy

arch: $(VENV)/dev.stamp ## who may import whom
	@$(BIN)/lint-imports --no-logo

tidy: $(VENV)/dev.stamp ## the house rules that no linter knows
	@$(PY) -m pytest --quiet tests/test_tidy.py tests/test_house.py

## explore

sim: $(VENV)/dev.stamp ## the core against a faulty world: 200 seeds, or one: make sim SEED=42
	@$(PY) -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

mutants: $(VENV)/dev.stamp ## deliberately wrong cores, each of which the simulation must catch
	@$(PY) -m tests.simulation --mutants

# By its exit code: 1 if a promise was broken.
chaos: $(VENV)/dev.stamp ## everything goes wrong at once: 10 minutes on each database; SEED= MINUTES= DATABASE=
	@$(PY) -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
	  $(if $(DATABASE),--database $(DATABASE))

bench: $(VENV)/dev.stamp ## speed and memory, as ratios to a bare loop
	@$(PY) -m benchmarks

## keep

lock: ## pin the dependencies anew (needs uv, and is the only target that does)
	@constraints/lock

clean: ## remove the environment, the caches and the demo database
	@rm -rf $(VENV) var build dist *.egg-info .coverage .coverage.* \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
