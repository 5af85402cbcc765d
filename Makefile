# Two commands do everything on a machine with git, make and Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test check prove format clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("fuserank needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,postgres,otel,dev]'
	touch $@

demo: $(VENV)/.ready  ## every stage on the generated shop, then a served answer to each kind of question
	$(BIN)/fuserank demo $(ARGS)

test: $(VENV)/.ready  ## the test suite
	$(BIN)/python -m pytest -m 'not prove' $(ARGS)

check: $(VENV)/.ready  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

prove: $(VENV)/.ready  ## the long proofs
	$(BIN)/python -m pytest -m prove $(ARGS)

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf runs .pytest_cache .ruff_cache .hypothesis
