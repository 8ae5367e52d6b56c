# `make` or `make help` lists what there is. Everything is installed into .venv, tests/node/node_modules and tests/bots.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The first Python that is new enough; another one: make run PYTHON=/opt/python3.13/bin/python3
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PIP := .venv/bin/python -m pip --quiet --disable-pip-version-check
NODE := tests/node
BOTS := tests/bots
# More of pytest's own, as in: make test PYTEST_ARGS='-k nginx -x'
PYTEST_ARGS ?=
# As in: make chaos CHAOS_ROUNDS=100 CHAOS_SEED=3 PYTEST_ARGS='-k backup'
CHAOS_ROUNDS ?= 30
CHAOS_SEED ?= 1
PEERS := benchmarks/peers
# As in: make demo-auth DEMO_ARGS='--long-connection'
DEMO_ARGS ?=
# As in: make bench BENCH_ARGS='--rounds 1 --rows closed,400'
BENCH_ARGS ?=

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

.PHONY: run
run: .venv/installed ## install if needed, serve on 127.0.0.1:8091, print the page's address (settings: config/example.env)
	@exec .venv/bin/python app.py

# Bytecode is written also where the environment says otherwise: some hundreds of processes would compile all anew.
.PHONY: test
test: lint node bots ## install if needed, check the code, run all tests (what needs a missing program is skipped)
	@PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest -n 6 --dist worksteal $(PYTEST_ARGS)

.PHONY: lint
lint: .venv/installed-tests ## ruff, mypy, and shellcheck where it is installed
	@.venv/bin/ruff check --quiet .
	@.venv/bin/python -m mypy --no-error-summary
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run .ci/services $(wildcard examples/*.sh examples/*/*.sh); fi

.PHONY: chaos
chaos: .venv/installed-tests node ## half an hour of kills, cuts, pulled cables, full disks and old backups: nothing may be lost or come twice
	@CHAOS_LONG=1 CHAOS_ROUNDS=$(CHAOS_ROUNDS) CHAOS_STEPS=10 CHAOS_POSTS=20 CHAOS_RATE=100 CHAOS_OFFICIAL=60 CHAOS_LIGHT=140 CHAOS_SEED=$(CHAOS_SEED) \
		.venv/bin/python -m pytest -s tests/chaos $(PYTEST_ARGS)

.PHONY: bench
bench: .venv/installed ## measure against stock Flask-SocketIO and Socket.IO for Node; writes docs/performance.md
	@if ! command -v npm >/dev/null; then \
		echo 'npm is not installed: the peer on Node is left out (make services).'; \
	elif ! cmp -s $(PEERS)/package-lock.json $(PEERS)/node_modules/installed.json; then \
		echo 'Installing the packages of $(PEERS) …'; \
		npm ci --prefix $(PEERS) --loglevel=error --no-audit --no-fund >/dev/null && \
		cp $(PEERS)/package-lock.json $(PEERS)/node_modules/installed.json; \
	fi
	@.venv/bin/python -m benchmarks --write $(BENCH_ARGS)

.PHONY: demo-auth
demo-auth: .venv/installed ## a user authorizes through a local Lark in Chromium, step by step (DEMO_ARGS='--language zh')
	@.venv/bin/python examples/demo_auth.py $(DEMO_ARGS)

.PHONY: services
services: ## install the programs that the tests drive (Debian, as root or with sudo); starts none of them
	@.ci/services
	@$(MAKE) node bots

.PHONY: clean
clean: ## remove what is installed or generated here; never instance/, which holds the data
	@rm -rf .venv $(BOTS)/.venv-* $(NODE)/node_modules $(PEERS)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/pyvenv.cfg:
	@if [ -z "$(PYTHON)" ]; then \
		echo 'Python 3.11 or later is needed and not found; name yours: make run PYTHON=/path/to/python3' >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed; $(PYTHON) is " \
		+ sys.version.split()[0])'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing $$package …"; \
			{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $$package; } >/dev/null; \
		else \
			echo "Python's venv module is missing; run: sudo apt-get install -y $$package" >&2; exit 1; \
		fi; }
	@echo 'Making the virtual environment .venv …'
	@$(PYTHON) -m venv --clear .venv

.venv/installed: requirements.txt .venv/pyvenv.cfg
	@echo 'Installing requirements.txt into .venv …'
	@$(PIP) install -r requirements.txt
	@touch $@

.venv/installed-tests: tests/requirements.txt config/requirements-lark.txt .venv/installed
	@echo 'Installing tests/requirements.txt into .venv …'
	@$(PIP) install -r tests/requirements.txt
	@touch $@

.PHONY: node
node:
	@if ! command -v npm >/dev/null; then \
		echo 'npm is not installed: tests that need it are skipped (make services).'; \
	elif ! cmp -s $(NODE)/package-lock.json $(NODE)/node_modules/installed.json; then \
		echo 'Installing the packages of $(NODE) …'; \
		npm ci --prefix $(NODE) --loglevel=error --no-audit --no-fund >/dev/null && \
		cp $(NODE)/package-lock.json $(NODE)/node_modules/installed.json; \
	fi

.PHONY: bots
bots: $(BOTS)/.venv-0.6.8/installed $(BOTS)/.venv-0.7.5/installed

# Both generations of maim_message, each where it can't meet the other or our own packages.
$(BOTS)/.venv-%/installed: $(BOTS)/requirements-%.txt | .venv/pyvenv.cfg
	@echo 'Installing maim_message $* into $(@D) …'
	@.venv/bin/python -m venv --clear --without-pip $(@D)
	@$(PIP) --python $(@D)/bin/python install -r $<
	@touch $@
