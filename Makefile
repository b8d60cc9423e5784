# HPK's commands. `make demo` and `make test` set up everything they need.
SHELL := /bin/bash
.DELETE_ON_ERROR:
HPK := .venv/bin/hpk
# Tests wait more than they compute, so more processes run them than there are cores, each in a lab
# of its own; 0 is this process and one lab. Each is given file after file, in the order written.
WORKERS ?= 3
PYTEST := .venv/bin/pytest --durations=15 -n $(WORKERS) --max-worker-restart 0 \
	--dist loadfile --no-loadscope-reorder
STEP := scripts/step

.PHONY: help preflight setup demo demo-down test fresh check unit slurm e2e long bench scale chaos \
	conformance clean

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

preflight: ## say all that this machine lacks, and change nothing
	@scripts/preflight

setup: preflight ## install what is missing: OS packages, Python environment, upstream programs, images
	@$(STEP) "OS packages" scripts/install-os-packages
	@$(STEP) "Python environment" scripts/install-python
	@$(STEP) "Kubernetes, etcd, CoreDNS" $(HPK) setup binaries
	@$(STEP) "Argo Workflows" $(HPK) setup binaries workflow-controller argoexec
	@$(STEP) "Apptainer" $(HPK) setup apptainer
	@$(STEP) "sample images" $(HPK) setup images

demo: setup ## a private Slurm, a control plane on it, MPI, a Deployment and Argo through both
	@$(STEP) "Slurm lab" $(HPK) lab up
	@$(STEP) "images into the lab's registry" $(HPK) lab registry
	@scripts/demo

demo-down: ## stop the demo; nothing of it is left
	@$(STEP) "Slurm lab down" $(HPK) lab down

fresh: ## the README's first steps on a Debian with nothing but what the README asks for
	@$(STEP) "a fresh machine" scripts/fresh

check: ## linters, type checkers, layers
	@$(STEP) "ruff" .venv/bin/ruff check .
	@$(STEP) "ruff format" .venv/bin/ruff format --check .
	@$(STEP) "mypy" .venv/bin/mypy
	@$(STEP) "import-linter" .venv/bin/lint-imports
	@$(STEP) "shellcheck" scripts/shellcheck

unit: ## tests that need no cluster
	$(PYTEST) tests/unit tests/golden

slurm: ## tests on the lab's real Slurm
	$(PYTEST) tests/slurm

e2e: ## tests of everything, the control plane included
	$(PYTEST) tests/e2e -m "not long"

test: setup check ## set up everything and pass the tests
	$(PYTEST) tests/e2e tests/slurm tests/unit tests/golden -m "not long"

long: setup ## the tests that `make test` leaves out for time, or because they break the lab they run in
	$(PYTEST) tests/e2e tests/slurm -m long

bench: setup ## measure, and write docs/benchmarks.md
	@$(STEP) "Slurm lab" $(HPK) lab up
	@$(STEP) "images into the lab's registry" $(HPK) lab registry
	.venv/bin/python -m tests.bench

MINUTES ?= 60
SEED ?=
chaos: setup ## random faults in a lab of its own (make chaos MINUTES=5 SEED=7): what held, what did not
	.venv/bin/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

N ?= 1000
scale: setup ## measure N pods (make scale N=3000), and write it into docs/benchmarks.md
	@$(STEP) "Slurm lab" $(HPK) lab --name hpk-lab-scale up --nodes 24
	@$(STEP) "images into the lab's registry" $(HPK) lab --name hpk-lab-scale registry
	HPK_TEST_LAB=hpk-lab-scale .venv/bin/python -m tests.bench.scale $(N)
	@$(STEP) "Slurm lab down" $(HPK) lab --name hpk-lab-scale down

FOCUS ?= [Conformance]
AGAIN ?=
conformance: setup ## Kubernetes' own conformance tests (make conformance FOCUS='[sig-node]' AGAIN=failed)
	.venv/bin/python -m tests.conformance --document --focus '$(FOCUS)' $(if $(AGAIN),--again $(AGAIN))

clean: ## remove what was made in the checkout
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
