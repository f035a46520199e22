# make demo   set everything up and run the main job on clips rendered here
# make test   the tests and the linters, in the same environment (WORKERS=2: in two processes, not three)
#
# Needs Python 3.11 or 3.12 with venv, and PyPI. Another interpreter: make demo PYTHON=/path/to/python3.11

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Processes that run tests side by side; each takes up to 2 GB.
WORKERS ?= 3

.PHONY: help demo test test-all test-peers lint bench docs clean

help:
	@echo "make demo      set everything up in $(VENV), run the main job on clips rendered here"
	@echo "make test      the tests and the linters; make test-all adds the slow ones and torch"
	@echo "make test-peers  exports in the readers of other packages, in an environment of their own (8 GB)"
	@echo "make bench     measure extraction on this machine (minutes)"
	@echo "make lint      the linters alone: ruff and mypy"
	@echo "make docs      write docs/settings.md again, from the settings' own definitions"
	@echo "make clean     remove $(VENV), the demo and the caches"

demo: $(READY)
	@$(BIN)/handloom demo --out handloom-demo

LINT := $(BIN)/ruff check --output-format concise . && $(BIN)/mypy

# Tests start more than a hundred processes: each would compile the package again where Python may not keep bytecode.
test test-all: export PYTHONDONTWRITEBYTECODE :=

test: $(READY)
	@$(BIN)/pytest -q -n $(WORKERS)

test-all: $(READY)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[extract,models,dev]'
	@$(BIN)/pytest -q -n $(WORKERS) -m "slow or not slow"

# lerobot wants other versions of numpy, pyarrow and av than extraction does. PEERS_PIP: more arguments for pip.
PEERS := .venv-peers
PEERS_PIP ?=

test-peers: $(READY) $(PEERS)/.ready
	@rm -rf $(PEERS)/exports
	@$(BIN)/python tests/peers/export_for_peers.py $(PEERS)/exports
	@HF_HOME=$(PEERS)/huggingface $(PEERS)/bin/python tests/peers/lerobot_reads.py $(PEERS)/exports

$(PEERS)/.ready:
	@"$(PYTHON)" -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet $(PEERS_PIP) 'lerobot==0.4.4'
	@touch $@

lint: $(READY)
	@$(LINT)

bench: $(READY)
	@$(BIN)/handloom bench extract --save benchmarks/results

docs: $(READY)
	@$(BIN)/python docs/make_settings.py > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

clean:
	rm -rf $(VENV) $(PEERS) handloom-demo build src/handloom.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# mediapipe asks for opencv-contrib-python, whose windows need libGL.so.1: a bare server has none. handloom opens no
# windows, so there the same version without them takes its place (both removed first: they fill one folder, and
# installing again after a change of pyproject.toml brings the other back).
$(READY): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "handloom needs Python 3.11 or 3.12, $(PYTHON) is another: make demo PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "this Python has no venv; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "1/3  making the environment $(VENV)"
	@"$(PYTHON)" -m venv $(VENV)
	@echo "2/3  fetching and installing packages, 3.9 GB on disk: some minutes; each is named when it is looked up"
	@{ $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --editable '.[extract,dev]'; \
		echo $$? > $(VENV)/.pip; } | \
		sed -nu 's/^Collecting \([^ ]*\).*/     \1/p; s/^Installing collected.*/     unpacking all of them: a minute or two/p'; \
		exit $$(cat $(VENV)/.pip)
	@echo "3/3  trying OpenCV"
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		version=$$($(BIN)/python -c 'from importlib.metadata import version; print(version("opencv-contrib-python"))') && \
		echo "no libGL on this machine: OpenCV without windows takes the place of opencv-contrib-python $$version" && \
		$(BIN)/python -m pip uninstall --disable-pip-version-check --quiet --quiet --yes \
			opencv-contrib-python opencv-contrib-python-headless && \
		$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps "opencv-contrib-python-headless==$$version" && \
		$(BIN)/python -c 'import cv2'; }
	@touch $@
