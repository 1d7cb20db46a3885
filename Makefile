# make test and make reproduce-table1 set up what they need; nothing has to be typed before them.
PYTHON ?= python3
SEEDS ?= 1
VENV := .venv
BIN := $(VENV)/bin
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed

.PHONY: setup test lint format docs dist reproduce-table1 clean

setup: $(INSTALLED)

# setuptools warns of every editable install that a folder could shadow the package; none here is named semires.
INSTALL = PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --constraint constraints.txt

$(RUNNABLE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) --editable .
	touch $@

# What developing needs beside it: tests, linters, every optional format.
$(INSTALLED): $(RUNNABLE)
	$(INSTALL) --editable '.[dev]'
	touch $@

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# mypy needs files at their import names: links give it semires itself, semires/pipeline, semires/stages, semires/cache.
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/typing/semires
	for folder in pipeline stages cache; do ln -sfn ../../../$$folder build/typing/semires/$$folder; done
	for file in __init__ __main__; do ln -sfn ../../../pipeline/api/$$file.py build/typing/semires/$$file.py; done
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/ as a site, build/docs/index.html; a link to nowhere is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# What is given away: sdist and wheel, checked, and the wheel installed without the repository.
dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest -m slow tests/test_distribution.py

# SEEDS=3 runs every cell three times and prints mean and standard deviation. The page is written of what there is, also
# where a data set could not be measured.
reproduce-table1: $(RUNNABLE)
	$(BIN)/semires table1 --seeds $(SEEDS); measured=$$?; \
	$(BIN)/semires report table1 --seeds $(SEEDS) && exit $$measured

# Data sets, stores and runs stay: they are hours of work. Remove data/, runs/ and reports/ by hand.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
