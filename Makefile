# Every command sets up what it needs in a virtual environment inside the checkout.

PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,\
	$(shell $(python) -c 'import sys; sys.version_info >= (3, 11) and print("$(python)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

# The tests that run on every backend; the others need TensorFlow or none.
LOOP_TESTS := tests/layers/test_rnn.py -k "fast_loop_equals or falls_back"
LAYER_TESTS := tests/layers tests/test_as_users_do.py
OTHER_TESTS := tests/cells tests/test_inspection.py tests/test_stepping.py \
	tests/test_losses.py tests/test_metrics.py tests/test_mixture.py \
	tests/test_optimizers.py tests/test_generation.py tests/test_generation_fixed.py \
	tests/test_generation_features.py tests/test_nade.py tests/test_backup.py \
	tests/test_distribution.py
TFIO_TESTS := tests/datasets/sound tests/datasets/sets/test_fsdd.py tests/cells \
	tests/layers tests/test_mixture.py tests/test_as_users_do.py
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)
ALL := -m "slow or not slow"
MATRIX := $(PYTHON) .ci/matrix.py --workers $(WORKERS)
OF_MATRIX = --record $(LEGS) $(if $(TESTS),--tests "$(TESTS)")

.PHONY: help demo study study-quick test test-tfio test-torch test-slow test-keras test-matrix test-nightly test-runners test-browser lint format fuzz kills audit docs docs-check package release-check bench bench-quick soak notebooks tensorboard clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile | while IFS=: read name text; \
	do printf '  make %-14s%s\n' "$$name" "$$text"; done

demo: $(BIN)/.examples  ## train the four cells on Bach's chorales (ARGS="--help" for more)
	$(BIN)/python examples/polyphonic_music.py $(ARGS)

test: $(BIN)/.dev  ## all tests on TensorFlow but the slow ones, the fast loop on JAX too
	KERAS_BACKEND=tensorflow $(PYTEST)
	WITHOUT=tensorflow KERAS_BACKEND=jax $(PYTEST) $(LOOP_TESTS)
	@echo "Tested on TensorFlow, the fast loop on JAX. Not tested: the rest on JAX, what takes long (make test-slow), PyTorch (make test-torch)."

test-tfio:  ## sound, cells and layers with TensorFlow 2.17 and tensorflow-io
	$(MATRIX) tfio --tests "$(TFIO_TESTS)"

test-torch: $(BIN)/.torch  ## the tests of the cells and layers on PyTorch (a large download)
	WITHOUT=tensorflow KERAS_BACKEND=torch $(PYTEST) $(ALL) $(LAYER_TESTS) $(OTHER_TESTS)
	KERAS_BACKEND=torch $(PYTEST) tests/test_distribution.py -k "as_one or refused or guide"

test-slow: $(BIN)/.dev  ## what takes long: the demo as a user runs it, all chorales, all of JAX
	KERAS_BACKEND=tensorflow $(PYTEST) -m slow
	XLA_FLAGS= KERAS_BACKEND=tensorflow $(PYTEST) $(LAYER_TESTS)
	WITHOUT=tensorflow KERAS_BACKEND=jax $(PYTEST) $(ALL) $(LAYER_TESTS) $(OTHER_TESTS)
	KERAS_BACKEND=jax $(PYTEST) $(ALL) tests/test_distribution.py -k "as_one or refused"

test-keras:  ## the tests of cells and layers on the oldest Keras
	$(MATRIX) keras-oldest --tests "$(LAYER_TESTS) $(OTHER_TESTS) tests/test_callbacks.py"

test-matrix:  ## many versions of Python, Keras and the backends, for docs/versions.md (LEGS="oldest jax")
	$(MATRIX) $(OF_MATRIX)

test-nightly:  ## the same on pre-releases; what breaks is no error
	$(MATRIX) --nightly $(OF_MATRIX)

test-runners: $(BIN)/.dev .venv-runners/.installed  ## the corpora on Dask and on Spark, which needs Java 17 (a large download)
	PYTHONPATH=$(CURDIR)/.venv-runners KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -n 0 -m slow tests/datasets/test_runners.py

test-browser: $(BIN)/.dev .venv-browser/.installed  ## the page of export_page.py in Chromium; needs npm, apt-get install chromium chromium-driver
	PYTHONPATH=.venv-browser KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -n 0 -m slow tests/examples/test_export_page.py

lint: $(BIN)/.dev  ## ruff: style, formatting, type hints, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(BIN)/.dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(BIN)/.dev  ## read mutated files with every reader (ARGS="--help")
	PYTHONPATH=tests:examples:benchmarks $(BIN)/python -m fuzz $(ARGS)

