# Two commands do it all on a fresh machine (Python 3.11, pip, gcc, g++, make):
#   make run [WATCH=FOLDER] [FILE=1]   install what is missing and keep a folder in order
#   make test                          install what is missing and run the tests

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Annoy is built here; portable code, not tuned to this processor.
ANNOY_FLAGS := -O3,-std=c++14,-DANNOYLIB_MULTITHREADED_BUILD

.PHONY: help install annoy run test check clean
.DEFAULT_GOAL := help

help:
	@echo "make run                  play a simulated camera and keep its folder in order"
	@echo "make run WATCH=FOLDER     keep FOLDER in order (FILE=1 also files its pictures)"
	@echo "make install              install the program into $(VENV)"
	@echo "make test                 run the tests"
	@echo "make check                lint, types, layers"
	@echo "make clean                remove $(VENV)"

install: $(VENV)/.installed annoy

$(VENV)/.locked: requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages (about 700 MB to fetch; some minutes on a slow line)"
	@$(PIP) --require-hashes -r requirements.lock
	@$(MAKE) --no-print-directory annoy
	@touch $@

# Annoy has no wheel: where it cannot be built one line says so, and everything else works.
annoy:
	@$(BIN)/python -c "import annoy" 2>/dev/null \
		|| ANNOY_COMPILER_ARGS=$(ANNOY_FLAGS) $(PIP) --no-cache-dir --no-build-isolation \
			--require-hashes -r requirements-annoy.lock > $(VENV)/annoy.log 2>&1 \
		|| echo "annoy could not be built (is g++ there?): 'similar' will use FAISS; see $(VENV)/annoy.log"

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/stillwatch encoders prepare
	@touch $@

$(VENV)/.tested: $(VENV)/.installed requirements-dev.lock
	@echo "installing the packages of the tests"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

run: $(VENV)/.installed
ifdef WATCH
	@exec $(BIN)/stillwatch run "$(WATCH)" $(if $(FILE),--file)
else
	@exec $(BIN)/stillwatch demo
endif

# On all cores; what changes the machine or measures time comes afterwards, alone.
test: $(VENV)/.tested
	@$(BIN)/python -m pytest -n auto --dist loadscope -m "not alone"
	@$(BIN)/python -m pytest -m alone

check: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf $(VENV)
