VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint bench gpu-bundle clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## the bundled recording through the whole chain, beside its truth
	$(BIN)/seldrt replay --demo --fast

test: install
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
