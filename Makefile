# All the set-up there is: `make verify` and `make test` make .venv where it is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TPU := .venv-tpu
LOWEST := .venv-lowest
NEWEST := .venv-newest
PACKAGE := .venv-package
LOWEST_PYTHON ?= python3.11
NEWEST_PYTHON ?= $(firstword $(foreach name,python3.14 python3.13 python3.12 python3, \
	$(shell $(name) -c "print('$(name)')" 2>/dev/null)))

.PHONY: verify test test-slow test-tpu test-gpu test-lowest test-newest test-package search lint \
	gallery readme bench package clean

verify: $(READY)
	@mkdir -p results
	$(BIN)/twinstep verify --json results/verify.json --report results/verify.html

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

# The figures of docs/porting/optimizers.md, and every fault planted in an optimizer; and what make
# test compiles without LLVM's optimizations, compiled as users do.
test-slow: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow or quick_to_compile"

# Trainings drawn at random: optimizer, options, shapes, schedule, clipping; and as many uses of an
# optimizer: dtype, container, wrapper, special values, a state that is handed over; and layers.
SEARCH ?= 5000
search: $(READY)
	SEARCH=$(SEARCH) $(BIN)/python -m pytest -n auto --dist load --timeout 0 -m "slow or not slow" \
		-k "any_training or any_use or any_layer" parity_tests/optim/test_random_search.py \
		parity_tests/optim/test_random_uses.py parity_tests/nn/test_random_layers.py

# Compiles every example for a TPU; none is needed.
test-tpu: $(TPU)/.ready
	JAX_PLATFORMS=cpu $(TPU)/bin/python -m pytest parity_tests/twins/test_tpu.py -n auto

# On a machine with a GPU that both frameworks find; elsewhere says why it skips them.
test-gpu: $(READY)
	$(BIN)/python -m pytest parity_tests/twins/test_gpu.py -rs

# Every example and a row of each optimizer on the lowest versions that pyproject.toml names, and on
# whatever pip finds today. Several GB each where torch comes with CUDA.
test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python parity_tests/helpers/versions.py verify

test-newest:
	$(NEWEST_PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/pip install -q -e ".[all]"
	$(NEWEST)/bin/python parity_tests/helpers/versions.py verify

# The source package, and the wheel that is built from it alone.
package: $(READY)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# The wheel in an environment with nothing else, used from another folder.
test-package: package
	$(PYTHON) -m venv --clear $(PACKAGE)
	$(PACKAGE)/bin/pip install -q -c constraints.txt "$$(echo dist/*.whl)[all]"
	mkdir -p results
	cd results && ../$(PACKAGE)/bin/twinstep verify chain_rule linear_regression

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Draws the pictures of examples/README.md anew.
gallery: $(READY)
	$(BIN)/python examples/gallery.py

# The README's figures and its picture, docs/verify.md's table: half an hour on two cores.
readme: $(READY)
	@mkdir -p results
	$(BIN)/twinstep verify --json results/verify.json > results/verify.txt
	$(BIN)/python -m pytest -n auto --dist loadfile --junitxml results/tests.xml
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow --junitxml results/slow.xml
	$(BIN)/python -m parity_tests.helpers.readme --write

bench: $(READY)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/optimizers.py
	$(BIN)/python benchmarks/recording.py

clean:
	rm -rf $(VENV) $(TPU) $(LOWEST) $(NEWEST) $(PACKAGE) results build dist *.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

$(LOWEST)/.ready: pyproject.toml
	$(LOWEST_PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python parity_tests/helpers/versions.py lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install -q -c $(LOWEST)/constraints.txt -e ".[all]"
	@touch $@

# The tpu extra over what $(VENV) has, in a folder of its own: with it JAX looks for a TPU whenever
# it starts, and says on stderr that it found none.
$(TPU)/.ready: $(READY)
	rm -rf $(TPU)
	$(BIN)/python -m venv $(TPU)
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
		> $$($(TPU)/bin/python -c "import site; print(site.getsitepackages()[0])")/over.pth
	$(TPU)/bin/pip install -q -c constraints.txt -e ".[tpu]"
	@touch $@

# Changes the judge in one place at a time, and fails where no test notices. cosmic-ray makes the
# changes; nothing else needs it.
.PHONY: mutants
mutants: $(READY)
	@$(BIN)/python -c "import cosmic_ray" 2>/dev/null || $(BIN)/pip install -q -c constraints.txt cosmic-ray
	$(BIN)/python parity_tests/faults/mutants.py
