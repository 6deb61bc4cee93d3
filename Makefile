# make test: what CI runs. make test-all: also the slow ones. make bench: figures against PyTorch.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all lint bench portability clean

# torch is an oracle of some tests; its CPU build is asked for first and alone so that nothing else picks one
$(STAMP): pyproject.toml setup.py $(wildcard kernels/cpu/* kernels/common/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	-$(BIN)/pip install -q torch==2.13.0
	SPIRAL_REQUIRE_NATIVE=1 $(BIN)/pip install -q -e '.[test]'
	touch $@

NOTE := Installing into $(VENV) and compiling the kernels for this processor; about a minute, once

DEMO := $(VENV)/.demo-installed
$(DEMO): pyproject.toml setup.py $(wildcard kernels/cpu/* kernels/common/*)
	@echo "$(NOTE)"
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@SPIRAL_ISA=native $(BIN)/pip install -q --disable-pip-version-check -e '.[demo]'
	@touch $@

demo: $(DEMO)
	$(BIN)/spiral demo

# devices that choose themselves once per process: an OpenCL device made of the processor, and one without shared memory
OTHER_DEVICES := SPIRAL_OPENCL=1 SPIRAL_ISLAND=1 SPIRAL_REQUIRE_NATIVE=1 SPIRAL_NUM_THREADS=1 \
	$(BIN)/python -m pytest -q tests/on_opencl tests/on_island

test: $(STAMP) lint
	SPIRAL_REQUIRE_NATIVE=1 SPIRAL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q -m "not slow and not gpu" tests
	$(OTHER_DEVICES)

test-all: $(STAMP) lint
	SPIRAL_REQUIRE_NATIVE=1 SPIRAL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q -m "not gpu" tests
	$(OTHER_DEVICES)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -W ignore::RuntimeWarning:runpy -m spiral.op --check
	$(BIN)/python -m spiral.op_table --check

# all cases, or CASES="wheel clang"; see docs/testing.md
portability:
	SPIRAL_PYTHONS="$(SPIRAL_PYTHONS)" $(PYTHON) tests/portability/check_builds.py $(CASES)

bench: $(STAMP)
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.overhead

clean:
	rm -rf $(VENV) build *.egg-info
	find . -name '*.so' -path '*_native_*' -delete
