# make lab    JupyterLab on the notebooks (ARGS=--no-browser on a server)
# make test   unit and property tests, then every notebook
#
# Both install into .venv first, again whenever pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
REQUIREMENT := .[lab,test]
NOTEBOOK := 00_start_here.ipynb
ARGS ?=
# tests in so many processes, each with its own files; 2 to 3 GB of memory each
WORKERS ?= 2
SIDE_BY_SIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# JupyterLab refuses to run as root unless told that this is meant
ALLOW_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# one thing after the other even with `make -j`: tests that run at once disturb each other's times
.NOTPARALLEL:
.PHONY: help install lab test test-unit test-notebooks test-browser test-realvm lint docs constraints clean

help:
	@echo 'make lab           JupyterLab on the notebooks (ARGS=--no-browser on a server)'
	@echo 'make test          unit and property tests, then every notebook'
	@echo 'make test-browser  the notebooks in real JupyterLab; needs Chromium'
	@echo 'make test-realvm   a real virtual machine boots; needs QEMU'
	@echo 'make lint          ruff and mypy'
	@echo 'make docs          the documentation site, into build/site'
	@echo 'make constraints   pin the newest versions of everything anew'

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo 'Python 3.11 or newer is needed and "$(PYTHON)" was not found; on Debian and Ubuntu: sudo apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version); name another one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$$($(PYTHON) --version) cannot create virtual environments; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo 'Installing into $(VENV); the first time this takes a minute or two'
	@$(RUN) -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '$(REQUIREMENT)'
	@echo 'Compiling the engine, once'
	@$(RUN) -c 'from vmrestorekit.restore.simulate import warmup; warmup()'
	@touch $@

lab: $(INSTALLED)
	$(RUN) -m jupyterlab --ServerApp.root_dir=notebooks --LabApp.default_url=/lab/tree/$(NOTEBOOK) \
		--LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(ALLOW_ROOT) $(ARGS)

test: test-unit test-notebooks

test-unit: $(INSTALLED)
	# what takes longest begins first
	$(RUN) -m pytest $(SIDE_BY_SIDE) tests/test_readme.py tests/course/test_solutions.py tests $(ARGS)

test-notebooks: $(INSTALLED)
	$(RUN) -m pytest $(SIDE_BY_SIDE) --nbval-lax --nbval-current-env --nbval-cell-timeout=120 --nbval-sanitize-with tests/nbval.cfg notebooks

test-browser: $(INSTALLED)
	$(RUN) -m pytest $(SIDE_BY_SIDE) -m browser tests/browser $(ARGS)

test-realvm: $(INSTALLED)
	$(RUN) -m pytest -m realvm $(ARGS)

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# the line that it prints otherwise is about a later release of MkDocs
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict $(ARGS)

# not with a later Python than Debian 12's: pip would choose versions that cannot be installed there
constraints:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:3] > (3, 11, 2))' || { echo "pins are made with Python 3.11.2, $(PYTHON) is $$($(PYTHON) --version); on Debian 12: make constraints PYTHON=/usr/bin/python3" >&2; exit 1; }
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet --disable-pip-version-check '$(REQUIREMENT)'
	sed -n '/^#/p' constraints.txt > build/constraints.txt
	build/constraints/bin/python -m pip freeze --exclude vmrestorekit >> build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
