# `make` lists the targets. Everything lives in .venv and out; no root rights, no ROS and no GPU are needed.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
OUT := out/demo
HOURS ?= 1
# More arguments for pip, for instance another index: make demo PIP_ARGS="--extra-index-url URL"
PIP_ARGS ?=
PIP = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
# Of what pip prints, the packages as it comes to them; its warnings and errors go to stderr.
NAMES = sed -un 's/^Collecting \([^ ]*\).*/  \1/p; s/^Installing collected.*/  unpacking/p'

.PHONY: help install demo test test-slow test-ros campaign lint clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | column -t -s "$$(printf '\t')" 2>/dev/null \
	  || grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST)

install: $(VENV)/.installed-dev  ## create .venv and install BridgeTA with everything, also what its tests need

# What the demo and training need.
$(VENV)/.installed: setup.py constraints.txt
	@set -e -o pipefail; for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10); do \
	  if $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ] && [ -n "$(PYTHON)" ]; then \
	  echo "BridgeTA needs Python 3.10 to 3.13, which PYTHON=$(PYTHON) is not: $$($(PYTHON) --version 2>&1 | tail -n 1)" >&2; \
	  exit 1; fi; \
	if [ -z "$${found:-}" ]; then \
	  echo "BridgeTA needs Python 3.10 to 3.13 and found none. On Debian or Ubuntu: sudo apt install python3 python3-venv," >&2; \
	  echo "or name one: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	if ! $$found -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	  echo "$$found has no venv module. On Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; fi; \
	echo "Installing PyTorch into $(VENV) with $$($$found --version), then the rest"; \
	$$found -m venv $(VENV); \
	$(PIP) torch | $(NAMES); \
	echo "Installing BridgeTA and what it needs"; \
	$(PIP) -e '.[train]' | $(NAMES); \
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then $(PIP) --no-deps nuscenes-devkit | $(NAMES); fi
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the tools of the tests"
	@set -o pipefail; $(PIP) -e '.[train,dev]' | $(NAMES)
	@touch $@

demo: $(VENV)/.installed  ## synthesise a drive, put it into a ROS 2 bag, replay it through the network, write the report
	@$(BIN)/bridgeta demo $(OUT)

test: install  ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: install  ## run the few tests that take about a minute each
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)

test-ros: install  ## run the tests of the live node; needs a sourced ROS 2
	@$(BIN)/python -c 'import rclpy' 2>/dev/null || { echo "No rclpy for $(BIN)/python: source /opt/ros/DISTRO/setup.bash first" >&2; exit 1; }
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest test/ros $(ARGS)

campaign: install  ## kill, starve and deceive every command that writes for HOURS=1; needs strace
	@$(BIN)/python test/faults/campaign.py --hours $(HOURS) $(ARGS)

lint: install  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:  ## remove what the other targets made
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
