# `make help` lists the targets. `make test` and `make demo` need no other set-up.

PYTHON ?= python3
# Which of Exa's APIs demo and chaos ask: websets or search.
API ?= $(or $(EXA_API),websets)
MINUTES ?= 10
MODULE ?= airflow_provider_exa/waiting/progress.py
BIN := .venv/bin

PYTEST := $(BIN)/python -m pytest
# Tests that wait for sockets more than they compute; those that start Airflow or pip run one after another.
PARALLEL := -n 2

.PHONY: help lint quick unit test demo e2e-many e2e-trigger chaos soak mutants bench bench-quick

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-20s %s\n", $$1, $$2 }'

.venv/.done: constraints.txt pyproject.toml setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: .venv/.done ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quick: lint ## lint, format, types and the tests without sockets or processes (half a minute)
	$(PYTEST) -q $(PARALLEL) -m pure

unit: .venv/.done ## all tests without a real Airflow (about five minutes)
	$(PYTEST) $(PARALLEL) -m 'pure or http'
	$(PYTEST) -m package

test: lint unit ## everything that has to hold: lint, types, all tests (a quarter of an hour)
	$(PYTEST) -m e2e

demo: .venv/.done ## the branching sample DAG in a real Airflow (API=websets or API=search)
	EXA_API='$(API)' $(BIN)/python -m tests.e2e.demo

e2e-many: .venv/.done ## 200 deferred sensors on 5 monitors, and a triggerer that is killed twice (five minutes)
	E2E_MONITORS=5 E2E_EACH=40 $(BIN)/python -m pytest tests/e2e/test_deferred.py -k triggerer_dies

e2e-trigger: .venv/.done ## 20 rounds of tasks whose workers are killed between trigger and wait (three minutes)
	E2E_TRIGGER_ROUNDS=20 $(BIN)/python -m pytest tests/e2e/test_trigger.py -k killed

chaos: .venv/.done ## a real Airflow, disturbed 45 times, 30 of them by a kill of its triggerer (half an hour)
	$(BIN)/python -m tests.e2e.chaos --api '$(API)'

soak: .venv/.done ## 1,000 waits and 20 assets in one event loop under random faults (MINUTES=10)
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

mutants: .venv/.done ## which changes of a module no test notices (MODULE=airflow_provider_exa/waiting/progress.py)
	$(BIN)/python -m tests.mutants $(MODULE)

# Its peers are installed for the benchmarks alone.
.venv-bench/.done: constraints.txt pyproject.toml setup.cfg
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable . \
		apache-airflow-providers-dbt-cloud==4.11.1 apache-airflow-providers-http==6.3.0 exa-py==2.28.0
	touch $@

bench: .venv-bench/.done ## the package beside its peers, in numbers (ten minutes)
	.venv-bench/bin/python -m benchmarks

bench-quick: .venv/.done ## check that the benchmarks still run
	$(BIN)/python -m benchmarks --quick
