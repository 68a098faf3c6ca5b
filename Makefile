# The front door. `make` alone says what there is; each target does its own set-up.
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Three files at a time, each worker with servers of its own: much of a file is waiting.
WORKERS ?= -n 3 --dist loadfile --no-loadscope-reorder

# Names, versions and hashes, for every Python that there is; and not where they came from.
LOCK := $(BIN)/uv pip compile --quiet --constraint constraints.txt --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt

# The image's name, and what it is built on; a mirror of the package index goes by PIP_INDEX_URL.
BASE ?=
DOCKER ?= docker
BUILT = $(or $(IMAGE),atemporal:latest)

.DEFAULT_GOAL := help
.PHONY: help demo up test test-fast test-unit sim crashes mutants chaos bench lint fmt ci clean
.PHONY: image compose-up compose-down lock infra-plan infra-up infra-down registry deploy deploy-all logs

# What is deployed: its name, the image, the bucket of Terraform's state (deploy/terraform/README.md).
DEPLOYMENT ?=
IMAGE ?=
STATE_BUCKET ?=
TAG ?= $(shell git rev-parse --short=12 HEAD 2> /dev/null)
PRODUCTION := $(BIN)/python -m deploy.production

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET [ARGS=...], where TARGET is:\n"} \
		/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/local.stamp ## Run three jobs on this machine: no account, no server, no docker needed
	@$(BIN)/atemporal demo $(ARGS)

up: $(VENV)/local.stamp ## Run the whole system on this machine until Ctrl-C; its state is kept
	@$(BIN)/atemporal up $(ARGS)

test: $(VENV)/dev.stamp ## Run all tests; sets up the servers they need (ARGS go to pytest)
	@$(BIN)/python -m tests.provision
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-fast: $(VENV)/dev.stamp ## Run the unit tests, and the store's and services' on real servers
	@$(BIN)/python -m tests.provision
	@$(BIN)/python -m pytest $(WORKERS) tests/unit tests/integration \
		--ignore tests/integration/test_local.py --ignore tests/integration/test_servers.py $(ARGS)

test-unit: $(VENV)/dev.stamp ## Run the tests that need nothing but Python
	@$(BIN)/python -m pytest tests/unit $(ARGS)

sim: $(VENV)/dev.stamp ## Simulate the daemons under random schedules: SEED= RUNS= SECONDS=
	@$(BIN)/python -m tests.provision
	@$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED)) $(if $(RUNS),--runs $(RUNS)) \
		$(if $(SECONDS),--seconds $(SECONDS))

crashes: $(VENV)/dev.stamp ## Kill every service before and after its effects: a fifth, or FULL=1 for all; SEED=
	@$(BIN)/python -m tests.provision
	@ATEMPORAL_TEST_CRASHES_FULL=$(FULL) ATEMPORAL_TEST_CRASHES_SEED=$(SEED) \
		$(BIN)/python -m pytest -s tests/chaos/test_crash_matrix.py $(ARGS)

mutants: $(VENV)/dev.stamp ## Make mistakes in a copy of the product; the tests must see each (ARGS pick some)
	@$(BIN)/python -m tests.provision
	@$(BIN)/python -m tests.mutants $(ARGS)

chaos: $(VENV)/dev.stamp ## Break it with real faults, then check every promise: SEED= JOBS= SECONDS=
	@$(BIN)/python -m tests.provision
	@$(BIN)/python -m tests.chaos.run $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(SECONDS),--seconds $(SECONDS))

bench: $(VENV)/dev.stamp ## Measure how fast it is: QUICK=1 FULL=1, ARGS=list names what there is
	@$(BIN)/python -m tests.provision postgres rabbitmq git
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(FULL),--full) $(ARGS)

