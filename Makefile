# Every target sets up what it needs in .venv; nothing outside this folder is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
COMPILE := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.DEFAULT_GOAL := help
.PHONY: help install demo serve test test-engine guards check fix lock prices install-size bench-gateway bench-ledger bench-keys bench-outage bench-against bench-cache bench-batch bench-batch-tools bench-throttled bench-rivals batch-rivals soak clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

demo: $(VENV)/.base  ## See the whole gateway work, on this machine, without any key (half a minute)
	@$(BIN)/tiergate demo

install: $(VENV)/.base  ## Put the command into .venv/bin
	@echo "$(BIN)/tiergate is there; $(BIN)/tiergate --help says what it can do."

serve: $(VENV)/.base  ## Run the gateway with ./tiergate.yaml, or with what it finds on this machine
	@$(BIN)/tiergate serve

test: $(VENV)/.dev  ## Run all tests that need nothing but this folder
	$(BIN)/python -m pytest -q

test-engine: $(VENV)/.dev $(VENV)-engine/.engine  ## Run the tests against a real inference engine (installs one, 1 GB or more)
	$(BIN)/python -m pytest -q -m engine tests/engine

guards: $(VENV)/.dev  ## Take each guard away and see that its test fails (some minutes; ARGUMENTS="--row F15")
	$(BIN)/python tests/guards/run.py $(ARGUMENTS)

check: $(VENV)/.dev  ## Lint, types, the map of the house, the lock files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

fix: $(VENV)/.dev  ## Format and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev  ## Write the lock files anew from pyproject.toml and requirements/*.in
	$(PIP) install pip-tools
	$(COMPILE) -o requirements/base.txt pyproject.toml
	$(COMPILE) -o requirements/build.txt requirements/build.in
	$(COMPILE) -c requirements/base.txt -o requirements/dev.txt requirements/dev.in

prices: $(VENV)/.dev  ## Write the bundled prices anew from the pinned release of genai-prices
	$(BIN)/python scripts/make_prices.py

install-size: $(VENV)/.base  ## Say how much an installation without extras brings, and how soon it answers
	$(PYTHON) -m venv --clear $(VENV)-install
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(VENV)-install/wheel .
	$(VENV)-install/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--only-binary :all: -r requirements/base.txt
	$(VENV)-install/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		$(VENV)-install/wheel/tiergate-*.whl
	$(BIN)/python scripts/measure_install.py $(VENV)-install/bin/python
	rm -rf $(VENV)-install

bench-gateway: $(VENV)/.dev  ## Measure the gateway beside nginx and other gateways; writes BENCHMARKS.md
	$(BIN)/python benchmarks/gateway.py

bench-ledger: $(VENV)/.dev  ## Measure the ledger on SQLite and on PostgreSQL, two replicas included; writes BENCHMARKS.md
	$(BIN)/python benchmarks/ledger.py

bench-keys: $(VENV)/.dev  ## Measure whether the time of a wrong key tells anything of the right one; writes BENCHMARKS.md
	$(BIN)/python benchmarks/keys.py

bench-outage: $(VENV)/.dev  ## Measure what callers and a provider see while it always fails; writes BENCHMARKS.md
	$(BIN)/python benchmarks/outage.py

bench-cache: $(VENV)/.dev  ## Measure hits, and what the cache costs other calls; writes BENCHMARKS.md
	$(BIN)/python benchmarks/cache.py

bench-batch: $(VENV)/.dev  ## Measure batches: lines a second, what the ledger costs, memory at a million lines; writes BENCHMARKS.md
	$(BIN)/python benchmarks/batch.py $(ARGUMENTS)

bench-batch-tools: $(VENV)/.dev  ## Measure tiergate batch run beside other tools that ask many prompts; writes BENCHMARKS.md
	$(BIN)/python benchmarks/batch_tools.py $(ARGUMENTS)

bench-throttled: $(VENV)/.dev  ## Measure a batch whose provider refuses nine of ten for three minutes; writes BENCHMARKS.md
	$(BIN)/python benchmarks/throttled.py $(ARGUMENTS)

bench-against: $(VENV)/.dev  ## Measure this tree against an earlier commit (REVISION=...); writes BENCHMARKS.md
	$(BIN)/python benchmarks/against.py $(REVISION)

soak: $(VENV)/.dev  ## Run it under mixed faults for half an hour; writes BENCHMARKS.md (ARGUMENTS="--seconds 60")
	$(BIN)/python benchmarks/soak.py $(ARGUMENTS)

clean:  ## Remove the environments
	rm -rf $(VENV) $(VENV)-engine

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tiergate needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "This Python cannot make environments. On Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: requirements/base.txt requirements/build.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --only-binary :all: -r requirements/base.txt -r requirements/build.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.base
	$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

# The engine has an environment of its own: the gateway only speaks HTTP to it.
$(VENV)-engine/.engine: requirements/engine.in | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-engine
	$(VENV)-engine/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/engine.in
	@touch $@

# Other gateways, to measure beside ours; each in a place of its own.
bench-rivals:  ## Install LiteLLM, sglang-router and (with npm) Portkey for make bench-gateway
	$(PYTHON) -m venv .venv-litellm && .venv-litellm/bin/python -m pip install --quiet 'litellm[proxy]'
	$(PYTHON) -m venv .venv-sglang-router && .venv-sglang-router/bin/python -m pip install --quiet sglang-router
	if command -v npm >/dev/null; then npm install --silent --prefix .venv-portkey @portkey-ai/gateway; fi

# The same for what asks many prompts.
COOKBOOK ?= 04a3090348d4ce2e7977612fdf99b7f906a00b43

batch-rivals:  ## Install flexllm, curator and the script of OpenAI's cookbook for make bench-batch-tools
	$(PYTHON) -m venv .venv-flexllm && .venv-flexllm/bin/python -m pip install --quiet flexllm
	$(PYTHON) -m venv .venv-curator && .venv-curator/bin/python -m pip install --quiet bespokelabs-curator
	$(PYTHON) -m venv .venv-cookbook && .venv-cookbook/bin/python -m pip install --quiet aiohttp tiktoken
	test -e .venv-cookbook/api_request_parallel_processor.py || curl -fsSL -o .venv-cookbook/api_request_parallel_processor.py \
		https://raw.githubusercontent.com/openai/openai-cookbook/$(COOKBOOK)/examples/api_request_parallel_processor.py
