# One entry point for people and for CI. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What was installed: what compiles, what runs and is tested, what lint uses.
TOOLS := $(VENV)/.tools
STAMP := $(VENV)/.installed
LINT := $(VENV)/.lint
# More than cores, for the system tests mostly wait, and two for the two that wait for minutes;
# `make test WORKERS=0` is one after the other.
WORKERS ?= $(shell echo $$(($$(nproc) * 2 + 2)))
# Compiled files are kept whatever the surroundings say: services start and tests load faster.
unexport PYTHONDONTWRITEBYTECODE
FAST := $(wildcard zt/_fast/*.pyx zt/_fast/*.pxd zt/_fast/*.h zt/_fast/kernels/*.[ch])

.PHONY: help setup build demo run test bench lint deb format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18

$(TOOLS): ci/setup
	@ci/setup $(PYTHON) $(VENV) tools
	@touch $@

$(STAMP): $(TOOLS) pyproject.toml
	@ci/setup $(PYTHON) $(VENV) test
	@touch $@

$(LINT): $(STAMP)
	@ci/setup $(PYTHON) $(VENV) lint
	@touch $@

build/.built: $(TOOLS) setup.py $(FAST)
	@echo "building the extensions"
	@mkdir -p build
	@$(BIN)/python setup.py -q build_ext --inplace --parallel $$(nproc) >build/build.log 2>&1 || { tail -n 40 build/build.log; echo "the build failed; the whole log is build/build.log"; exit 1; }
	@touch $@

setup: $(STAMP)
build: $(TOOLS)  ## set up .venv and build the extensions in place
	@$(MAKE) -s -j2 $(STAMP) build/.built

demo: build  ## a private world in network namespaces: join, ping, 1 GiB over TCP (as root)
	@$(BIN)/python -m bench.demo $(ARGS)

run: build  ## a service in the foreground, home in ./home
	@mkdir -p home
	@$(BIN)/zerotier-one home

# Once, or every worker of the first run would compile every module for itself.
build/.collected: $(STAMP) build/.built
	@$(BIN)/python -m pytest --collect-only -q >build/collected.log || { tail -n 40 build/collected.log; exit 1; }
	@touch $@

test: build  ## every test; system tests need root
	@$(MAKE) -s build/.collected
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder $(ARGS)

bench: build  ## micro and end-to-end benchmarks; QUICK=1 for a short run
	@$(BIN)/python -m bench $(if $(QUICK),--quick)

lint: build $(LINT)  ## format, lint, types, import directions, Cython hints
	@ci/lint $(BIN)

deb:  ## a Debian package in dist/, for the release this runs on
	@packaging/deb/build

format: $(LINT)  ## rewrite the sources in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only .

clean:  ## remove what was built
	@rm -rf build dist .venv *.egg-info zt/_fast/*.so zt/_fast/*.c .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
