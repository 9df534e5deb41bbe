# One target a wish; `make` alone lists them. Everything is installed into .venv, nothing else on the machine is touched.
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
UV := $(VENV)/.uv-$(UV_VERSION)
INSTALLED := $(VENV)/.installed
DEMO := outputs/demo

# The environment's own tools and kernel, whatever the shell that calls make has set.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PYTHONNOUSERSITE := 1
export JUPYTER_PREFER_ENV_PATH := 1
unexport PYTHONPATH PYTHONHOME JUPYTER_PATH MPLBACKEND IN_TEST

.DEFAULT_GOAL := help
.PHONY: help env quick demo test test-gpu test-browser test-container docs prepare-commit lab lock clean distclean
.DELETE_ON_ERROR:

help:  ## list the targets
	@echo 'usage: make TARGET        (PYTHON=/path/to/python3.12 chooses the interpreter of a new .venv)'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

env: $(INSTALLED)  ## make .venv and install what requirements.lock names (about 6 GB)
	@if [ -n "$(PYTHON)" ] && [ "$$("$(PYTHON)" -c 'import sys; print(sys.version_info[:2])')" != \
	  "$$($(BIN)/python -c 'import sys; print(sys.version_info[:2])')" ]; then \
	  echo "$(VENV) holds $$($(BIN)/python --version), PYTHON=$(PYTHON) is another: make distclean, then make env PYTHON=$(PYTHON)" >&2; exit 1; fi

# A python is good when it is 3.11 or 3.12 and can make environments. A pyenv shim may exist for a version that is not active: so each is run.
$(UV):
	@good=; \
	try() { [ -n "$$good" ] || ! "$$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' \
	  >/dev/null 2>&1 || good="$$1"; }; \
	if [ -n "$(PYTHON)" ]; then try "$(PYTHON)"; \
	else for p in python3 python3.12 python3.11 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[12].*/bin/python3; do try "$$p"; done; fi; \
	if [ -z "$$good" ]; then \
	  echo "lam_nb needs Python 3.11 or 3.12 with venv and pip; $(or $(PYTHON),python3) is: $$("$(or $(PYTHON),python3)" --version 2>&1)." >&2; \
	  echo "Install one (on Debian and Ubuntu python3-venv as well) or name it: make env PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	[ -x $(BIN)/pip ] || { echo "making $(VENV) with $$("$$good" --version)"; "$$good" -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(INSTALLED): requirements.lock pyproject.toml $(UV)
	@echo 'installing what requirements.lock names (about 6 GB, a few minutes)'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m lam_nb.kernel
	@touch $@

# run(notebook, folder, parameters): one notebook, headless; what it prints is shown as it comes
define run
@echo '== $(DEMO)/$(2)'
$(BIN)/lam_nb $(1) $(3) out_dir=$(DEMO)/$(2)
endef

BEST = $(DEMO)/train/checkpoints/best.pt
demo: env  ## sample data -> face store -> trained model -> reports for val and test and a comparison, in outputs/demo
	@rm -rf $(DEMO)
	$(BIN)/lam_nb study nbs/recipes/demo.yaml out_dir=$(DEMO)

SMALL := train_clips=3, val_clips=2, test_clips=1, seconds=2
quick: DEMO := outputs/quick
quick: env  ## a smoke run in under three minutes: a few seconds of sample data, two epochs, reports in outputs/quick
	@rm -rf $(DEMO)
	@$(BIN)/python -c "from lam_nb.sample import make_sample; make_sample('data/quick', $(SMALL), progress=False)"
	$(call run,prepare,prepare,data_dir=data/quick)
	$(call run,train,train,data_dir=data/quick epochs=2 train_stride=8 batch_size=16)
	$(call run,evaluate,evaluate,data_dir=data/quick checkpoint=$(BEST))
	@$(BIN)/python scripts/show_runs.py $(addprefix $(DEMO)/,prepare train evaluate)
	@echo 'This was a smoke run: it shows that everything works here. Two epochs on a few seconds teach a model nothing; make demo does.'

test: export MPLBACKEND = Agg
# two processes at a time: threads of their own would stand in each other's way
test: export OMP_NUM_THREADS = 1
# repeatable on every machine; what needs a GPU has a target of its own
test: export CUDA_VISIBLE_DEVICES =
test: env  ## every check: export, clean, conflict markers, ruff, mypy, library notebooks, pytest (which runs the run notebooks)
	@$(BIN)/python tests/gates.py export clean markers
	$(BIN)/ruff check
	$(BIN)/mypy
	@export TMPDIR="$$(mktemp -d)" && trap 'rm -rf "$$TMPDIR"' EXIT INT TERM && set -x && \
	  $(BIN)/nbdev_test --file_re '^([0-9]|api)' --n_workers 2 --timing && $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not browser and not container"

test-gpu: export MPLBACKEND = Agg
test-gpu: export LAM_NB_TEST_GPU = 1
test-gpu: env  ## what needs a CUDA GPU: the library notebooks and tests/test_gpu.py on it
	$(BIN)/python -c 'from lam_nb.devices import usable_gpus; print(usable_gpus("cuda"), "GPUs")'
	$(BIN)/nbdev_test --file_re '^[0-9]' --n_workers 1
	$(BIN)/python -m pytest -m gpu tests/test_gpu.py

test-browser: export MPLBACKEND = Agg
test-browser: env  ## JupyterLab in chromium (which must be installed): every run notebook, stop and go on, reports; pictures in outputs/browser
	$(BIN)/python -m pytest -m browser tests/test_browser.py

test-container: env  ## the Dockerfile's commands in a clean folder: installs 6 GB, without building a container
	$(BIN)/python -m pytest -m container tests/test_container.py

docs: env  ## pages of the API, in outputs/docs
	@$(BIN)/python scripts/api_pages.py

prepare-commit: env  ## lists of chapters, export to lam_nb, clean, lint: before every commit
	$(BIN)/python scripts/chapters.py
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/ruff check

lab: env  ## JupyterLab on this project, nbs/index.ipynb open
	$(BIN)/jupyter-lab --config=scripts/lab_config.py

lock: $(UV)  ## rebuild requirements.lock from pyproject.toml (newest versions: make lock FLAGS=--upgrade)
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --extra dev $(FLAGS) \
	  pyproject.toml -o requirements.lock

clean:  ## remove caches and build leftovers; keep .venv, data and outputs
	rm -rf build _proc *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv, outputs/demo and outputs/quick
	rm -rf $(VENV) $(DEMO) outputs/quick data/quick
