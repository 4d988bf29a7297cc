# All tasks of this repository. Needs Rust (rustup), Go, a C and C++ compiler, bash and git. The Makefile builds the other tools into
# .tools/ once. `make` without a target lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO_DENY_VERSION := 0.20.2
KEYCLOAK_VERSION := 26.7.3
KEYCLOAK_SHA256 := 77657f30b7e90d70f727712ce1c967f430fd6a5e9f458d32d8c6df0635345f47
# The version of Kubernetes comes from the Go module that builds the control plane.
K8S_VERSION := $(shell awk '$$1 == "k8s.io/kubernetes" { print substr($$2, 2) }' tools/controlplane/go.mod)
# The chart is checked with the schemas of the oldest version of Kubernetes that it supports, of the version above, and of
# the kinds of Prometheus Operator.
K8S_SCHEMAS := 1.32.13 $(K8S_VERSION)
PROMETHEUS_OPERATOR_VERSION := 0.94.0

built := $(abspath $(or $(CARGO_TARGET_DIR),target))
bin := $(built)/debug
helm := .tools/bin/helm
hydra := .tools/bin/hydra
keycloak := .tools/keycloak-$(KEYCLOAK_VERSION)/bin/kc.sh
jaeger := .tools/bin/jaeger
kubeconform := .tools/bin/kubeconform
prometheus := .tools/bin/prometheus .tools/bin/promtool
kstatus := .tools/bin/kstatus
gitops_crds := .tools/crds/gitops.yaml
cargo_deny := .tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
operator_schemas := .tools/schemas/prometheus-operator-$(PROMETHEUS_OPERATOR_VERSION)
k8s_schemas := $(K8S_SCHEMAS:%=.tools/schemas/kubernetes-%)

# The control plane for the demo and the tests. Set KUBEBUILDER_ASSETS to a folder with one to use your own.
ifdef KUBEBUILDER_ASSETS
control_plane :=
else
os := $(shell uname -s | tr A-Z a-z)
arch := $(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(shell uname -m)))
assets := .tools/k8s/$(K8S_VERSION)-$(os)-$(arch)
control_plane := $(addprefix $(assets)/,etcd kubectl kube-apiserver kube-controller-manager)
KUBEBUILDER_ASSETS := $(CURDIR)/$(assets)
endif
export KUBEBUILDER_ASSETS
export TIDINGS_HELM := $(CURDIR)/$(helm)
export TIDINGS_HYDRA := $(CURDIR)/$(hydra)
export TIDINGS_KEYCLOAK := $(CURDIR)/$(keycloak)
export TIDINGS_JAEGER := $(CURDIR)/$(jaeger)
export TIDINGS_KSTATUS := $(CURDIR)/$(kstatus)
export TIDINGS_GITOPS_CRDS := $(CURDIR)/$(gitops_crds)

# The cluster in the shell's KUBECONFIG is never used: only `make demo KUBECONFIG=…` uses a cluster.
ifneq ($(origin KUBECONFIG),command line)
unexport KUBECONFIG
endif

# Without network, rustup may have the toolchain of rust-toolchain.toml only under the name "stable".
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
build: ## build the optimized operator: target/release/tidings
	cargo build --release --locked --bin tidings

.PHONY: demo
demo: $(control_plane) bins ## deliver the examples end to end on a local control plane; KEEP=1 keeps it running
	TIDINGS_BIN='$(bin)/tidings' '$(bin)/demo'

.PHONY: bins
bins:
	@echo "==> The operator, the demo and the fault campaign (a few minutes the first time)"
	cargo build --workspace --exclude tidings-fuzz --bins --locked

##### Check

.PHONY: test
test: $(control_plane) $(helm) $(hydra) $(kstatus) $(gitops_crds) ## run all tests; TEST=word runs the tests whose names contain the word
	@echo "==> Tests (a few minutes to build the first time)"
	cargo test --workspace --locked $(TEST)

.PHONY: keycloak
keycloak: $(control_plane) $(helm) $(keycloak) ## test every client authentication with Keycloak and write docs/keycloak.md (needs Java and Maven)
	@echo "==> Keycloak $(KEYCLOAK_VERSION): a minute to start, then a minute"
	cargo test --locked --test keycloak

