# The front door. Each target creates .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup services demo test check bench clean

help:
	@echo "make setup   create .venv with everything a local user needs"
	@echo "make services   install PostgreSQL, Chromium and faketime, which some tests need (Debian, root)"
	@echo "make demo    make a world, train, evaluate, print the table (under 8 minutes)"
	@echo "make test    run all tests"
	@echo "make check   format, lint and types"
	@echo "make bench   measure speed and memory on this machine"

setup: .venv/ready

.venv/ready: requirements.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

services:
	@command -v chromium >/dev/null && command -v faketime >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || \
	  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql chromium faketime)

demo: setup
	$(BIN)/nextbuy demo

test: setup
	$(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks

bench: setup
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
