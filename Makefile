# `make train` and `make test` are the two commands that you need; `make help` lists them all.
# They need only make, Python 3.11 to 3.13 and a package index; everything is installed into .venv.

# On the command line: make train CONFIG=my.yaml DEVICE=gpu PYTHON=/path/to/python3.12
CONFIG := configs/mnist.yaml
RUN := latest
# cpu or gpu: which TensorFlow is installed.
DEVICE := cpu
# Empty means: the first of PYTHONS that runs and has a version that TensorFlow supports.
PYTHON :=
PYTHONS := python3 python3.13 python3.12 python3.11 python

UV_VERSION := 0.13.9
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet
# Wheels only, so that an install runs no setup code of a package and needs no compiler.
PIP_INSTALL_LOCK := $(PIP_INSTALL) --require-hashes --no-deps --only-binary :all:

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help train test soak load lock clean anew

ifeq ($(filter cpu gpu,$(DEVICE)),)
$(error DEVICE=$(DEVICE) is not known; choose cpu or gpu)
endif

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

train: .venv/.package  ## set up .venv if needed, then train and evaluate (CONFIG=configs/mnist.yaml)
	@.venv/bin/cnn-train train "$(CONFIG)"

test: .venv/.package .venv/.tools  ## set up .venv and the tools if needed, then check format, lint, types and tests
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/pytest

soak: .venv/.package .venv/.tools  ## the full form of the fault tests: hundreds of kills, a million broken configs; takes hours
	CNN_TRAIN_SOAK=1 .venv/bin/pytest tests/faults tests/runs/test_checkpoint.py tests/config/test_strict_yaml.py tests/search tests/serve

load: .venv/.package  ## load test of cnn-train serve next to a bare application (RUN=latest, an exported run)
	.venv/bin/python tests/serve/load.py "$(RUN)"

# --fork-strategy fewest: the same version of a package for all Pythons, so that all of them run the same code.
UV_COMPILE = .venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --only-binary :all: --no-emit-index-url --no-annotate --custom-compile-command "make lock"

EXTRAS = --extra onnx --extra litert --extra report --extra serve --extra storage --group offline --group build
# tensorflow-cpu replaces tensorflow on the platforms that have it. The serving lock has neither, and no Keras.
NO_TENSORFLOW_CPU := tensorflow>=2.21,<2.22; sys_platform != 'linux' or platform_machine != 'x86_64'
lock: .venv-lock/.uv-$(UV_VERSION)  ## renew requirements/*.txt from pyproject.toml, with the newest versions
	echo "$(NO_TENSORFLOW_CPU)" | $(UV_COMPILE) pyproject.toml --overrides - --group cpu $(EXTRAS) -o requirements/cpu.txt
	$(UV_COMPILE) pyproject.toml --extra gpu $(EXTRAS) -c requirements/cpu.txt -o requirements/gpu.txt
	printf 'keras\noptuna\nplotille\ntensorflow\n' | $(UV_COMPILE) pyproject.toml --excludes - --extra serve --group build \
	  -c requirements/cpu.txt -o requirements/serve.txt
	$(UV_COMPILE) --group dev -c requirements/cpu.txt -o requirements/dev.txt

clean:  ## remove .venv and every cache; runs/ stays
	rm -rf .venv .venv-lock .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find cnn_trainer tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Sets $$python, or ends the recipe with one line that says why there is none. A candidate is run, not just looked up,
# because a version manager has stand-ins for Pythons that do not run.
define find_python
	found=; bare=; \
	for python in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue; \
	  if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then found=1; break; fi; \
	  bare=$$("$$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'); \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "$$bare cannot make a virtual environment; install its package for that ($$bare-venv on Debian and Ubuntu)" >&2; \
	  exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "no Python 3.11 to 3.13 among: $(or $(PYTHON),$(PYTHONS)); name one: make $(or $(MAKECMDGOALS),train)" \
	    "PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi
endef

# What .venv was made for. It is made anew if the lock has changed, if you ask for another device or Python, if the checkout
# has moved, or if its Python is gone; so nothing from an older lock is ever left in it. Each mark is set only after the last
# step, so that an interrupted install is never taken for a finished one.
MADE_FOR := $(DEVICE) $(CURDIR)
VENV_PYTHON := $(shell (.venv/bin/python -V) 2>/dev/null)
WANTED_PYTHON := $(if $(PYTHON),$(shell ("$(PYTHON)" -V) 2>/dev/null),$(or $(VENV_PYTHON),any))
ifneq ($(shell (cat .venv/.made-for) 2>/dev/null) $(VENV_PYTHON),$(MADE_FOR) $(WANTED_PYTHON))
.venv/.made-for: anew
endif

.venv/.made-for: requirements/$(DEVICE).txt
	@$(find_python); \
	echo "Setting up .venv with $$("$$python" -V): downloading and installing TensorFlow, a few minutes the first time ..." >&2; \
	"$$python" -m venv --clear .venv
	@.venv/bin/python $(PIP_INSTALL_LOCK) -r $<
	@echo "$(MADE_FOR)" >$@

.venv/.package: .venv/.made-for pyproject.toml
	@.venv/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.tools: .venv/.made-for requirements/dev.txt
	@echo "Installing the tools that check the code ..." >&2
	@.venv/bin/python $(PIP_INSTALL_LOCK) -r requirements/dev.txt
	@touch $@

.venv-lock/.uv-$(UV_VERSION):
	@$(find_python); "$$python" -m venv --clear .venv-lock
	@.venv-lock/bin/python $(PIP_INSTALL) --only-binary :all: "uv==$(UV_VERSION)"
	@touch $@