image: ## Build the container image: IMAGE=atemporal:latest BASE=python:3.11-slim-bookworm
	@$(DOCKER) version > /dev/null || { \
		echo "make image needs a docker that answers: install it, start it, see \`$(DOCKER) version\`" >&2; exit 1; }
	@$(DOCKER) build --tag $(BUILT) $(if $(BASE),--build-arg BASE=$(BASE)) \
		$(if $(PIP_INDEX_URL),--build-arg PIP_INDEX_URL=$(PIP_INDEX_URL)) \
		--build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' atemporal/__init__.py)" \
		--build-arg REVISION="$$(git describe --always --dirty --abbrev=40 --exclude '*')" .

compose-up: image ## Start the whole system by docker-compose, and run one job: no AWS account needed
	@$(DOCKER) build --tag atemporal-twin:latest --build-arg BASE=$(BUILT) deploy/compose/twin
	@IMAGE=$(BUILT) $(PYTHON) -m deploy.compose up

compose-down: ## Stop what compose-up started; VOLUMES=1 removes all jobs and all history
	@$(PYTHON) -m deploy.compose down $(if $(VOLUMES),--volumes)

lock: $(VENV)/dev.stamp ## Write the image's lock files anew, by constraints.txt
	@$(PIP) uv
	@echo 'hatchling>=1.24' | $(LOCK) --output-file deploy/image/build.lock - > /dev/null
	@$(LOCK) --output-file deploy/image/requirements.lock pyproject.toml > /dev/null

lint: $(VENV)/dev.stamp ## Check style, types and shell scripts
	@$(BIN)/python -m tests.provision git shellcheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files -z --cached --others --exclude-standard \
		| xargs -0 awk 'FNR == 1 && /^#!.*[\/ ](ba|da)?sh( |$$)/ {print FILENAME}' \
		| xargs -r shellcheck

fmt: $(VENV)/dev.stamp ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: ## Lint, then all tests: what the continuous integration runs
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test

infra-plan: $(VENV)/dev.stamp ## Say what would be created on AWS, and what it costs: DEPLOYMENT= STATE_BUCKET=
	@$(PRODUCTION) plan --deployment '$(DEPLOYMENT)' --image '$(IMAGE)' --state-bucket '$(STATE_BUCKET)'

infra-up: $(VENV)/dev.stamp ## Create or change it, once you agree: DEPLOYMENT= IMAGE= STATE_BUCKET=
	@$(PRODUCTION) up --deployment '$(DEPLOYMENT)' --image '$(IMAGE)' --state-bucket '$(STATE_BUCKET)' $(ARGS)

infra-down: $(VENV)/dev.stamp ## Take it away, once you type its name: DEPLOYMENT= STATE_BUCKET=
	@$(PRODUCTION) down --deployment '$(DEPLOYMENT)' --state-bucket '$(STATE_BUCKET)' $(ARGS)

registry: $(VENV)/dev.stamp ## Push the image into your account's registry: DEPLOYMENT= TAG=
	@$(PRODUCTION) registry --deployment '$(DEPLOYMENT)' --tag '$(TAG)' $(ARGS)

deploy: $(VENV)/dev.stamp ## Bring an image to the servers, one after the other: DEPLOYMENT= IMAGE= BACK=1
	@$(PRODUCTION) deploy --deployment '$(DEPLOYMENT)' --image '$(IMAGE)' $(if $(BACK),--back) $(ARGS)

deploy-all: $(VENV)/dev.stamp ## From nothing: registry, infra-up, deploy: DEPLOYMENT= TAG= STATE_BUCKET=
	@$(PRODUCTION) deploy-all --deployment '$(DEPLOYMENT)' --tag '$(TAG)' --state-bucket '$(STATE_BUCKET)' $(ARGS)

logs: $(VENV)/dev.stamp ## Follow the daemons' logs: DEPLOYMENT= DAEMON=
	@$(PRODUCTION) logs --deployment '$(DEPLOYMENT)' $(if $(DAEMON),--daemon '$(DAEMON)') $(ARGS)

clean: ## Remove the virtual environment and the tools' caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was made from, so the second time costs nothing.
$(VENV)/local.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing atemporal into $(VENV), once: about a minute"
	@$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing atemporal and its tests' tools into $(VENV), once: a minute or two"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/local.stamp

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "atemporal needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "$(PYTHON) has no venv; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