kills: $(BIN)/.dev  ## kill programs at random instants; the ends must be equal (ARGS="--help")
	PYTHONPATH=tests:examples $(BIN)/python -m kills $(ARGS)

# An error, too, where a package is not known to the database: it was not audited.
audit: $(BIN)/.dev .venv-audit/bin/pip-audit  ## known vulnerabilities of what is installed (asks a database in the network)
	$(BIN)/pip freeze --disable-pip-version-check --exclude-editable | sed 's/+.*//' > .venv-audit/installed.txt
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .venv-audit/installed.txt

docs: .venv-docs/.installed  ## build the site in build/site/html, and follow its links
	.venv-docs/bin/python docs/make_site.py
	.venv-docs/bin/zensical build --clean --strict
	.venv-docs/bin/python docs/make_site.py --check

docs-check: docs  ## look at the site in headless Chromium (ARGS="--help"); apt-get install chromium chromium-driver
	.venv-docs/bin/python docs/check_site.py $(ARGS)

package: $(BIN)/.dev  ## build wheel and sdist, and try each in an empty environment
	rm -rf dist .venv-package
	$(BIN)/python -m build --outdir dist .
	for archive in dist/*.whl dist/*.tar.gz; do \
		$(PYTHON) -m venv --clear .venv-package && \
		.venv-package/bin/pip install --quiet $$archive && \
		.venv-package/bin/python -I .ci/check_package.py \
		|| exit 1; done
	rm -rf .venv-package

release-check: package .venv-release/bin/twine  ## what a release has to be: archives, metadata, changelog, tracked files
	.venv-release/bin/twine check --strict dist/*
	.venv-release/bin/cffconvert --validate
	$(BIN)/python .ci/check_release.py

study: $(BIN)/.study  ## the paper's tables and figures; goes on where it was stopped (ARGS="--help")
	$(BIN)/python examples/empirical_study.py --workers $(WORKERS) $(ARGS)
	$(BIN)/python examples/study_report.py --log-dir runs/study/tensorboard

study-quick: $(BIN)/.study  ## JSB Chorales alone, with a quarter of the epochs: runs/study_quick
	$(BIN)/python examples/empirical_study.py --workers $(WORKERS) --sets jsb_chorales --shorten 4 \
		--afresh --study-dir runs/study_quick $(ARGS)
	$(BIN)/python examples/study_report.py --study-dir runs/study_quick \
		--to runs/study_quick/report --log-dir runs/study_quick/tensorboard

bench: $(BIN)/.torch  ## time the layers beside their peers (leave the machine alone)
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-quick: $(BIN)/.torch  ## some of it, five minutes
	$(BIN)/python benchmarks/bench.py --quick $(ARGS)

notebooks: $(BIN)/.dev  ## run the notebooks, and keep what they give
	KERAS_BACKEND=tensorflow $(BIN)/python notebooks/execute.py $(ARGS)

soak: $(BIN)/.dev  ## training, generation, streaming and reading for 30 minutes each, memory and time watched
	$(BIN)/python benchmarks/soak.py $(ARGS)

tensorboard: $(BIN)/.examples  ## look at what the demo logged
	$(BIN)/tensorboard --logdir runs

clean:  ## remove environments, builds and caches; the results in runs/ stay
	rm -rf .venv* build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says which extra is installed; setup.cfg is newer when it has changed.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (or: make PYTHON=/path/to/python)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(BIN)/.examples $(BIN)/.study $(BIN)/.dev: $(BIN)/.%: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV) for $*, once:"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# beam-pyspark-runner asks for a Beam and a Spark of its time; it runs on these.
.venv-runners/.installed: | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --target .venv-runners \
		dask==2026.8.0 distributed==2026.8.0
	$(BIN)/pip install --quiet --disable-pip-version-check --target .venv-runners --no-deps \
		beam-pyspark-runner==0.0.3 pyspark==4.3.0 py4j==0.10.9.9
	@touch $@

# An environment of its own: it needs neither TensorFlow nor the package. Zensical is
# before 1.0, so its version is fixed, and that of the handler of its reference, too.
.venv-docs/.installed: Makefile
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check zensical==0.0.73 \
		'mkdocstrings[python]==1.0.8' mkdocstrings-python==2.0.11 \
		latex2mathml==3.81.1 selenium==4.51.0
	@touch $@

.venv-browser/.installed: | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --target .venv-browser selenium==4.51.0
	@touch $@

.venv-audit/bin/pip-audit: | $(BIN)/python
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit

.venv-release/bin/twine: | $(BIN)/python
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/pip install --quiet --disable-pip-version-check twine==7.0.0 cffconvert==2.0.0

$(BIN)/.torch: $(BIN)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	@touch $@
