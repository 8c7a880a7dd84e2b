# All the set-up there is: `make verify` and `make test` make .venv where it is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TPU := .venv-tpu

.PHONY: verify test test-slow test-tpu test-gpu search lint gallery bench clean

verify: $(READY)
	@mkdir -p results
	$(BIN)/twinstep verify --json results/verify.json --report results/verify.html

test: $(READY)
	$(BIN)/python -m pytest -n auto

# The figures of docs/porting/optimizers.md, and every fault planted in an optimizer.
test-slow: $(READY)
	$(BIN)/python -m pytest -n auto -m slow

# Trainings drawn at random: optimizer, options, shapes, schedule, clipping.
SEARCH ?= 5000
search: $(READY)
	SEARCH=$(SEARCH) $(BIN)/python -m pytest parity_tests/test_random_search.py -k any_training --timeout 0

# Compiles every example for a TPU; none is needed.
test-tpu: $(TPU)/.ready
	JAX_PLATFORMS=cpu $(TPU)/bin/python -m pytest parity_tests/test_tpu.py -n auto

# On a machine with a GPU that both frameworks find; elsewhere says why it skips them.
test-gpu: $(READY)
	$(BIN)/python -m pytest parity_tests/test_gpu.py -rs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Draws the pictures of examples/README.md anew.
gallery: $(READY)
	$(BIN)/python examples/gallery.py

bench: $(READY)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/optimizers.py

clean:
	rm -rf $(VENV) $(TPU) results build *.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
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
