# make demo, make test: each makes the environment it needs; a second call uses it again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FAISS := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
EXP ?= easy_vqa
SIZE ?= full
JOBS ?= 1

.PHONY: setup demo test pytest soak nodes lint experiment sweep clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(FAISS),demo,mix,dev]'
	touch $@

demo: setup
	$(MAKE) -f experiments/easy_vqa/stages.mk BIN=$(BIN) RUN=runs/demo SIZE=demo

RUN = runs/$(EXP)$(if $(filter-out full,$(SIZE)),-$(SIZE))

experiment: setup
	$(MAKE) -f experiments/$(EXP)/stages.mk BIN=$(BIN) SIZE=$(SIZE) RUN=$(RUN)

# The grid of the experiment's W&B sweep, JOBS runs at a time; called again, it goes on.
sweep: setup
	$(MAKE) -f experiments/$(EXP)/sweep.mk BIN=$(BIN) SIZE=$(SIZE) RUN=$(RUN) signals
	BIN=$(BIN) SIZE=$(SIZE) RUN=$(RUN) $(BIN)/python experiments/sweep.py \
	  --sweep=experiments/$(EXP)/sweep.yaml --jobs=$(JOBS)
	$(BIN)/lightning compare $(RUN)/sweep/cells/* $(RUN)/all --output=$(RUN)/sweep/comparison

lint: setup
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary

# At once, for neither uses all cores all the time.
test: setup
	$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: setup
	$(BIN)/pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

# Faults at random places over the whole path; writes its table to tests/faults/README.md.
soak: setup
	$(BIN)/python tests/faults/soak.py --write

# predict, select and fit by torchrun on two nodes of different size, over loopback: minutes.
nodes: setup
	$(BIN)/pytest -m nodes

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
