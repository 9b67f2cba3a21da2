# Two commands on a fresh machine: `make search` and `make test` create .venv, install, and run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: search test lint docs plugin molecules clean

search: $(STAMP)
	$(BIN)/qas search lih-4 --device fake_marrakesh --agent evolution --seconds 60 --seed 0

# Bytecode is kept whatever the environment says: else every process that a test starts compiles the package anew.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal -q

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/typecheck.py

# The pages in build/site. Warnings are errors; then every link of every page is followed.
docs: $(DOCS)
	rm -rf build/site
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html -c docs . build/site
	$(BIN)/python docs/site/links.py build/site

# The example of a package that adds to this one: installed into a folder of its own, tested by the public contracts.
plugin: $(STAMP)
	rm -rf build/plugin
	$(PIP) install --no-deps --no-build-isolation --target build/plugin ./examples/plugin
	PYTHONPATH=build/plugin $(BIN)/python -m pytest -q examples/plugin/tests

molecules: $(STAMP)
	$(BIN)/python scripts/make_molecules.py

# The pinned CPU build of torch comes first: asked for through a range, pip would take one with gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(PIP) install --constraint constraints.txt --editable ".[dev]"
	touch $@

$(DOCS): $(STAMP)
	$(PIP) install --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
