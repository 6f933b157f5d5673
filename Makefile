# Every target does its own set-up; `make help` lists them.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

.PHONY: help setup demo test fuzz soak lint bench build proto docs clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: ## Install what is missing: Debian packages, uv, Airflow's Python environment
	@scripts/setup.sh --all

demo: ## Two real Airflow shards, 55 real namespaces: the main job, start to end
	@scripts/demo.sh

# `cargo test` builds the binaries that tests start, too: those of every package with tests of its
# own. Building them before would compile half of everything again, for other features.
test: setup ## All tests, on real PostgreSQL, Redis, RabbitMQ, Prometheus and Airflow
	@export PROPTEST_RNG_SEED="$${PROPTEST_RNG_SEED:-1}"
	cargo test --workspace --locked
	scripts/test-python.sh

# Properties only, or nearly: what else these crates test in their own code takes a few seconds.
fuzz: ## Properties on new cases, many more of them; CASES=100000 says how many
	@PROPTEST_CASES="$(or $(CASES),10000)" cargo test --locked \
		-p airfleet-domain -p airfleet-delivery -p airfleet-router -p airfleet-shard-agent \
		--lib --test 'routing_*' -- $(ONLY)

soak: setup ## Moves between two real Airflows under load; MOVES=140 FAULTS=all SEED=7 breaks things
	@cargo build --release --locked --bins -p airfleet-registry -p airfleet-router \
		-p airfleet-shard-agent -p airfleet-integration-tests
	"$${CARGO_TARGET_DIR:-target}/release/soak" --moves $(or $(MOVES),50) \
		--faults $(or $(FAULTS),none) --seed $(or $(SEED),1) $(if $(ONLY),--only "$(ONLY)")

lint: ## Formatting, clippy, dependency rules, protocol style
	@cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/deny.sh
	scripts/buf-lint.sh

bench: setup ## Figures, into target/bench/report.json; ONLY=resolve runs one group
	@cargo build --release --locked --bins -p airfleet-router -p airfleet-shard-agent -p airfleet-integration-tests
	"$${CARGO_TARGET_DIR:-target}/release/bench" $(if $(ONLY),--only $(ONLY))

build: ## Release binaries, in target/release
	@cargo build --workspace --bins --release --locked

proto: ## Generate proto/src/gen from the .proto files
	@AIRFLEET_PROTO_WRITE=1 cargo test -q -p airfleet-proto-generate

docs: ## Generate the configuration and CLI references
	@AIRFLEET_DOCS_WRITE=1 cargo test -q --workspace --test reference

clean: ## Remove build output and local state
	@cargo clean
	rm -rf .airfleet
