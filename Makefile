# The commands of the testbed. `make` alone lists them; every one but help and clean first makes sure that setup is complete.
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
ARGS ?=
PYTEST_ARGS ?=
UNIT_JOBS ?= 2

help: ## list these targets
	@echo "usage: make TARGET [ARGS=\"...\"]"
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { sub("%", "NAME", $$1); printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## install what is missing: packages, .venv (asks for sudo only if something is)
	@scripts/setup

setup-vm: setup ## what real virtual machines need beside it: QEMU, a guest's kernel (docs/vm-migration.md)
	@scripts/setup-vm

topo-datacenter: setup ## the datacenter with its service router: a prompt at a terminal, else a short tour (ARGS="--help", CONTROLLER=ryu)
	@[ "$(CONTROLLER)" != ryu ] || scripts/as-caller scripts/setup-ryu
	@scripts/privileged $(PYTHON) -m testbed run datacenter $(ARGS)

topo-two-hosts: setup ## a client and a server on one wire: a prompt, or a tour (ARGS="--help")
	@scripts/privileged $(PYTHON) -m testbed run two-hosts $(ARGS)

topo-multihomed-server: setup ## a server with two interfaces, and clients (slide 46): a prompt, or a tour in which a flow moves
	@scripts/privileged $(PYTHON) -m testbed run multihomed-server $(ARGS)

topo-mobile-client: setup ## a client with WiFi and a cellular network (slide 45): a prompt, or a tour in which it changes between them
	@scripts/privileged $(PYTHON) -m testbed run mobile-client $(ARGS)

topo-vm-migration: setup ## hosts in different subnets and a virtual machine that moves (slide 47): a prompt, or a tour in which it does
	@scripts/privileged $(PYTHON) -m testbed run vm-migration $(ARGS)

topo-adhoc: setup ## hosts that find services by broadcast, without service router and controller: a prompt, or a tour (ARGS="--help")
	@scripts/privileged $(PYTHON) -m testbed run adhoc $(ARGS)

topo-replicas: setup ## replicas of one service, to compare load-balancing policies: a prompt, or a tour (ARGS="--help")
	@scripts/privileged $(PYTHON) -m testbed run replicas $(ARGS)

check: setup ## what this machine offers, what is missing and how to mend it; really starts two Serval hosts (ARGS="--json")
	@scripts/privileged $(PYTHON) -m testbed check $(ARGS)

test: setup ## everything that must hold: lint, unit, sandbox, emulation, docs, experiments (JOBS=1: nothing beside anything)
	@scripts/test-all

lint: setup ## ruff and mypy
	@echo "== lint: ruff, mypy"
	@scripts/as-caller $(PYTHON) -m ruff check
	@scripts/as-caller $(PYTHON) -m mypy

test-unit: setup ## the tests that need no root and no network (PYTEST_ARGS="-k name"; UNIT_JOBS=0 for one process, as --pdb needs)
	@echo "== unit tests: without root"
	@scripts/as-caller --unprivileged $(PYTHON) -m pytest -q -n $(UNIT_JOBS) tests/unit $(PYTEST_ARGS)

test-sandbox: setup ## the sandbox itself: processes, namespaces, what is left behind
	@echo "== sandbox tests: namespaces of their own"
	@scripts/privileged $(PYTHON) -m pytest -q --no-skips tests/sandbox $(PYTEST_ARGS)

test-emulation: setup ## real nodes on real links, inside one sandbox
	@echo "== emulation tests: inside a sandbox"
	@# The sandbox has no network. 3: this Python cannot run Ryu, which the test says again.
	@scripts/as-caller scripts/setup-ryu || [ $$? -eq 3 ]
	@scripts/privileged $(PYTHON) -m testbed exec -- $(PYTHON) -m pytest -q --no-skips tests/emulation $(PYTEST_ARGS)

test-experiments: setup ## every experiment, as short as it goes: it runs, and its bytes are right
	@echo "== experiments tests: each as short as it goes"
	@scripts/privileged $(PYTHON) -m testbed exec -- $(PYTHON) -m pytest -q --no-skips tests/experiments $(PYTEST_ARGS)

test-docs: setup ## the commands of README.md and docs/, typed beside one running network
	@echo "== docs tests: every command of every page"
	@scripts/privileged $(PYTHON) -m pytest -q --no-skips tests/docs $(PYTEST_ARGS)

lab-late-binding: setup ## the lab on late binding: grades labs/late-binding/late_binding.py (its README.md is the sheet; ARGS="--work FILE")
	@scripts/privileged $(PYTHON) labs/late-binding/grade.py $(ARGS)

bench: setup ## measure the speed, about twelve minutes (ARGS="--list", ARGS="connect --pairs 6"): a table, plots and JSON in results/bench
	@scripts/privileged $(PYTHON) -m experiments.benchmarks $(ARGS)

experiments: setup ## all experiments, of each as much as fits into 20 minutes together (ARGS="--plan", ARGS="NAME NAME --minutes 60")
	@scripts/privileged $(PYTHON) -m experiments $(ARGS)

experiment-%: setup ## one experiment, as `testbed experiments` lists them (ARGS="--list", ARGS="--runs 5", ARGS="--help")
	@test -f experiments/$(subst -,_,$*).py || { echo "make $@: no such experiment; .venv/bin/testbed experiments lists them"; exit 1; }
	@scripts/privileged $(PYTHON) -m experiments.$(subst -,_,$*) $(ARGS)

report: setup ## summary and HTML page of experiments (ARGS="results/NAME/RUN"; default: the newest run of each)
	@scripts/as-caller $(PYTHON) -m testbed report $(ARGS)

plots: setup ## the pictures of experiments as SVG, PNG and PDF (ARGS="results/NAME/RUN --formats svg"; default: as above)
	@scripts/as-caller $(PYTHON) -m testbed plots $(ARGS)

model-check: setup ## every interleaving of a flow's move, up to bounds: is there one that gets stuck? (ARGS="--help")
	@scripts/as-caller --unprivileged $(PYTHON) -m tests.model_check $(ARGS)

fuzz: setup ## damaged input to all parsers and to running stacks, for a minute (ARGS="--seconds 600 --target stack", ARGS="--help")
	@scripts/as-caller --unprivileged $(PYTHON) -m tests.fuzz $(ARGS)

test-wireshark: ## serval.lua in tshark against the captures; installs nothing, says what it lacks
	@command -v tshark >/dev/null || { echo "make test-wireshark: needs tshark: sudo apt-get install --no-install-recommends tshark"; exit 1; }
	@test -x $(PYTHON) || { echo "make test-wireshark: needs the Python environment: make setup"; exit 1; }
	@echo "== wireshark: $$(tshark --version 2>/dev/null | head -n 1)"
	@scripts/as-caller $(PYTHON) -m pytest -q --no-skips tests/wireshark $(PYTEST_ARGS)

reference: setup ## write the pages of docs/ that are made from the code: commands, API, statements
	@scripts/as-caller $(PYTHON) -m scripts.reference

clean: ## remove .venv and everything else that can be made again (not results/)
	@rm -rf .venv .venv-ryu .vm build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# All of them: a file or directory of the same name (experiments, results) must not stand for one.
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*## .*/\1/p' $(firstword $(MAKEFILE_LIST)))
