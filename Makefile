# All set-up happens here: a virtual environment in .venv, with the package installed editable.
# Needs Python 3.11 or newer and make (GNU make 3.81 or newer), nothing else.

# The interpreter for .venv; empty: the newest suitable one on the PATH. `make test PYTHON=python3.12`
PYTHON ?=
# Where `make demo` and `make serve-docs` listen.
HOST = 127.0.0.1
PORT ?= 8000
# More arguments for pytest, or for the benchmarks. `make test ARGS="-k rooms -x"`
ARGS ?=
# Processes that run tests side by side: most of them wait. `make test JOBS=0` runs them in one.
JOBS ?= 5
# Thousands of tests beside each other on few processors: a deadline may pass for lack of time alone.
# What fails twice is broken, and so is more than a few.
AGAIN := --numprocesses 0 --last-failed --last-failed-no-failures none --maxfail 5

VENV := .venv
PY := $(VENV)/bin/python
# Silences an advertisement of mkdocs-material's; warnings about our pages still fail the build.
export NO_MKDOCS_2_WARNING := 1
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check

# Stamps say what .venv holds. One that was moved, or whose interpreter is gone, is made anew.
ifneq ($(shell $(PY) -c "print(open('$(VENV)/.stamp-venv').read().strip())" 2>/dev/null),$(CURDIR))
$(shell rm -f $(VENV)/.stamp-*)
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test bench lint types format docs serve-docs build setup clean

help: ## list these commands
	@echo 'Commands (each makes .venv by itself the first time):'
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo 'Settings: PORT=$(PORT) HOST=$(HOST) (demo, serve-docs), ARGS= (test: for pytest; bench: fanout stalled scale memory peers chat idle handshakes workers --quick), PYTHON= (the interpreter for .venv)'

# A Ctrl-C ends the server, and is then no error of make's.
demo: $(VENV)/.stamp-examples ## start the chat with rooms; PORT=8000 HOST=127.0.0.1
	@trap : INT; $(PY) -m examples rooms --host '$(HOST)' --port '$(PORT)'; \
	status=$$?; if [ $$status -eq 130 ]; then exit 0; fi; exit $$status

# Coverage must be complete, unless some tests do not run: ARGS may pick a few, the page tests are
# skipped where there is no browser, some with Redis where the system has none, and those with
# io_uring where it is not permitted, as in Docker.
BROWSER = $(firstword $(foreach name,chromium chromium-browser google-chrome,\
	$(shell command -v $(name) 2>/dev/null)))
REDIS = $(shell command -v redis-server 2>/dev/null)
PARTIAL = $(if $(strip $(ARGS)),ARGS is set,$(if $(WSHUB_REQUIRE_BROWSER)$(BROWSER),$(if \
	$(WSHUB_REQUIRE_REDIS)$(REDIS),$(if $(RING),,there is no io_uring),\
	some tests need redis-server 7),the page tests need Chromium))
RING = $(shell $(PY) -c 'from wshub._ring import Ring; Ring(); print(1)' 2>/dev/null)

test: $(VENV)/.stamp-test ## run all tests, with coverage; ARGS= goes to pytest
	@echo '==> running the tests'
	@rm -f .coverage .coverage.*
	@$(PY) -m coverage run -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS) $(if $(strip $(ARGS)),,|| { \
	echo '==> once more, one at a time, what failed beside others'; \
	$(PY) -m coverage run -m pytest $(AGAIN); })
	@find . -maxdepth 1 -name '.coverage.*' -size 0 -delete # of servers that were killed
	@$(PY) -m coverage combine --quiet
	@$(if $(PARTIAL),echo '==> coverage (need not be complete: $(PARTIAL))';) \
	$(PY) -m coverage report $(if $(PARTIAL),--fail-under=0)

# Three quarters of an hour on an idle machine. `make bench ARGS=--quick` keeps nothing.
bench: $(VENV)/.stamp-bench ## measure speed and memory, and write tables and charts; ARGS=
	@$(PY) -m benchmarks $(ARGS)

lint: $(VENV)/.stamp-dev ## check the code and its format with ruff
	@echo '==> ruff check'
	@$(PY) -m ruff check .
	@echo '==> ruff format --check'
	@$(PY) -m ruff format --check .

# --verifytypes takes the environment from the PATH alone.
types: $(VENV)/.stamp-dev ## check the types with mypy --strict and pyright
	@echo '==> mypy --strict'
	@$(PY) -m mypy --strict
	@echo '==> basedpyright'
	@$(PY) -m basedpyright
	@echo '==> basedpyright --verifytypes'
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m basedpyright --verifytypes wshub --ignoreexternal

format: $(VENV)/.stamp-dev ## format the code and fix what ruff can fix
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs: $(VENV)/.stamp-docs ## build the documentation into site/
	@echo '==> mkdocs build --strict'
	@$(PY) -m mkdocs build --strict

serve-docs: $(VENV)/.stamp-docs ## show the documentation and rebuild it on a change; PORT=8000 HOST=127.0.0.1
	@trap : INT; $(PY) -m mkdocs serve --strict --livereload --dev-addr '$(HOST):$(PORT)'; \
	status=$$?; if [ $$status -eq 130 ]; then exit 0; fi; exit $$status

build: $(VENV)/.stamp-dev ## build the source distribution and the wheel into dist/
	@echo '==> building into dist/'
	@rm -rf dist
	@$(PY) -m build

setup: $(VENV)/.stamp-dev ## only make .venv, with everything for development
	@echo '==> $(VENV) is ready'

clean: ## remove .venv and everything that tests and builds leave
	@echo '==> removing .venv, caches and build results'
	@rm -rf $(VENV) dist build site htmlcov .coverage .coverage.* \
		.hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# A candidate is run, not only found: a version manager's shim may lead to nothing.
$(VENV)/.stamp-venv:
	@asked='$(PYTHON)'; python=''; new=''; \
	for candidate in $${asked:-python3.14 python3.13 python3.12 python3.11 python3 python}; do \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		new=$${new:-$$candidate}; \
		"$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 || continue; \
		python=$$candidate; break; \
	done; \
	if [ -z "$$new" ]; then \
		if [ -n "$$asked" ]; then echo "error: PYTHON=$$asked is not Python 3.11 or newer" >&2; \
		else echo 'error: no Python 3.11 or newer on the PATH; install one, or name one: make PYTHON=/path/to/python3' >&2; fi; \
		exit 1; \
	fi; \
	if [ -z "$$python" ]; then \
		echo "error: $$new cannot make virtual environments (no ensurepip); on Debian or Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; \
	fi; \
	echo "==> making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)
	@echo '$(CURDIR)' > $@

$(VENV)/.stamp-%: $(VENV)/.stamp-venv pyproject.toml
	@echo "==> installing wshub[$*], editable, into $(VENV)"
	@$(PIP_INSTALL) --editable '.[$*]'
	@touch $@
