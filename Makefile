# Everything a person or a machine does with this repository. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Where cargo builds: the tools of the checks and the tests' model are kept there too.
TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := $(TARGET)/venv
MODELS := $(TARGET)/models

# Checks and tests share what they build; on a machine that builds once, incremental builds only cost.
ifdef CI
export CARGO_INCREMENTAL := 0
endif

.PHONY: help
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## build Arriero and start it; without an Ollama it serves a demo model (flags: ARGS="--listen 127.0.0.1:9000")
	@scripts/require.sh cargo cc python3 pip
	cargo build --release --locked
	exec scripts/run.sh "$(TARGET)/release/arriero" $(ARGS)

.PHONY: test
test: model ## run all tests
	@scripts/require.sh cargo cc
	cargo test --locked --workspace

.PHONY: fuzz
fuzz: ## look for files that a reader does not survive (FOR=60 seconds for each target; ONLY="gguf config")
	@scripts/require.sh cargo cc python3
	command -v cargo-fuzz >/dev/null || { echo "cargo fuzz is not on this machine: cargo install --locked cargo-fuzz" >&2; exit 1; }
	scripts/fuzz.sh "$(TARGET)" "$(or $(FOR),60)" $(ONLY)

.PHONY: generated
generated: ## write openapi/openapi.json and the generated pages of docs/ anew
	ARRIERO_TEST_UPDATE=1 cargo test --locked --test it docs

.PHONY: model
model: ## fetch the demo model and the embedding model for the tests, once
	@scripts/require.sh python3 pip
	python3 scripts/demo_model.py --to "$(MODELS)"
	python3 scripts/embedding_model.py --to "$(MODELS)"

.PHONY: check
check: check-rust check-files ## run all lints

.PHONY: check-rust
check-rust:
	@scripts/require.sh cargo cc
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	# The relay alone, without the engine: its own build of this package, on dependencies that are built already.
	cargo clippy --locked --lib --bins --no-default-features -- -D warnings
	# What it asks of licences and sources needs no network; the database of advisories does, and is asked only where it answers.
	if command -v cargo-deny >/dev/null; then
	    cargo deny --locked check bans licenses sources
	    if cargo deny --locked fetch db >/dev/null 2>&1; then
	        cargo deny --locked check advisories
	    else
	        echo "skipped: the database of advisories cannot be reached"
	    fi
	else
	    echo "skipped: cargo deny is not on this machine (cargo install --locked cargo-deny)"
	fi

.PHONY: check-files
check-files: $(VENV)/ready
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/shellcheck .ci/run scripts/*.sh
	python3 -c 'import ast, sys; [ast.parse(open(file).read(), file) for file in sys.argv[1:]]' scripts/*.py

# The linters that come from PyPI, in an environment of their own.
$(VENV)/ready: scripts/requirements.txt
	@scripts/require.sh python3 venv
	python3 -m venv $(VENV) || { echo "python3 -m venv does not work here (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
	touch $@

.PHONY: bench
bench: model ## measure against direct access, nginx and llama.cpp; what people feel, with Ollama alone and behind Arriero
	@scripts/require.sh cargo cc
	cargo build --release --locked --workspace
	scripts/bench.sh "$(TARGET)/release" "$(MODELS)/gemma-3-270m-q4_k_m.gguf" "$(VENV)"
