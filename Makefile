# make demo    the main job on the sample CT, without a screen -> demo-output/
# make test    lint and tests (a virtual screen is used where there is no display)
# make lint    ruff, mypy, import-linter
# make clean   remove the environment and everything that is generated
#
# Each target sets up .venv first when pyproject.toml or constraints.txt changed since.
# PYTHON=/path/to/python3.12 chooses the interpreter.

.PHONY: demo test lint clean
.NOTPARALLEL:
SHELL := /bin/sh
BIN := .venv/bin
STAMP_NEEDS := pyproject.toml constraints.txt tools/setup.sh

demo: .venv/.ready-training
	$(BIN)/python -m diffseg_training.demo

test: lint
	tools/with-display.sh $(BIN)/python -m pytest

lint: .venv/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/.ready-%: $(STAMP_NEEDS)
	PYTHON="$(PYTHON)" tools/setup.sh $*

clean:
	rm -rf .venv build dist demo-output *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find src training models tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
