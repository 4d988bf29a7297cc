# Everything one does with this repository. Needs Rust (rustup), Go, a C and C++ compiler, bash and git; the other tools are built
# into .tools/, once. `make` alone lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO_DENY_VERSION := 0.20.2
# Said once, in the Go module that builds the control plane.
K8S_VERSION := $(shell awk '$$1 == "k8s.io/kubernetes" { print substr($$2, 2) }' tools/controlplane/go.mod)

built := $(abspath $(or $(CARGO_TARGET_DIR),target))
bin := $(built)/debug
helm := .tools/bin/helm
hydra := .tools/bin/hydra
cargo_deny := .tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

# The control plane that the demo and the tests run against: yours if KUBEBUILDER_ASSETS names a folder that holds one.
ifdef KUBEBUILDER_ASSETS
control_plane :=
else
os := $(shell uname -s | tr A-Z a-z)
arch := $(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(shell uname -m)))
assets := .tools/k8s/$(K8S_VERSION)-$(os)-$(arch)
control_plane := $(assets)/etcd $(assets)/kubectl $(assets)/kube-apiserver
KUBEBUILDER_ASSETS := $(CURDIR)/$(assets)
endif
export KUBEBUILDER_ASSETS
export TIDINGS_HELM := $(CURDIR)/$(helm)
export TIDINGS_HYDRA := $(CURDIR)/$(hydra)

# A cluster that the shell happens to point at is left alone: only `make demo KUBECONFIG=…` uses one.
ifneq ($(origin KUBECONFIG),command line)
unexport KUBECONFIG
endif

# Without network, rustup may lack the toolchain that rust-toolchain.toml names and have the same one as "stable".
rust := $(shell awk -F'"' '$$1 == "channel = " { print $$2 }' rust-toolchain.toml)
same_rust := $(shell rustup run $(rust) true 2>/dev/null || \
	{ cd / && rustc --version 2>/dev/null | grep -qF 'rustc $(rust) ' && rustup default | cut -d' ' -f1; })
ifneq ($(same_rust),)
export RUSTUP_TOOLCHAIN := $(same_rust)
endif

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##### Build and try

.PHONY: build
build: ## build the operator, optimised: target/release/tidings
	cargo build --release --locked --bin tidings

.PHONY: demo
demo: $(control_plane) bins ## show a delivery from end to end on a local control plane; KEEP=1 leaves it running
	TIDINGS_BIN='$(bin)/tidings' '$(bin)/demo'

.PHONY: bins
bins:
	@echo "==> The operator, the demo and the fault campaign (a few minutes the first time)"
	cargo build --workspace --exclude tidings-fuzz --bins --locked

##### Check

.PHONY: test
test: $(control_plane) $(helm) $(hydra) ## run all tests; TEST=word runs those whose name holds the word
	@echo "==> Tests (a few minutes to build the first time)"
	cargo test --workspace --locked $(TEST)