# Instruments the targets and the workspace crates that they use. Reuses the dependencies that the tests have built.
fuzz: fuzz_targets = $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*$(FUZZ)*.rs))
fuzz: FUZZ_SECONDS ?= 10
fuzz: FUZZ_SEED ?= 1
.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZ_SECONDS (10); FUZZ=word selects targets, FUZZ_SEED=0 varies the inputs
	@[[ '$(FUZZ_SECONDS)' =~ ^[1-9][0-9]*$$ ]] || { echo "FUZZ_SECONDS=$(FUZZ_SECONDS): must be whole seconds, for example 10" >&2; exit 1; }
	@[[ '$(FUZZ_SEED)' =~ ^[0-9]+$$ ]] || { echo "FUZZ_SEED=$(FUZZ_SEED): must be a whole number; 0 varies the inputs" >&2; exit 1; }
	@[[ -n '$(fuzz_targets)' ]] || { echo "FUZZ=$(FUZZ): no target has this in its name; the targets are:" fuzz/fuzz_targets/*.rs >&2; exit 1; }
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
chaos: $(control_plane) $(helm) bins ## inject faults and check that no event is lost; DURATION=10m, SEED=7, RATE=30, ONLY='Lease back'
	TIDINGS_BIN='$(bin)/tidings' '$(bin)/chaos'

# Not part of the tests, because Jaeger takes long to build.
.PHONY: jaeger
jaeger: $(control_plane) $(helm) $(jaeger) ## export traces to a real Jaeger, by both protocols, and read them there
	@echo "==> Traces, received by Jaeger"
	cargo test --locked --test jaeger

.PHONY: lint
lint: lint-rust lint-deps lint-generated lint-docs lint-chart lint-commits ## check code, dependencies, generated files, docs, chart and commits

.PHONY: lint-rust
lint-rust:
	@echo "==> Format and lints (a few minutes the first time)"
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --test keycloak --test jaeger --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' \
		cargo doc --workspace --exclude tidings-fuzz --no-deps --document-private-items --locked --quiet

.PHONY: lint-deps
lint-deps: $(cargo_deny)
	@echo "==> Licenses, bans and sources of the dependencies"
	$(cargo_deny) --workspace --locked --log-level error check licenses bans sources

.PHONY: lint-generated
lint-generated: bins
	@echo "==> Generated files"
	@stale() { echo "$$1 is stale: run make generate" >&2; exit 1; }; \
	$(bin)/tidings crds | diff -u crds/tidings.dev.yaml - || stale crds/; \
	cmp crds/tidings.dev.yaml charts/tidings/files/tidings.dev.yaml || stale charts/tidings/files/

# The tests of the pages alone: generated pages, private words, links. The control plane is not needed.
.PHONY: lint-docs
lint-docs:
	@echo "==> Pages: generated parts, plain English, links"
	cargo test --locked --quiet --test suite -- docs::golden docs::prose

.PHONY: lint-commits
lint-commits:
	@echo "==> Subjects of commits"
	@.ci/commit-subjects

# helm lint misses some failures that helm template finds. The tests check whether an API server accepts the result.
.PHONY: lint-chart
lint-chart: file = {{.ResourceKind}}{{.KindSuffix}}.json
lint-chart: $(helm) $(kubeconform) $(k8s_schemas) $(operator_schemas)
	@echo "==> The chart, with each set of values, and by the schemas of Kubernetes $(K8S_SCHEMAS)"
	@for values in charts/tidings/ci/*.yaml; do \
		echo "$$values"; \
		$(helm) lint --strict --quiet --values "$$values" charts/tidings; \
		for schemas in $(k8s_schemas); do \
			$(helm) template tidings charts/tidings --values "$$values" | $(kubeconform) -strict -summary \
				-schema-location "$$schemas/$(file)" -schema-location '$(operator_schemas)/$(file)'; \
		done; \
	done

.PHONY: rules
rules: .tools/bin/promtool ## run the unit tests of the alerting rules with promtool
	@echo "==> The alerting rules"
	.tools/bin/promtool check rules --lint=all --lint-fatal charts/tidings/files/alerts.yaml
	.tools/bin/promtool test rules tests/alerts/alerts.yaml

# What needs programs that take too long to build for CI. Each proof is a target of its own: add it here.
verifications := verify-monitoring keycloak jaeger

.PHONY: verify
verify: $(verifications) ## check alerts and dashboard with a real Prometheus, and write docs/verify.md (about fifteen minutes)

# WALK=1 breaks one thing without saying which, and waits; WALK=1 FAULT=3 breaks the third.
.PHONY: verify-monitoring
verify-monitoring: $(control_plane) $(helm) $(prometheus) bins
	@echo "==> Prometheus, two operators under load, and faults"
	TIDINGS_BIN='$(bin)/tidings' '$(bin)/verify' $(if $(WALK),break $(FAULT))

.PHONY: bench
bench: $(control_plane) $(helm) ## measure speed, memory and scale beside the API server's own limits; QUICK=1, ONLY=scale
	@echo "==> The optimized build (a few minutes the first time), then the measured runs (about seventy minutes; QUICK=1: six minutes)"
	cargo bench --locked --bench bench

.PHONY: audit
audit: $(cargo_deny) ## check the dependencies against the advisory database (downloads it)
	$(cargo_deny) --workspace --locked check advisories

##### Maintain

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: generate
generate: $(control_plane) $(helm) $(kstatus) ## regenerate crds/, the copy and the README of the chart, and api.md, gitops.md, messages.md, reasons.md, troubleshooting.md in docs/
	@echo "==> crds/, charts/tidings/README.md, docs/api.md, docs/gitops.md (a table), docs/messages.md, docs/reasons.md and docs/troubleshooting.md"
	TIDINGS_UPDATE_GOLDEN=1 cargo test --workspace --locked --test suite -- golden troubleshooting
	@mkdir -p charts/tidings/files
	cp crds/tidings.dev.yaml charts/tidings/files/

.PHONY: controlplane
controlplane: $(control_plane) ## build the control plane that demo and tests run against, into .tools/

.PHONY: tools
tools: $(control_plane) $(helm) $(hydra) $(kstatus) $(gitops_crds) $(kubeconform) $(cargo_deny) ## build the tools that the other targets need, into .tools/

.PHONY: hooks
hooks: ## check the subject of each commit that you make in this clone (installs a commit-msg hook)
	@ln -sf '$(CURDIR)/.ci/commit-subjects' "$$(git rev-parse --git-path hooks)/commit-msg"
	@echo "installed $$(git rev-parse --git-path hooks)/commit-msg"

.PHONY: clean
clean: ## remove the build output of cargo
	cargo clean

.PHONY: clean-tools
clean-tools: ## remove .tools/ (about thirteen minutes to build again)
	rm -rf .tools

##### Tools

$(assets)/kube-apiserver: package := k8s.io/kubernetes/cmd/kube-apiserver
$(assets)/kube-apiserver: takes := 6 minutes
$(assets)/kube-controller-manager: package := k8s.io/kubernetes/cmd/kube-controller-manager
$(assets)/kube-controller-manager: takes := 3 minutes
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

# With SQLite, which keeps the data in memory and needs a C compiler.
$(hydra): tools/hydra/go.mod tools/hydra/go.sum
	@echo "==> hydra, from source (up to 3 minutes on two cores, the first time)"
	@mkdir -p $(@D)
	@cd tools/hydra && CGO_ENABLED=1 go build -trimpath -tags sqlite -ldflags "-s -w" -o $(abspath $@) github.com/ory/hydra/v2
	@touch $@

# From Maven Central, and prepared for a start without a build: the data is in memory, and client certificates are requested.
$(keycloak):
	@echo "==> keycloak $(KEYCLOAK_VERSION) from Maven Central (170 MB), up to 2 minutes, once"
	@mkdir -p .tools/build-keycloak
	@mvn --quiet --batch-mode -Dstyle.color=never -Dmaven.repo.local=$(CURDIR)/.tools/build-keycloak/maven -DoutputDirectory=$(CURDIR)/.tools/build-keycloak \
		org.apache.maven.plugins:maven-dependency-plugin:2.8:copy \
		-Dartifact=org.keycloak:keycloak-quarkus-dist:$(KEYCLOAK_VERSION):tar.gz
	@cd .tools/build-keycloak && echo '$(KEYCLOAK_SHA256)  keycloak-quarkus-dist-$(KEYCLOAK_VERSION).tar.gz' | sha256sum --check --quiet
	@tar -xzf .tools/build-keycloak/keycloak-quarkus-dist-$(KEYCLOAK_VERSION).tar.gz -C .tools/build-keycloak
	@.tools/build-keycloak/keycloak-$(KEYCLOAK_VERSION)/bin/kc.sh build --db=dev-mem --cache=local --https-client-auth=request >.tools/build-keycloak/keycloak.log 2>&1 \
		|| { cat .tools/build-keycloak/keycloak.log >&2; exit 1; }
	@mv .tools/build-keycloak/keycloak-$(KEYCLOAK_VERSION) .tools/
	@rm -rf .tools/build-keycloak

$(jaeger): tools/jaeger/go.mod tools/jaeger/go.sum
	@echo "==> jaeger, from source (ten minutes and more on two cores, once)"
	@mkdir -p $(@D)
	@cd tools/jaeger && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(abspath $@) github.com/jaegertracing/jaeger/cmd/jaeger
$(kubeconform): tools/kubeconform/go.mod tools/kubeconform/go.sum
	@echo "==> kubeconform, from source (up to a minute on two cores, the first time)"
	@mkdir -p $(@D)
	@cd tools/kubeconform && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(abspath $@) github.com/yannh/kubeconform/cmd/kubeconform
	@touch $@

# The API that each version of Kubernetes publishes, from its Go module.
$(k8s_schemas): .tools/schemas/kubernetes-%: tools/kubeconform/schemas/main.go tools/kubeconform/go.mod
	@folder="$$(cd /; go mod download -json k8s.io/kubernetes@v$* | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p')"; \
		cd tools/kubeconform && go run ./schemas $(abspath $@) "$$folder/api/openapi-spec/swagger.json"
	@touch $@

# The CustomResourceDefinitions of Prometheus Operator, from its Go module.
$(operator_schemas): tools/kubeconform/schemas/main.go tools/kubeconform/go.mod
	@folder="$$(cd /; go mod download -json github.com/prometheus-operator/prometheus-operator@v$(PROMETHEUS_OPERATOR_VERSION) | \
			sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p')"; \
		cd tools/kubeconform && go run ./schemas $(abspath $@) "$$folder"/example/prometheus-operator-crd/*_{pod,service}monitors.yaml \
			"$$folder"/example/prometheus-operator-crd/*_prometheusrules.yaml
	@touch $@

# Without the clients of cloud providers, in which Prometheus could look for targets.
$(prometheus): tools/prometheus/go.mod tools/prometheus/go.sum
	@echo "==> $(@F), from source (up to 8 minutes on two cores for both programs, the first time)"
	@mkdir -p $(@D)
	@cd tools/prometheus && CGO_ENABLED=0 go build -trimpath -tags remove_all_sd -ldflags "-s -w" -o $(abspath $@) \
		github.com/prometheus/prometheus/cmd/$(@F)
	@touch $@

# The status of objects as Flux computes it: see tools/kstatus/main.go.
$(kstatus): tools/kstatus/go.mod tools/kstatus/go.sum tools/kstatus/main.go
	@echo "==> kstatus, from source (up to 2 minutes on two cores, the first time)"
	@mkdir -p $(@D)
	@cd tools/kstatus && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(abspath $@) .
	@touch $@

# The CustomResourceDefinitions that examples/gitops needs.
$(gitops_crds): tools/crds/go.mod tools/crds/go.sum
	@echo "==> The CustomResourceDefinitions of External Secrets and Flux (downloads 20 MB, the first time)"
	@mkdir -p $(@D)
	@cd tools/crds && crd() { \
		version=$$(awk -v module="$$1" '$$1 == module { print $$2 }' go.mod); \
		folder=$$(go mod download -json "$$1@$$version" | awk -F'"' '$$2 == "Dir" { print $$4 }'); \
		echo ---; cat "$$folder/$$2"; \
	}; { \
		crd github.com/external-secrets/external-secrets config/crds/bases/external-secrets.io_externalsecrets.yaml; \
		crd github.com/fluxcd/kustomize-controller config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml; \
	} > $(abspath $@)

# Built for a short build time, not for speed.
$(cargo_deny):
	@echo "==> cargo-deny $(CARGO_DENY_VERSION) (up to 2 minutes on two cores, once)"
	@CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		cargo install --quiet --locked --version $(CARGO_DENY_VERSION) cargo-deny \
		--root .tools/cargo-deny-$(CARGO_DENY_VERSION) --target-dir .tools/build
	@rm -rf .tools/build
