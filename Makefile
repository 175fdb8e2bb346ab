# Everything a developer or a build machine runs. Only Python (3.11 or newer) and make are needed.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# uv installs much faster than pip; it does not read pip's settings, so a local wheel folder that
# pip knows is handed over. Where uv can not be installed, pip does the work.
define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
	@wheels="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)"; \
	if [ -d "$$wheels" ]; then export UV_FIND_LINKS="$$wheels"; fi; \
	if [ -x $(BIN)/uv ]; then \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(1)]'; \
	else \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(1)]'; \
	fi
	@touch $@
endef

$(VENV)/.installed-demo: pyproject.toml constraints.txt
	$(call install,demo)

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(call install,dev)

# The stub compiler pins an old protobuf, so it lives in an environment of its own.
.venv-proto/.installed: proto/generate.py
	@$(PYTHON) -m venv .venv-proto
	@.venv-proto/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.71.2
	@touch $@

.PHONY: demo
demo: $(VENV)/.installed-demo ## one real federated fine-tune on this machine, start to finish
	@exec $(BIN)/flasc demo

.PHONY: install
install: $(VENV)/.installed-dev ## an editable install with everything, in .venv

.PHONY: stubs
stubs: .venv-proto/.installed ## regenerate the protobuf stubs
	.venv-proto/bin/python proto/generate.py

.PHONY: check-stubs
check-stubs: .venv-proto/.installed
	.venv-proto/bin/python proto/generate.py --check

.PHONY: check
check: $(VENV)/.installed-dev check-stubs ## style, types, layers, fresh stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test
test: check ## check, then every quick test that needs only Python
	$(BIN)/python -m pytest -m "not slow and not containers"

.PHONY: test-all
test-all: ## install browser, buf and container engine; then every test
	deploy/install-test-tools.sh
	$(MAKE) check
	$(BIN)/python -m pytest

.PHONY: bench
bench: $(VENV)/.installed-dev ## run the benchmarks; results in benchmarks/results
	$(BIN)/python -m benchmarks

.PHONY: clean
clean: ## remove what was built and installed
	rm -rf $(VENV) .venv-proto build dist .pytest_cache .mypy_cache .ruff_cache
