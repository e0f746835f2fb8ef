# The verbs of this repository. Each does everything it needs, on a fresh machine too.

SHELL := bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
# Outside the checkout, so that every clone on a machine shares one build of the dependencies.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/longshore/target

.PHONY: help setup build demo test bench failures flood fuzz simulate conformance clients screenshots deny

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## Install what is missing: compiler, Rust, Docker engine, runner image
	@./deploy/setup.sh

build: ## Build the one binary, longshore
	cargo build --locked
	@printf '%s\n' 'The binary is $(CARGO_TARGET_DIR)/debug/longshore. To have it as a command here:' \
		'  export PATH="$(CARGO_TARGET_DIR)/debug:$$PATH"'

demo: ## A job event in, a signed result out, on embedded parts (KEEP=1 stays up)
	@./tests/demo.sh $(if $(KEEP),--keep)

test: ## Everything: format, lints, docs, unit and system tests
	@./tests/test.sh

bench: ## Ratios against floors of the same run (ARGS='--only g1,g3'); BASE=commit puts that commit beside
	@./deploy/setup.sh
	cargo build --locked --release -p longshore -p longshore-tests --bin longshore --bin relay --bin bench
	base=$$($(if $(BASE),./tests/base.sh '$(BASE)',true)) && \
		cargo run --locked --release -p longshore-tests --bin bench -- $${base:+--base "$$base"} $(ARGS)

failures: ## Kill relay, coordinator and worker at random moments: make failures KILLS=200 [SEED=n]
	@cargo build --locked -p longshore -p longshore-tests --bin longshore --bin relay --bin failures
	$(CARGO_TARGET_DIR)/debug/failures --kills $(or $(KILLS),20) $(if $(SEED),--seed $(SEED))

flood: ## Flood a pool with what strangers can open, send and run (ARGS='--only events --scale 0.1' or '--only jobs')
	@./deploy/setup.sh
	@cargo build --locked --release -p longshore -p longshore-tests --bin longshore --bin relay --bin flood
	$(CARGO_TARGET_DIR)/release/flood $(ARGS)

fuzz: ## Fuzz what comes from outside, a minute for each target: make fuzz [SECONDS=600] [TARGETS='masking logs']
	./fuzz/run.sh $(or $(SECONDS),60) $(TARGETS)

simulate: ## Simulate pools whose parts fail: make simulate SEEDS=1000 [SEED=n: that one, with all that happens]
	@cargo build --locked --release -p longshore-simulation
	$(CARGO_TARGET_DIR)/release/simulate $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000)) $(ARGS)

conformance: ## Run a corpus: make conformance DIR=… [ARGS='--only expressions']
	@test -n "$(DIR)" || { echo 'conformance: name the corpus: make conformance DIR=path' >&2; exit 2; }
	@cargo build --locked -p longshore
	cargo run --locked -p longshore-tests --bin conformance -- $(DIR) $(ARGS)

clients: ## Drive a pool with the real ngit and ngit-grasp, which are built from crates.io once
	@./tests/clients.sh $(ARGS)

screenshots: ## Every page of the dashboard, light and dark, into docs/screenshots
	@./deploy/setup.sh --tests
	cargo build --locked -p longshore -p longshore-tests --bin longshore --bin screenshots
	$(CARGO_TARGET_DIR)/debug/screenshots docs/screenshots

deny: ## Licences, bans and sources of the dependencies
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources
