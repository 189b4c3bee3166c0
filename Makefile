# Every target sets up .venv by itself; a second call finds it up to date and skips.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test not-slow test-all fast lint format bench up down multihost clean

demo: $(READY)
	$(BIN)/nightshift demo

# Three workers for two cores: tests with Ray wait more than they compute.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --durations 15

# Style and types beside the tests: most of those wait now and then.
test: $(READY)
	$(MAKE) --no-print-directory --jobs 2 lint not-slow

not-slow: $(READY)
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

fast: $(READY)
	$(BIN)/pytest -m "not ray and not browser and not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m tests.bench

up: $(READY)
	$(BIN)/python -m infra.laptop up

down: $(READY)
	$(BIN)/python -m infra.laptop down

multihost: $(READY)
	$(BIN)/python -m tests.bench.multihost

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

# uv comes from pip, into the environment that it then fills. Compiled once: every worker of Ray is
# a new process, and PYTHONDONTWRITEBYTECODE, common in containers, would have each compile it all.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
