PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint bench soak gpu-bundle clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("needs Python 3.11 or later: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## the bundled recording through the whole chain, beside its truth
	$(BIN)/seldrt replay --demo --fast

test: install
	$(BIN)/pytest -n 3 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## figures side by side: CPU time on one thread, medians of interleaved rounds
	$(BIN)/python -m benchmarks $(if $(JSON),--json $(JSON))

soak: install  ## MINUTES=30 of live capture on a virtual microphone, with faults; needs PulseAudio
	$(BIN)/python -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES))

gpu-bundle: install  ## EVENTS=sounds [CONFIG=my.toml] [RUNS="out/sed ..."] [WEIGHTS_ONLY=1]
	$(if $(EVENTS),,$(error which sounds? make gpu-bundle EVENTS=path/to/sounds))
	$(BIN)/offline bundle --events $(EVENTS) $(if $(CONFIG),--config $(CONFIG)) $(foreach run,$(RUNS),--run $(run)) $(if $(WEIGHTS_ONLY),--weights-only)

clean:
	rm -rf $(VENV) build dist *.egg-info
