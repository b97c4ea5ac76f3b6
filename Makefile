# make demo    the main job on the sample CT, headless -> demo-output/
# make test    lint and tests (a virtual display is used where there is none)
# make lint    ruff, mypy, import-linter
# make figures the benchmark's pages and pictures, and the README's table, from their rows
# make benchmark-env    .venv-benchmarks with the papers' rivals (several GB, half an hour)
# make test-benchmarks  the tests that need them
# make test-slicer    .venv-slicer with 3D Slicer's core (1 GB), and the tests that need it
# make clean   remove the environment and everything that is generated
#
# Each target sets up .venv first when pyproject.toml or constraints.txt changed since.
# PYTHON=/path/to/python3.12 chooses the interpreter.

.PHONY: demo figures test lint clean benchmark-env test-benchmarks test-slicer
.NOTPARALLEL:
SHELL := /bin/sh
BIN := .venv/bin
NEED_PACKAGES := $(addprefix tests/training/test_,benchmark_packages.py quality.py release.py)
STAMP_NEEDS := pyproject.toml constraints.txt tools/setup.sh

demo: .venv/.ready-training
	$(BIN)/python -m diffseg_training.demo

figures: .venv/.ready-training
	$(BIN)/napari-diffseg-benchmark figures

test: lint
	tools/with-display.sh $(BIN)/python -m pytest

lint: .venv/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Apart from .venv, and without its constraints: torchvision dictates which torch it is.
benchmark-env: .venv-benchmarks/.ready

.venv-benchmarks/.ready: pyproject.toml
	$(or $(PYTHON),python3) -m venv .venv-benchmarks
	.venv-benchmarks/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable ".[benchmarks,test]"
	touch $@

test-benchmarks: .venv-benchmarks/.ready
	tools/with-display.sh .venv-benchmarks/bin/python -m pytest $(NEED_PACKAGES)

# Apart from .venv, because it brings a VTK of its own.
.venv-slicer/.ready:
	$(or $(PYTHON),python3) -m venv .venv-slicer
	.venv-slicer/bin/python -m pip install --quiet --disable-pip-version-check slicer-core
	touch $@

test-slicer: .venv/.ready-test .venv-slicer/.ready
	$(BIN)/python -m pytest tests/slicer

.venv/.ready-%: $(STAMP_NEEDS)
	PYTHON="$(PYTHON)" tools/setup.sh $*

clean:
	rm -rf .venv .venv-benchmarks .venv-slicer build dist demo-output *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find src training models tests -name __pycache__ -type d -prune -exec rm -rf {} +
