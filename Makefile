# Everything runs in an environment of its own; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
CASES ?= all
LOAD ?= 20
SECONDS ?= 60
OPTIONS ?=
EXTRAS = docs,embedded,test
BIN = $(VENV)/bin

.PHONY: help demo test docs chaos conformance fuzz bench lint clean

help:
	@echo "make demo [PORT=8000]   a chat: Django, websockets and Redis from one twistd"
	@echo "make test               all tests, a real Redis included"
	@echo "make docs               the documentation as HTML, in docs/_build/html"
	@echo "make chaos [LOAD=20]    the tests of outages with that much more load than make test"
	@echo "make conformance        the Autobahn Testsuite; needs a Python 2.7 (CASES=plain: without"
	@echo "                        compression, half a minute instead of 13)"
	@echo "make fuzz [SECONDS=60]  any bytes, from clients and from Redis, for that long each; needs"
	@echo "                        Linux and a CPython from 3.11 to 3.13, for atheris"
	@echo "make bench              all benchmarks, and docs/performance.md; half an hour; needs Linux and"
	@echo "                        a C compiler"
	@echo "                        (OPTIONS=--quick: a minute or two, to see that they run)"
	@echo "make lint               ruff and mypy"

$(VENV)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/.installed
	@cd examples/chatserver && $(abspath $(BIN))/python manage.py prepare_demo
	@cd examples/chatserver && exec $(abspath $(BIN))/twistd --nodaemon --pidfile= ws4redis \
		--settings chatserver.settings --serve-django --embedded-redis \
		--listen tcp:$(PORT):interface=127.0.0.1

test: $(VENV)/.installed
	$(BIN)/python -m pytest

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -q -W --keep-going -E -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

chaos: $(VENV)/.installed
	WS4REDIS_CHAOS=$(LOAD) $(BIN)/python -m pytest tests/programs/chaos

conformance: $(VENV)/.installed
	$(BIN)/python -m tests.conformance --cases $(CASES)

fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks $(OPTIONS)
	$(BIN)/python -m benchmarks.page

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-newest .venv-fuzz .venv-conformance build docs/_build dist *.egg-info _trial_temp*
