# make test: what CI runs. make test-all: also the slow ones. make bench: figures against PyTorch.
# make aot: GPU kernels compiled for real targets. make gpu: everything on an NVIDIA GPU.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all lint aot gpu bench portability clean

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

# devices are chosen once per process: tests of GPU backends run in processes of their own, on the processor, as do those
# of an OpenCL device made of the processor and of one without shared memory
PYTEST := SPIRAL_REQUIRE_NATIVE=1 SPIRAL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q

define run-tests
	$(PYTEST) -m $(1) tests
	SPIRAL_GPU=processor $(PYTEST) -m $(1) tests/on_cuda
	SPIRAL_GPU=interpreter TRITON_INTERPRET=1 $(PYTEST) -m $(1) tests/on_triton
	SPIRAL_OPENCL=1 SPIRAL_ISLAND=1 $(PYTEST) -m $(1) tests/on_opencl tests/on_island
endef

test: $(STAMP) lint
	$(call run-tests,"not slow and not gpu")

# also the CUDA C++ kernels with their threads in another order, and under AddressSanitizer
test-all: $(STAMP) lint
	$(call run-tests,"not gpu")
	SPIRAL_GPU=processor SPIRAL_CUDA_ORDER=shuffle:7 $(PYTEST) -m "not gpu" tests/on_cuda
	SPIRAL_GPU=processor SPIRAL_NUM_THREADS=1 $(BIN)/python -m spiral.testing.cuda_on_cpu \
		-m pytest -n 2 -q -m "not gpu" tests/on_cuda

# every GPU kernel for every target, without a GPU; rewrites kernels/resources.json
aot: $(STAMP)
	$(BIN)/python -m spiral.backends.aot

# on a machine with an NVIDIA GPU, with the Python that has torch or CuPy there: samples, determinism, benchmarks
gpu:
	$(PYTHON) -m benchmarks.gpu

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
