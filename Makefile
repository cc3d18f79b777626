.DEFAULT_GOAL := help
.PHONY: help install demo test quick check format

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help:  ## what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python 3.11 or newer is needed; this is {v.major}.{v.minor}" if v < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $(STAMP)

install: $(STAMP)  ## the environment in .venv, with everything that demo and tests need

demo: $(STAMP)  ## make a clip from a public-domain photo and run the whole job on it
	$(BIN)/mma-mrnnet demo --out demo_output

test: $(STAMP)  ## all tests, on every core
	$(BIN)/pytest --numprocesses auto --dist worksteal

quick: $(STAMP)  ## the tests that take less than a few seconds each
	$(BIN)/pytest --numprocesses auto --dist worksteal -m "not slow"

check: $(STAMP)  ## linters and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let the linters mend what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
