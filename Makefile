VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
LOWEST := .venv-lowest
TRANSFORMERS_MAIN := .venv-main
# Requirements of which test-lowest takes any version, where the machine cannot get their lowest.
ANY_VERSION :=

# Where `make docs` puts the site.
SITE := site

.PHONY: demo test test-slow test-browser test-lowest test-main check bench docs dist clean

demo: $(INSTALLED)  ## train CE and CLCE on the bundled digits and compare them
	$(VENV)/bin/clce-hf demo $(DEMO_FLAGS)

test: $(INSTALLED)  ## run the tests, in two workers of one thread each
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED)  ## run the tests that make test leaves out
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-browser: $(INSTALLED)  ## open a report and the site in Chromium, which apt installs where it is missing
	which chromium chromedriver || (apt-get update && apt-get install --yes chromium chromium-driver)
	$(PYTHON) -m pytest -m browser

test-lowest: $(LOWEST)/.installed  ## run tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-main:  ## run the tests with the main branch of Transformers
	$(MAKE) $(TRANSFORMERS_MAIN)/.installed VENV=$(TRANSFORMERS_MAIN)
	$(TRANSFORMERS_MAIN)/bin/python -m pip install --quiet --upgrade 'transformers @ git+https://github.com/huggingface/transformers'
	$(MAKE) test VENV=$(TRANSFORMERS_MAIN)

check: $(INSTALLED)  ## lint, format, spelling, types, the direction of imports, GitHub's files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/codespell
	$(VENV)/bin/pyrefly check
	$(VENV)/bin/lint-imports
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*_*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml

bench: $(INSTALLED)  ## speed of the loss and of a training step against their peers
	$(PYTHON) benchmarks/loss_speed.py
	$(PYTHON) benchmarks/step_overhead.py

docs: $(INSTALLED)  ## the site; a broken link or a page without a place in it is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --site-dir $(SITE)

dist: $(INSTALLED)  ## wheel and sdist, as PyPI takes them
	rm -rf dist
	$(PYTHON) -m build
	$(VENV)/bin/twine check --strict dist/*

$(INSTALLED): pyproject.toml
	@echo "Installing into $(VENV), which takes some minutes"
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
	rm -rf $(VENV) $(LOWEST) $(TRANSFORMERS_MAIN) $(SITE) dist
