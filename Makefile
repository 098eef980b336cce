VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow test-browser check bench clean

demo: $(INSTALLED)  ## train CE and CLCE on the bundled digits and compare them
	$(VENV)/bin/clce-hf demo $(DEMO_FLAGS)

test: $(INSTALLED)  ## run the tests, in two workers of one thread each
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2 --dist loadfile

test-slow: $(INSTALLED)  ## run the tests that make test leaves out
	$(PYTHON) -m pytest -m slow

test-browser: $(INSTALLED)  ## open a report in Chromium, which apt installs where it is missing
	which chromium chromedriver || (apt-get update && apt-get install --yes chromium chromium-driver)
	$(PYTHON) -m pytest -m browser

check: $(INSTALLED)  ## lint, format, types and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyrefly check
	$(VENV)/bin/lint-imports

bench: $(INSTALLED)  ## speed of the loss and of a training step against their peers
	$(PYTHON) benchmarks/loss_speed.py
	$(PYTHON) benchmarks/step_overhead.py

$(INSTALLED): pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
