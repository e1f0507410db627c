# make test: everything that has to hold. make demo: the branching sample DAG in a real Airflow.

PYTHON ?= python3
# Which of Exa's APIs demo and chaos ask: websets or search.
API ?= $(or $(EXA_API),websets)
BIN := .venv/bin

.PHONY: test demo e2e-many e2e-trigger chaos bench bench-quick

.venv/.done: constraints.txt pyproject.toml setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

test: .venv/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

demo: .venv/.done
	EXA_API='$(API)' $(BIN)/python -m tests.e2e.demo

# 200 deferred sensors on 5 monitors, and a triggerer that is killed twice; about five minutes.
e2e-many: .venv/.done
	E2E_MONITORS=5 E2E_EACH=40 $(BIN)/python -m pytest tests/e2e/test_deferred.py -k triggerer_dies

# 20 rounds of two tasks that start a run, whose workers are killed before the wait; about three minutes.
e2e-trigger: .venv/.done
	E2E_TRIGGER_ROUNDS=20 $(BIN)/python -m pytest tests/e2e/test_trigger.py -k killed

# A real Airflow, disturbed 45 times, 30 of them by a kill of its triggerer; about half an hour.
chaos: .venv/.done
	$(BIN)/python -m tests.e2e.chaos --api '$(API)'

# The package beside its peers, which are installed for nothing else; about ten minutes.
.venv-bench/.done: constraints.txt pyproject.toml setup.cfg
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable . \
		apache-airflow-providers-dbt-cloud==4.11.1 apache-airflow-providers-http==6.3.0 exa-py==2.28.0
	touch $@

bench: .venv-bench/.done
	.venv-bench/bin/python -m benchmarks

bench-quick: .venv/.done
	$(BIN)/python -m benchmarks --quick
