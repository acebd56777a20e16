# Two commands do everything on a machine with Python 3.11+, pip, a C compiler and make.
#   make sweep   create .venv, run the main job on the embedded phantom cohort, print the report's place
#   make test    create .venv with the test extra, run the tests, in JOBS processes
# The compiler builds PyRadiomics; wheel-test does without. Versions are those of constraints.txt.
# With HASHES=1 every file that is installed must have the SHA-256 that requirements/ names.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

.DEFAULT_GOAL := help
.PHONY: help sweep test test-fast calibration lint docs wheel-test lock clean

help:
	@echo "make sweep        run the main job on the embedded phantom cohort (ARGS='--quick' and others are passed on)"
	@echo "make test         run the tests (ARGS='tests/test_decoder.py -x' and others are passed on)"
	@echo "make test-fast    run the tests that need neither whole jobs nor training, for each change (ARGS as above)"
	@echo "make calibration  run what draws many cohorts to measure alarms, power and coverage"
	@echo "make lint         ruff and pyright, and the site built strictly"
	@echo "make docs         build the documentation site into site/"
	@echo "make wheel-test   build the wheel, install it into a new environment, run it from elsewhere"
	@echo "make lock         write requirements/ from pyproject.toml and constraints.txt (needs uv)"
	@echo "make clean        delete the environment (run folders stay)"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(if $(HASHES),$(BIN)/python -m pip install --quiet --require-hashes -r requirements/sweep.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[radiomics]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(VENV)/.run
	$(if $(HASHES),$(BIN)/python -m pip install --quiet --require-hashes -r requirements/test.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs,dev]'
	@touch $@

sweep: $(VENV)/.run
	$(BIN)/python -m experiments.sweep $(ARGS)

# A process per core: more threads of each would wait for each other.
# Programs that JAX compiles are kept in .pytest_cache, and compiled Python files whatever the
# environment says: the first run takes longer.
TESTS := PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

test: $(VENV)/.test
	$(TESTS) -m "not calibration" $(ARGS)

test-fast: $(VENV)/.test
	$(TESTS) -m "not slow" $(ARGS)

calibration: $(VENV)/.test
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(TESTS) -m calibration $(ARGS)

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pyright --project pyright-tests.toml
	$(MKDOCS) build --site-dir $(VENV)/site

# Strict: a link, an anchor or a page that is not in the navigation is an error. Nothing is fetched.
docs: $(VENV)/.docs
	$(MKDOCS) build
	@echo "site/index.html; with the search: python3 -m http.server --directory site"

wheel-test: $(VENV)/.test
	$(BIN)/python -m tests.wheel_check

lock: requirements/sweep.txt requirements/test.txt
requirements/sweep.txt: EXTRA := radiomics
requirements/test.txt: EXTRA := test
requirements/%.txt: pyproject.toml constraints.txt
	uv pip compile pyproject.toml --extra $(EXTRA) --constraint constraints.txt --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o $@.new
	{ echo "# What make $* installs, each file by its SHA-256: pip install --require-hashes -r $@"; \
		echo "# Written by make lock from pyproject.toml and constraints.txt."; cat $@.new; } > $@
	rm $@.new

clean:
	rm -rf $(VENV)
