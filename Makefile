# What a newcomer types: `make smoke` (a first look), `make course`, `make test`, `make lab`.
# Everything happens in .venv, which is made on the first call and left alone afterwards.

PROFILE   ?= course
NOTEBOOKS ?= *
ARGS      ?=
PYTHON    ?=

# Windows has no bin/: there the README's plain lines do the same
BIN       := .venv/bin
READY     := .venv/.ready
# names to try; each is run, because a name on the PATH may be a shim that cannot run
CANDIDATES := $(PYTHON) python3 python3.13 python3.12 python3.11 python

.PHONY: help smoke course test lab bench lint clean
.DEFAULT_GOAL := help

help:
	@echo "make smoke                 every notebook on a tiny data set: the quick first look"
	@echo "make course                the whole course on the embedded data set (minutes per notebook; says how long first)"
	@echo "make course PROFILE=smoke NOTEBOOKS='02*'   one profile, some notebooks"
	@echo "make test                  all tests, doctests included"
	@echo "make lab                   open JupyterLab on the notebooks"
	@echo "make bench                 speed and memory, as ratios within one run (about 10 minutes)"
	@echo "make lint                  ruff over library, tests and notebooks"

$(READY): requirements.txt pyproject.toml
	@if $(BIN)/python -c 'import ssl, pip' >/dev/null 2>&1; then exit 0; fi; \
	found=""; old=""; \
	for candidate in $(CANDIDATES); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  if $$candidate -c 'import sys' >/dev/null 2>&1; then old="$$old $$candidate"; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: no Python 3.11 or newer runs here (tried:$(foreach c,$(CANDIDATES), $(c));$${old:+ too old:$$old;} name one with: make PYTHON=/path/to/python3)" >&2; exit 1; fi; \
	if ! $$found -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	  echo "error: $$found has no venv module (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; fi; \
	echo "setting up .venv with $$found: about 2 GB on disk, once"; \
	$$found -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

smoke: $(READY)
	@$(BIN)/python -m reidlib run --profile smoke $(ARGS) $(foreach p,$(NOTEBOOKS),'$(p)')

course: $(READY)
	@$(BIN)/python -m reidlib run --profile $(PROFILE) $(ARGS) $(foreach p,$(NOTEBOOKS),'$(p)')

test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lab: $(READY)
	@$(BIN)/python -m jupyterlab notebooks $(ARGS)

bench: $(READY)
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only -s $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

clean:
	rm -rf runs data/.cache data/procedural
