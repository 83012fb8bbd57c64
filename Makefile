# Needs nothing but CPython 3.11, git and make. `make PYTHON=/path/to/python3.11` uses another interpreter.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
TOOLS := $(VENV)/.tools-installed
DEV := $(VENV)/.dev-installed
MISSING := $(VENV)/.missing-for-tests
SERVERS := $(VENV)/servers
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
ROUTERS ?= 2
WORKERS ?= 2
TEST_PROCESSES ?= 3
PYTEST = -m pytest -p no:cacheprovider -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
COVERAGE_FLOOR := 90

.DEFAULT_GOAL := help
.PHONY: help install tools start test test-unit test-routers test-cluster test-upgrade test-deletion lint bench docs fuzz torture dist test-pipx man deb test-deb test-systemd test-image lock clean

help:
	@echo "make start    install, then run a farm of $(WORKERS) workers in the foreground (data in ./farm-data)"
	@echo "make install  only install what a farm needs, into $(VENV)"
	@echo "make tools    install what farm bench and farm demo need besides"
	@echo "make test     install, then run all tests with coverage (floor: $(COVERAGE_FLOOR) %)"
	@echo "make test-unit  install, then only the tests that start no farm and no server of a store, in a minute on 2 cores;"
	@echo "                TEST_TIMES=20: with 20 times as many examples and seeds where lots are drawn"
	@echo "make test-routers  install, then the end-to-end tests on farms of two routers; ROUTERS=3 for more; a quarter of an hour on 2 cores"
	@echo "make test-cluster  install, then a farm on three hosts that lose each other, Redis and their power; CLUSTER='--seconds 600', or --help"
	@echo "make test-upgrade  install, then farms that change between an older release and this one while they are killed; OLD=commit TORTURE='--seconds 600'"
	@echo "make test-deletion  install, then all tests without each dialect in turn; DIALECT=pusher for one; half an hour each on 2 cores"
	@echo "make lint     install, then ruff and mypy --strict"
	@echo "make bench    install, then farm bench with BENCH='connect --help', say"
	@echo "make docs     install, then make the reference pages from the code and the site in build/docs"
	@echo "make fuzz     install, then inputs made by chance for all that reads what others wrote; FUZZ='--seconds 600 --target http'"
	@echo "make torture  install, then kill, stop, fill and reload a farm under traffic; TORTURE='--seconds 3600', or --help"
	@echo "make dist     install, then build the source distribution and the wheel in dist/, and check them"
	@echo "make test-pipx  make dist, then have pipx install the wheel with its dependencies from the package index, run and remove it"
	@echo "make man      install, then make the man pages of all commands from their help, in build/man"
	@echo "make deb      install, then build a Debian package for /usr/bin/python3.11 in dist/; make test-deb installs and removes it on a layer"
	@echo "make test-systemd  make deb, then boot a layer with systemd and run the package in it: start, reload, watchdog, stop, upgrade, sockets, removal"
	@echo "make test-image  install, then build the container image on a base of debootstrap and run it; a few minutes, as root"
	@echo "make lock     resolve the dependencies anew and write the lock files; with UPGRADE= only what is missing"
	@echo "make clean    remove everything that make made; ./farm-data stays"

install: $(RUNTIME)

tools: $(TOOLS)

start: $(RUNTIME)
	exec $(BIN)/farm start --workers $(WORKERS)

# -p no:cacheprovider keeps the tree clean; tests start real processes, and the coverage of those that modules marked
# `measured` start is combined afterwards. Most tests wait for something most of the time, so more files of them than there
# are cores run side by side, those of whole farms first, so that short ones fill the end: TEST_PROCESSES=0 runs one test
# after the other, for a debugger.
# curl, Firefox, Chromium, Node.js, npm packages and libfaketime are installed first if they are missing and this is root,
# nats-server, HAProxy, Redis, memcached, nginx with nchan, promtool, jq, rsyslog, systemd-analyze, systemd-nspawn, PHP,
# Ruby, zsh and fish are fetched into $(SERVERS);
# what is missing all the same stands on the last line, and the tests that need it are skipped (with CI=true: fail).
test: $(DEV)
	tests/install-browsers $(MISSING)
	tests/install-servers $(SERVERS) $(MISSING)
	tests/install-libfaketime
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run $(PYTEST) $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=$(COVERAGE_FLOOR)
	@cat $(MISSING)

# They hardly wait: as many side by side as there are cores.
test-unit: TEST_PROCESSES = $(shell nproc)
test-unit: $(DEV)
	$(BIN)/python $(PYTEST) -q tests/unit $(PYTEST_ARGS)

# Farms of tests that do not say how many routers they are about have so many.
test-routers: $(DEV)
	tests/install-browsers $(MISSING)
	tests/install-servers $(SERVERS) $(MISSING)
	tests/install-libfaketime
	TEST_ROUTERS=$(ROUTERS) $(BIN)/python $(PYTEST) tests/e2e $(PYTEST_ARGS)
	@cat $(MISSING)

# Network namespaces of its own (root, or user namespaces, and iproute2). Ends with 1 if a promise was broken, and with 3
# where the machine permits no namespaces.
test-cluster: $(DEV)
	tests/install-servers $(SERVERS) $(MISSING)
	PYTHONPATH=tests $(BIN)/python -m torture.cluster --verbose $(CLUSTER)

