# Each target does its own set-up: a fresh clone needs no other command first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test soak fuzz check bench lock clean

BIN := .venv/bin

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/ready ## Install what the project needs

.venv/ready: scripts/setup pyproject.toml requirements/dev.txt package-lock.json
	@scripts/setup

demo: .venv/ready ## Run a real agent under custody, from start to receipt
	@$(BIN)/python scripts/demo.py

test: .venv/ready ## Run all tests
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

soak: .venv/ready ## Kill processes at random, 200 times on each database (about 35 minutes); SEED=... repeats one
	$(BIN)/pytest -m soak -n 2
	PYTHONPATH=tests $(BIN)/python -m soak $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS))

fuzz: .venv/ready ## Send what no client sends to every endpoint of a service: make fuzz SECONDS=3600 SEED=1
	PYTHONPATH=tests $(BIN)/python -m service.fuzzing $(or $(SECONDS),600) $(SEED)

check: .venv/ready ## Lint, check types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin src
	$(BIN)/lint-imports
	$(BIN)/bailee manifests render --check
	$(BIN)/python -m bailee.cli.reference --check docs/cli.md

bench: .venv/ready ## Measure start, gateway, ingest, egress, vault and retention beside peers (about 2 hours)
	bench/setup
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.gateway
	$(BIN)/python -m bench.ingest
	$(BIN)/python -m bench.egress
	$(BIN)/python -m bench.cloud
	$(BIN)/python -m bench.console
	$(BIN)/python -m bench.vault
	$(BIN)/python -m bench.retention

lock: .venv/ready ## Write the hashed requirements files anew
	scripts/lock

clean: ## Remove everything that set-up and tests made
	rm -rf .venv .venv-aider .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache node_modules build dist
