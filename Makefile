# A fresh machine needs only Python 3.11 or newer and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: install demo test check wheel bench bench-small clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Four hospitals as real daemons with encrypted sockets, without a server and with one; then peer-to-peer FLOP
# against its alternatives, simulated on two bundled data sets at 8 hospitals, 3 seeds.
demo: install
	$(BIN)/flop-p2p local examples/four-hospitals.toml --topology ring --out runs/demo/hospitals --resume
	$(BIN)/flop-p2p local examples/four-hospitals.toml --method flop --out runs/demo/hospitals-with-server --resume
	$(BIN)/flop-p2p compare examples/breast-cancer.toml --out runs/demo/breast-cancer --resume
	$(BIN)/flop-p2p compare examples/digits.toml --out runs/demo/digits --resume

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The built wheel, installed in an environment of its own, answers.
wheel: install
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel >/dev/null
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/pip install --disable-pip-version-check --quiet --constraint constraints.txt build/wheel/*.whl
	cd build/wheel && venv/bin/flop-p2p --version && venv/bin/flop-p2p topology show ring --sites 8
	rm -rf build/wheel/venv

bench: install
	$(BIN)/python benchmarks

# To see that they work, never to judge a time.
bench-small: install
	$(BIN)/python benchmarks --small

clean:
	rm -rf $(VENV) build runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