# To and fro under traffic: a farm on one host, then one on three. TORTURE='--seconds 600', or --help. Exit codes of make
# torture and make test-cluster; it needs the history with that commit. A fork server that is killed is left out: one that
# is started in its place while the code is replaced finds half of each, says so in a trace, and is started once more.
test-upgrade: $(DEV)
	tests/install-servers $(SERVERS) $(MISSING)
	PYTHONPATH=tests $(BIN)/python -m torture --older $(OLD) --routers 2 --verbose \
	  --faults other-release,kill-worker,kill-router,stop-worker,reload,drain $(TORTURE)
	PYTHONPATH=tests $(BIN)/python -m torture.cluster --older $(OLD) --verbose \
	  --faults other-release-host,kill-worker,kill-router,reload-host,drain-host $(TORTURE)

# On copies of the tree: see tests/support/deletion.py.
test-deletion: $(DEV)
	tests/install-browsers $(MISSING)
	tests/install-servers $(SERVERS) $(MISSING)
	tests/install-libfaketime
	TEST_PROCESSES=$(TEST_PROCESSES) PYTEST_ARGS='$(PYTEST_ARGS)' PYTHONPATH=tests $(BIN)/python -m support.deletion $(DIALECT)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/python -m mypy --strict farm router bench

bench: $(TOOLS)
	$(BIN)/farm bench $(BENCH)

docs: $(DEV)
	$(BIN)/python docs/generate.py
	$(BIN)/python -m mkdocs build --quiet

# Ends with 1 if an input broke a promise; the input is then in tests/fuzz/corpus, as short as it can be.
fuzz: $(DEV)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ)

# Ends with 1 if anything that was accepted is missing, came twice or came in the wrong order. As root it installs
# libfaketime for the clock, if it is missing; what the machine does not allow is left out, and said.
torture: $(DEV)
	tests/install-libfaketime
	PYTHONPATH=tests $(BIN)/python -m torture $(TORTURE)

# The wheel is built from the source distribution, so what is missing there is missing in both. Built with the setuptools
# of the lock file, and without a network; the same commit gives the same bytes.
dist man deb: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date +%s)
dist: $(DEV)
	rm -rf dist
	deploy/dist $(BIN)/python . dist
	$(BIN)/python -m twine check --strict dist/*

# No part of `make test`: it fetches and installs all libraries anew, in a quarter of a minute.
test-pipx: dist
	tests/pipx-installed $(BIN)/python dist/*.whl

man: $(DEV)
	$(BIN)/python docs/manpages.py build/man

# No part of `make test`: to install all libraries anew and pack them takes half a minute, and to try the package root and
# mounts.
deb: dist man
	deploy/debian/build $(BIN)/python dist/*.whl build/man dist

# Ends with 3 where the machine does not allow it, and says why.
test-deb: deb
	tests/deb-installed dist/*.deb

# The same, and two minutes more.
test-systemd: deb
	tests/install-servers $(SERVERS) $(MISSING)
	tests/deb-booted dist/*.deb $(SERVERS)

# buildah, crun and debootstrap, which it installs if they are missing; see tests/support/image.py. Ends with 3 where the
# machine does not allow it, and says why.
test-image: $(DEV)
	PYTHONPATH=tests $(BIN)/python -m support.image

# The stamps: what is installed is right until a lock file or the project's own metadata changes, of which the version is
# in router/__init__.py. The project is installed as a link to this tree, so a changed source needs no new install.
# pip is the last thing that venv makes: without it the folder is half made, and made anew.
$(BIN)/pip:
	@[ -n '$(PYTHON)' ] || { echo "no Python found: apt-get install python3 python3-venv, or make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CPython 3.11 or later is needed: make PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv: apt-get install python3-venv (as root), then run make again" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.lock pyproject.toml router/__init__.py | $(BIN)/pip
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(TOOLS): requirements-tools.lock $(RUNTIME)
	$(PIP) install --quiet --require-hashes -r requirements-tools.lock
	touch $@

$(DEV): requirements-dev.lock $(TOOLS)
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	touch $@

# Resolved against the public index alone, whatever mirrors and wheel folders this machine is set up with, so that
# the hashes are those that every other machine gets.
lock: export PIP_CONFIG_FILE := /dev/null
lock: export PIP_FIND_LINKS :=
lock: export CUSTOM_COMPILE_COMMAND := make lock
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet 'pip-tools>=7.5'
	$(VENV)-lock/bin/pip-compile $(COMPILE) -o requirements.lock pyproject.toml
	$(VENV)-lock/bin/pip-compile $(COMPILE) --extra bench --extra demo --extra trace -c requirements.lock -o requirements-tools.lock pyproject.toml
	$(VENV)-lock/bin/pip-compile $(COMPILE) --extra dev --extra bench --extra demo --extra trace -c requirements-tools.lock -o requirements-dev.lock pyproject.toml
	rm -rf $(VENV)-lock

# `make lock` takes the newest of everything; `make lock UPGRADE=` keeps every version that is locked and only adds and
# drops what pyproject.toml asks for; `make lock UPGRADE=--upgrade-package=trio` lifts one.
UPGRADE := --upgrade
COMPILE := --quiet $(UPGRADE) --generate-hashes --strip-extras --allow-unsafe --build-deps-for wheel \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

clean:
	rm -rf $(VENV) $(VENV)-lock tests/npm/node_modules build dist *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find farm router bench tests -name __pycache__ -type d -prune -exec rm -rf {} +
