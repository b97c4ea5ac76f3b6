# make demo    the main job on the sample CT, headless -> demo-output/
# make test    lint and tests (a virtual display is used where there is none)
# make lint    ruff, mypy, import-linter, spelling, workflows
# make docs    the documentation's site, warnings and dead links in it are errors -> site/
# make figures the benchmark's pages and pictures, and the README's table, from their rows
# make clean   remove the environments and everything that is generated
#
# For a release:
# make dist            sdist and wheel, checked -> dist/
# make check-files     Dockerfile, shell scripts, citation, pyproject.toml, conda recipe
# make test-release    the wheel in empty environments, with and without each extra
# make lock            requirements/test.txt, what CI installs
# make test-locked     the tests with what is locked
# make test-lowest     the tests with the oldest dependencies that pyproject.toml allows; PyTorch is
#                      that of constraints.txt
# make test-prerelease the tests with napari's next version
# make audit           known vulnerabilities of what is locked
# make strings         translations/napari-diffseg.pot, all that the program says
# make licences        docs/licences.md, the licences of what is installed with us
#
# For the benchmark:
# make benchmark-env   .venv-benchmarks with the papers' rivals (several GB, half an hour)
# make test-benchmarks the tests that need them
#
# make test-slicer     .venv-slicer with 3D Slicer's core (1 GB), and the tests that need it
#
# Each target sets up its environment first when pyproject.toml or constraints.txt changed since.
# PYTHON=/path/to/python3.12 chooses the interpreter, WORKERS=4 the processes that test.

.PHONY: demo figures test lint docs dist check-files test-release lock test-locked test-lowest \
	test-prerelease audit licences strings clean benchmark-env test-benchmarks test-slicer
.NOTPARALLEL:
SHELL := /bin/sh
BIN := .venv/bin
# Two processes, for much of the suite waits; the tests of a file stay in one of them.
TESTS := -m pytest -n $(or $(WORKERS),2) --dist loadfile
SYSTEM_PYTHON = $(or $(PYTHON),python3)
NEED_PACKAGES := $(addprefix tests/training/test_,benchmark_packages.py quality.py release.py)
STAMP_NEEDS := pyproject.toml constraints.txt tools/setup.sh

demo: .venv/.ready-training
	$(BIN)/python -m diffseg_training.demo

figures: .venv/.ready-training
	$(BIN)/napari-diffseg-benchmark figures

test: lint
	tools/with-display.sh $(BIN)/python $(TESTS)

lint: .venv/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet --no-progress .github
	$(BIN)/python tools/strings.py --check

# The catalogue of what the program says, for translations.
strings: .venv/.ready-test
	$(BIN)/python tools/strings.py

licences: .venv/.ready-test
	$(BIN)/python tools/licences.py docs/licences.md

docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	.venv-docs/bin/lychee --offline --no-progress --quiet --root-dir "$(CURDIR)/site" \
		'site/**/*.html'

dist: .venv-release/.ready
	rm -rf dist build
	.venv-release/bin/python -m build --outdir dist
	.venv-release/bin/twine check --strict dist/*
	.venv-release/bin/check-wheel-contents dist
	.venv-release/bin/python tools/check_dist.py dist

check-files: .venv-release/.ready
	.venv-release/bin/hadolint Dockerfile
	.venv-release/bin/shellcheck tools/*.sh .ci/run
	.venv-release/bin/cffconvert --validate --infile CITATION.cff
	.venv-release/bin/validate-pyproject pyproject.toml
	.venv-release/bin/python -c 'from rattler_build import Stage0Recipe as recipe; \
		print(*recipe.from_file("recipe/recipe.yaml").render())'

test-release: dist
	$(SYSTEM_PYTHON) tools/try_wheel.py dist

# Without torch and what it brings for CUDA: those are the machine's, and constraints.txt's.
lock: .venv-release/.ready
	mkdir -p requirements
	.venv-release/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
		--extra test --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		pyproject.toml | sed -E '/^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z]*)[= ]/d' \
		> requirements/test.txt

audit: .venv-release/.ready
	.venv-release/bin/pip-audit --strict --no-deps --disable-pip -r requirements/test.txt

test-locked: .venv-locked/.ready
	tools/with-display.sh .venv-locked/bin/python $(TESTS)

test-lowest: .venv-lowest/.ready
	tools/with-display.sh .venv-lowest/bin/python $(TESTS)

test-prerelease: .venv-prerelease/.ready
	tools/with-display.sh .venv-prerelease/bin/python $(TESTS)

.venv-locked/.ready: requirements/test.txt constraints.txt
	$(SYSTEM_PYTHON) -m venv .venv-locked
	.venv-locked/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --requirement requirements/test.txt
	.venv-locked/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv-lowest/.ready: pyproject.toml constraints.txt
	$(SYSTEM_PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --constraint constraints.txt --editable ".[test]"
	touch $@

.venv-prerelease/.ready: pyproject.toml constraints.txt
	$(SYSTEM_PYTHON) -m venv .venv-prerelease
	.venv-prerelease/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[test]"
	.venv-prerelease/bin/python -m pip install --quiet --pre --upgrade \
		--constraint constraints.txt napari
	touch $@

.venv-docs/.ready: pyproject.toml
	$(SYSTEM_PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade pip
	.venv-docs/bin/python -m pip install --quiet --group docs
	touch $@

.venv-release/.ready: pyproject.toml
	$(SYSTEM_PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet --upgrade pip
	.venv-release/bin/python -m pip install --quiet --group release
	touch $@

# Apart from .venv, and without its constraints: torchvision dictates which torch it is.
benchmark-env: .venv-benchmarks/.ready

.venv-benchmarks/.ready: pyproject.toml
	$(SYSTEM_PYTHON) -m venv .venv-benchmarks
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
	rm -rf .venv .venv-* build dist site demo-output *.egg-info .pytest_cache .mypy_cache \
		.ruff_cache .import_linter_cache .hypothesis
	find src training models tests -name __pycache__ -type d -prune -exec rm -rf {} +
