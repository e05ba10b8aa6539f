# What a developer calls. CI calls `make test`, too (.ci/run).
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup test test-all check coverage documents docs demo picture reliability floors audit wheel release clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Create .venv with everything, in the tested versions

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[training,export,dev,docs]'
	touch $@

# Tests are small and many: one thread each is fastest, and none may need the network.
test test-all: export OMP_NUM_THREADS = 1
test test-all: export HF_HUB_OFFLINE = 1

test: check ## Check style and types, run the fast tests
	$(BIN)/python -m pytest -m "not slow"

test-all: check ## Check style and types, run every test
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: export OMP_NUM_THREADS = 1
coverage: export HF_HUB_OFFLINE = 1
coverage: setup ## Run the fast tests, list the lines that none of them reaches
	$(BIN)/python -m coverage run -m pytest -m "not slow"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

documents: export HF_HUB_OFFLINE = 1
documents: setup ## Write README's table, cards and all tables anew from the committed results
	$(BIN)/python benchmarks/card_pictures.py
	$(BIN)/python -m osdtw_export.documents
	for results in benchmarks/results/*/; do \
		$(BIN)/osdtw-benchmark benchmarks/$$(basename $$results).toml --table || exit 1; done
	for tables in proxy inference scale experiments reliability; do \
		$(BIN)/python benchmarks/$${tables}_tables.py || exit 1; done

docs: export HF_HUB_OFFLINE = 1
docs: setup ## Build the documentation into build/site; warnings are errors
	$(BIN)/python -m sphinx -E -q -W --keep-going -d build/doctrees docs build/site

demo: setup ## Train, search, evaluate and export a small network
	$(BIN)/python -m osdtw_training.demo

picture: ## Take README's picture of a report, after `make demo`; needs Chromium
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1000,950 --screenshot=docs/images/report.png runs/demo/osdtw/report.html

reliability: export OMP_NUM_THREADS = 1
reliability: export HF_HUB_OFFLINE = 1
reliability: setup ## Kill, cut, flip, fill and load it, and write docs/reliability.md
	for study in kill publishing stop saves writers repeatability hostile load; do \
		$(BIN)/python benchmarks/reliability/$$study.py || exit 1; done
	$(BIN)/python benchmarks/reliability/mutation.py
	$(BIN)/python benchmarks/reliability_tables.py

# The environment of `make setup` stays; torch and what has no floor of its own are seen from there.
FLOORS := .floors/bin/python
floors: export OMP_NUM_THREADS = 1
floors: export HF_HUB_OFFLINE = 1
floors: setup ## Test reading files on the lowest versions allowed (needs the network)
	$(PYTHON) -m venv --clear .floors
	$(FLOORS) -m pip install --quiet -r constraints-floors.txt
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$($(FLOORS) -c 'import site; print(site.getsitepackages()[0])')/above.pth"
	$(FLOORS) -m pytest -m "not slow" tests/models/test_load.py tests/models/test_saved_files.py tests/models/test_pixels.py \
		tests/training/test_recipe.py tests/export/test_guard.py tests/export/test_runtime.py

audit: setup ## Look for known holes in the tested versions (needs the network)
	$(PYTHON) -m venv --clear .audit
	.audit/bin/python -m pip install --quiet pip-audit
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

wheel: setup ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build --no-isolation

release: setup ## Publish every packaged checkpoint on the Hugging Face Hub (needs `hf auth login`)
	$(BIN)/python -m osdtw_export.release

clean: ## Remove what tools left behind; .venv and runs/ stay
	rm -rf build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +
