# Two commands matter: `make demo` (a simulation and its report) and `make test` (everything CI checks).
# Both set up .venv by themselves; the stamps make a second run immediate until pyproject.toml changes.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PACKAGES := kvsim reports calibration sim policies traces hw_profiles
PYTEST_ARGS ?= -n auto --dist loadfile --no-loadscope-reorder -q
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

# torch and Triton for the tests of the calibration kernels, which need no GPU; GPU_TOOLS=no leaves them out.
# Triton 3.6 needs NumPy below 2.4 in its interpreter, so this environment lies on top of $(VENV) and has its own.
GPU_TOOLS ?= yes
GPU_VENV  := $(VENV)-gpu
GPU_PINS  := torch==2.13.0 triton==3.6.0 'numpy<2.4'
GPU_PIP_S ?= 150

# Tests on real traces use the shared copy when there is one and the caller named none; absent, they skip.
SHARED_TRACES := $(wildcard ../shared/data/traces)
ifeq ($(strip $(KVSIM_TRACES)),)
ifneq ($(SHARED_TRACES),)
test test-fast test-all bench: export KVSIM_TRACES := $(abspath $(SHARED_TRACES))
endif
endif

# Rewritten tests and compiled modules are kept beside their sources: every process of the tests reads them again.
test test-fast test-all: export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-fast test-all test-tools gpu-tools lint compile bench clean help

help:
	@echo 'make demo        install into $(VENV) and simulate examples/quickstart.yaml'
	@echo 'make test        ruff, mypy, import floors, and all tests but the slow ones'
	@echo 'make test-fast   without those that need tools or whole commands'
	@echo 'make test-all    the same with the slow tests'
	@echo 'make test-tools  the browser for the report tests (Debian, once)'
	@echo 'make gpu-tools   torch and Triton for the kernel tests ($(GPU_VENV); `make test` tries once)'
	@echo 'make lint        ruff, mypy, import floors'
	@echo 'make compile     C extensions of what runs hottest: a third less CPU time (needs a C compiler; a minute or two)'
	@echo 'make bench       simulator speed on the examples'
	@echo 'make clean       remove build output and caches (not $(VENV), not your runs)'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml kvsim/_version.py | $(BIN)/python
	@echo 'installing kvsim into $(VENV) ...'
	@$(PIP) install -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml kvsim/_version.py | $(BIN)/python
	@echo 'installing kvsim and its test tools into $(VENV) ...'
	@$(PIP) install -e '.[test]'
	@touch $@ $(VENV)/.installed

# The rings of the kernels skip where this fails, and say so; the stamp keeps `make test` from trying every time.
$(GPU_VENV)/.tried: Makefile | $(VENV)/.installed-test
	@echo 'installing torch and Triton into $(GPU_VENV) ...'
	@rm -rf $(GPU_VENV) && $(BIN)/python -m venv --without-pip $(GPU_VENV)
	@if timeout $(GPU_PIP_S) $(PIP) --python $(GPU_VENV)/bin/python install --no-compile $(GPU_PINS); then \
	  $(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
	    > "$$($(GPU_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/below.pth"; \
	else \
	  rm -rf $(GPU_VENV)/bin; echo 'no torch and Triton here: the kernel tests will skip'; \
	fi
	@touch $@

gpu-tools:
	@rm -f $(GPU_VENV)/.tried
	@$(MAKE) --no-print-directory $(GPU_VENV)/.tried

# Ray and Optuna for the tests of sweeps, which skip where this fails; SWEEP_TOOLS=no leaves them out.
SWEEP_TOOLS ?= yes
$(VENV)/.tried-sweep: pyproject.toml | $(VENV)/.installed-test
	@echo 'installing Ray and Optuna into $(VENV) ...'
	@timeout 150 $(PIP) install -e '.[ray,optuna]' || echo 'no Ray and Optuna here: their tests will skip'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/kvsim run examples/quickstart.yaml --out out/quickstart
	@echo 'open it in a browser: file://$(CURDIR)/out/quickstart/report.html'

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy --strict $(PACKAGES)
	$(BIN)/lint-imports

# Ruff, mypy and the floors check while torch is installed. pytest comes last: its closing line is the result.
KERNEL_TESTS := $(if $(filter yes,$(GPU_TOOLS)),$(GPU_VENV)/.tried)
SWEEP_TESTS := $(if $(filter yes,$(SWEEP_TOOLS)),$(VENV)/.tried-sweep)

test: $(VENV)/.installed-test $(SWEEP_TESTS)
	@$(MAKE) --no-print-directory -j2 lint $(KERNEL_TESTS)
	$(BIN)/python -m pytest -m 'not slow' $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m 'not slow and not wide' $(PYTEST_ARGS)

test-all: $(VENV)/.installed-test $(SWEEP_TESTS)
	@$(MAKE) --no-print-directory -j2 lint $(KERNEL_TESTS)
	$(BIN)/python -m pytest --hypothesis-profile new $(PYTEST_ARGS)

test-tools:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then \
	  echo 'chromium and chromedriver are there'; \
	else \
	  run=; [ "$$(id -u)" = 0 ] || run='sudo -n'; \
	  $$run apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends chromium chromium-driver; \
	fi

# Used until a source changes; then the sources run as they are, until the next `make compile` (kvsim/_compiled.py).
compile: $(VENV)/.installed
	@$(BIN)/python -c 'import mypyc, setuptools' 2>/dev/null || $(PIP) install -e '.[compile]'
	@$(BIN)/python -m kvsim.cli.compile

bench: $(VENV)/.installed
	@$(BIN)/python benchmarks/speed.py

clean:
	rm -rf build dist out/quickstart *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
