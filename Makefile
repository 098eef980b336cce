VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
LOWEST := .venv-lowest
# Requirements of which test-lowest takes any version, where the machine cannot get their lowest.
ANY_VERSION :=

.PHONY: demo test test-slow test-browser test-lowest check bench clean

demo: $(INSTALLED)  ## train CE and CLCE on the bundled digits and compare them
	$(VENV)/bin/clce-hf demo $(DEMO_FLAGS)

test: $(INSTALLED)  ## run the tests, in two workers of one thread each
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED)  ## run the tests that make test leaves out
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-browser: $(INSTALLED)  ## open a report in Chromium, which apt installs where it is missing
	which chromium chromedriver || (apt-get update && apt-get install --yes chromium chromium-driver)
	$(PYTHON) -m pytest -m browser

test-lowest: $(LOWEST)/.installed  ## run tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)  ## lint, format, American spelling, types and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/codespell
	$(VENV)/bin/pyrefly check
	$(VENV)/bin/lint-imports

bench: $(INSTALLED)  ## speed of the loss and of a training step against their peers
	$(PYTHON) benchmarks/loss_speed.py
	$(PYTHON) benchmarks/step_overhead.py

$(INSTALLED): pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --editable '.[dev]'
	touch $@

$(LOWEST)/.installed: pyproject.toml .ci/lowest_versions.py
	python3 -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet packaging
	$(LOWEST)/bin/python .ci/lowest_versions.py $(ANY_VERSION) > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST)
