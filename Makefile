.DEFAULT_GOAL := help
.PHONY: help install demo test check format

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

test: $(STAMP)  ## all tests, a file at a time on each core
	$(BIN)/pytest --numprocesses auto --dist loadfile

check: $(STAMP)  ## linters; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## let the linters mend what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