# The targets are instrumented, and the rest of the workspace that they use; dependencies are those that the tests have built.
fuzz: fuzz_targets = $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*$(FUZZ)*.rs))
fuzz: FUZZ_SECONDS ?= 10
fuzz: FUZZ_SEED ?= 1
.PHONY: fuzz
fuzz: ## feed each fuzz target for FUZZ_SECONDS (10); FUZZ=word takes those whose name holds the word, FUZZ_SEED=0 other inputs each time
	@[[ '$(FUZZ_SECONDS)' =~ ^[1-9][0-9]*$$ ]] || { echo "FUZZ_SECONDS=$(FUZZ_SECONDS): say whole seconds, such as 10" >&2; exit 1; }
	@[[ '$(FUZZ_SEED)' =~ ^[0-9]+$$ ]] || { echo "FUZZ_SEED=$(FUZZ_SEED): say a whole number, 0 for another each time" >&2; exit 1; }
	@[[ -n '$(fuzz_targets)' ]] || { echo "FUZZ=$(FUZZ): no target's name holds it; there are:" fuzz/fuzz_targets/*.rs >&2; exit 1; }
	@echo "==> Fuzz targets (a minute to build after the tests)"
	RUSTC_WORKSPACE_WRAPPER='$(CURDIR)/fuzz/rustc' cargo build --package tidings-fuzz --bins --locked
	@for target in $(fuzz_targets); do \
		grown='$(built)'/fuzz/$$target; broken=$$grown.broken; log=$$grown.log; dictionary=fuzz/dictionary/$$target; \
		mkdir -p $$grown $$broken; \
		if '$(bin)'/fuzz_$$target -max_total_time=$(FUZZ_SECONDS) -seed=$(FUZZ_SEED) -timeout=5 -artifact_prefix=$$broken/ \
			$$([[ ! -f $$dictionary ]] || echo -dict=$$dictionary) $$grown fuzz/corpus/$$target >$$log 2>&1; \
		then printf '%-13s %s inputs, no rule broken\n' $$target "$$(sed -n 's/^#\([0-9]*\).*DONE.*/\1/p' $$log)"; \
		else grep -a -B1 -A4 panicked $$log || tail $$log; echo "$$target: the input is in $$broken, the whole log is $$log" >&2; exit 1; fi; \
	done

.PHONY: chaos
chaos: $(control_plane) $(helm) bins ## let all go wrong and check that nothing is lost; DURATION=10m for longer, SEED=7 to repeat, RATE=30 a second, ONLY='Lease back' for some faults
	TIDINGS_BIN='$(bin)/tidings' '$(bin)/chaos'

.PHONY: lint
lint: lint-rust lint-deps lint-generated lint-chart ## check format, code, dependencies, generated files and the chart

.PHONY: lint-rust
lint-rust:
	@echo "==> Format and lints (a few minutes the first time)"
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D rustdoc::broken_intra_doc_links -A rustdoc::private_intra_doc_links -A rustdoc::bare_urls' \
		cargo doc --workspace --exclude tidings-fuzz --no-deps --document-private-items --locked --quiet

.PHONY: lint-deps
lint-deps: $(cargo_deny)
	@echo "==> Licences, bans and sources of the dependencies"
	$(cargo_deny) --workspace --locked --log-level error check licenses bans sources

.PHONY: lint-generated
lint-generated: bins
	@echo "==> Generated files"
	@stale() { echo "$$1 is stale: run make generate" >&2; exit 1; }; \
	$(bin)/tidings crds | diff -u crds/tidings.dev.yaml - || stale crds/; \
	cmp crds/tidings.dev.yaml charts/tidings/files/tidings.dev.yaml || stale charts/tidings/files/

# Lint lets some failures pass that template does not. Whether an API server takes the result is for the tests.
.PHONY: lint-chart
lint-chart: $(helm)
	@echo "==> The chart, with each set of values"
	@for values in charts/tidings/values.yaml charts/tidings/ci/*.yaml; do \
		echo "$$values"; \
		$(helm) lint --strict --quiet --values "$$values" charts/tidings; \
		$(helm) template tidings charts/tidings --values "$$values" >/dev/null; \
	done

.PHONY: bench
bench: $(control_plane) $(helm) ## measure speed, memory and scale beside the API server's own limits; QUICK=1 for a small run, ONLY=scale for a part
	@echo "==> The optimised build (a few minutes the first time), then the measured runs (about seventy minutes; QUICK=1: six minutes)"
	cargo bench --locked --bench bench

.PHONY: audit
audit: $(cargo_deny) ## look the dependencies up in the advisory database (fetches it)
	$(cargo_deny) --workspace --locked check advisories

##### Maintain

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: generate
generate: $(control_plane) $(helm) ## write the generated files anew: crds/, its copy in the chart, docs/api.md, reasons.md, troubleshooting.md
	@echo "==> crds/, docs/api.md, docs/reasons.md and docs/troubleshooting.md"
	TIDINGS_UPDATE_GOLDEN=1 cargo test --workspace --locked --test suite -- golden troubleshooting
	@mkdir -p charts/tidings/files
	cp crds/tidings.dev.yaml charts/tidings/files/

.PHONY: controlplane
controlplane: $(control_plane) ## build the control plane that demo and tests run against, into .tools/

.PHONY: tools
tools: $(control_plane) $(helm) $(hydra) $(cargo_deny) ## build the tools that the other targets need, into .tools/

.PHONY: clean
clean: ## remove what cargo built
	cargo clean

.PHONY: clean-tools
clean-tools: ## remove .tools/ (about twelve minutes to build again)
	rm -rf .tools

##### Tools

$(assets)/kube-apiserver: package := k8s.io/kubernetes/cmd/kube-apiserver
$(assets)/kube-apiserver: takes := 6 minutes
$(assets)/kubectl: package := k8s.io/kubernetes/cmd/kubectl
$(assets)/kubectl: takes := 1 minute
$(assets)/etcd: package := go.etcd.io/etcd/server/v3
$(assets)/etcd: takes := 1 minute

version_package := k8s.io/component-base/version
$(control_plane): tools/controlplane/go.mod tools/controlplane/go.sum
	@echo "==> $(@F) of Kubernetes $(K8S_VERSION), from source (up to $(takes) on two cores, the first time)"
	@mkdir -p $(@D)
	@cd tools/controlplane && CGO_ENABLED=0 go build -trimpath -o $(abspath $@) -ldflags "-s -w \
		-X $(version_package).gitVersion=v$(K8S_VERSION) \
		-X $(version_package).gitMajor=$(word 1,$(subst ., ,$(K8S_VERSION))) \
		-X $(version_package).gitMinor=$(word 2,$(subst ., ,$(K8S_VERSION)))" $(package)
	@touch $@

$(helm): tools/helm/go.mod tools/helm/go.sum
	@echo "==> helm, from source (up to 3 minutes on two cores, the first time)"
	@mkdir -p $(@D)
	@cd tools/helm && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(abspath $@) helm.sh/helm/v4/cmd/helm
	@touch $@

# With SQLite, which keeps its data in memory and is C.
$(hydra): tools/hydra/go.mod tools/hydra/go.sum
	@echo "==> hydra, from source (up to 3 minutes on two cores, the first time)"
	@mkdir -p $(@D)
	@cd tools/hydra && CGO_ENABLED=1 go build -trimpath -tags sqlite -ldflags "-s -w" -o $(abspath $@) github.com/ory/hydra/v2
	@touch $@

# Built to be ready soon, not to be fast.
$(cargo_deny):
	@echo "==> cargo-deny $(CARGO_DENY_VERSION) (up to 2 minutes on two cores, once)"
	@CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		cargo install --quiet --locked --version $(CARGO_DENY_VERSION) cargo-deny \
		--root .tools/cargo-deny-$(CARGO_DENY_VERSION) --target-dir .tools/build
	@rm -rf .tools/build
