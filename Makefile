# Everything that a developer and the continuous integration run. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
P ?= 2
FUZZTIME ?= 2s
BIN := $(CURDIR)/bin
# The packages whose tests take longest begin first, so that none of them is alone at the end.
LONG := ./examples/crm ./authz/rego
export CGO_ENABLED ?= 0

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test
test: ## all tests of the module; real servers where they are at hand
	$(GO) test -p $(P) -timeout 30m $(LONG) ./...

.PHONY: short
short: ## the quick tests
	$(GO) test -p $(P) -short ./...

.PHONY: race
race: ## the tests of the houses under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -p $(P) -timeout 20m ./crm/guard ./authz/rego ./crm/... ./encrypt/... ./authz/... ./audit/... ./backup/...

.PHONY: lint
lint: $(BIN)/golangci-lint ## gofmt, vet and the linters of .golangci.yml
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt: $$out"; exit 1; fi
	$(GO) vet -p $(P) ./...
	$(BIN)/golangci-lint run --timeout 15m ./...

$(BIN)/golangci-lint:
	GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: policy
policy: $(BIN)/opa $(BIN)/regal ## Rego: tests, coverage of every control, corpus, mutants, format, strict check, regal
	@internal/tools/policy.sh $(GO)

$(BIN)/opa:
	cd internal/tools && $(GO) build -p $(P) -o $(BIN)/opa github.com/open-policy-agent/opa

$(BIN)/regal:
	cd internal/tools/regal && $(GO) build -p $(P) -o $(BIN)/regal github.com/open-policy-agent/regal

# Each line: package and fuzz target. The run fails when a target does not exist.
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (2s)
	@internal/tools/fuzz.sh $(FUZZTIME)

.PHONY: examples
examples: ## every Example, and a build of the programs
	$(GO) test -p $(P) -count=1 -run '^Example' ./...
	$(GO) build -o /dev/null ./examples/crm
	$(GO) run ./examples/quickstart

.PHONY: bench
bench: ## ours and the peers side by side
	$(GO) run -C internal/bench .

.PHONY: bench-encrypt
bench-encrypt: ## package encrypt beside the standard library, Tink and a real Vault
	$(GO) run -C internal/bench ./encrypt

.PHONY: bench-audit
bench-audit: ## package audit beside a bare hash chain and Tessera; a log of a million events
	$(GO) run -C internal/bench ./audit

.PHONY: bench-authz
bench-authz: ## decisions beside cedar-go, Casbin, OPA and Go by hand; lists, who can, a million records
	$(GO) run -C internal/bench ./authz

.PHONY: bench-authn
bench-authn: ## whether the time of a sign-in tells a known name from an unknown one; an hour at the costs of use
	$(GO) run -C internal/bench ./authn

.PHONY: bench-backup
bench-backup: ## backups beside restic, tar|zstd|age and bare inserts; two million rows, long, 15 GB of disk
	$(GO) run -C internal/bench ./backup

.PHONY: bench-pages
bench-pages: ## how long each page of a CRM takes that is served at BENCH_URL
	$(GO) run -C internal/bench ./pages -url $(BENCH_URL)

.PHONY: bench-crm
bench-crm: ## a million customers behind the guard beside bare queries, SQLite and PostgreSQL; an hour, 10 GB of disk
	$(GO) run -C internal/bench ./crm

.PHONY: vaultd
vaultd: ## build the real Vault server for tests (minutes, once)
	$(GO) run ./internal/realtest/build vault

.PHONY: s3d
s3d: ## build the real S3 server for tests (a minute or two, once)
	$(GO) run ./internal/realtest/build s3

.PHONY: oidcd
oidcd: ## build the real OpenID Connect provider for tests (half a minute, once)
	$(GO) run ./internal/realtest/build oidc

.PHONY: nested
nested: ## vet and test the nested modules
	cd internal/bench && $(GO) vet ./... && $(GO) test -p $(P) -count=1 ./...
	cd internal/realtest/vaultd && $(GO) vet -trimpath -p $(P) . # as the program was built
	cd internal/realtest/s3d && $(GO) vet -trimpath -p $(P) . # as the program was built
	cd internal/realtest/oidcd && $(GO) vet -trimpath -p $(P) . # as the program was built
	cd internal/realtest/oldtink && $(GO) vet .
	cd internal/realtest/tesserafsck && $(GO) vet -p $(P) ./... && $(GO) test -p $(P) -count=1 ./...

.PHONY: vuln
vuln: ## known vulnerabilities; says "not checked" where the database cannot be reached
	@internal/tools/vuln.sh

.PHONY: soak
soak: ## kill loops and long fuzzing, with counts printed (long)
	CRMGUARD_SOAK=1 $(GO) test -p $(P) -count=1 -timeout 120m -v -run 'Soak|Kill|Crash|Flip|Opener|SearchCustomers|ReindexSpeed' ./audit/... ./backup/... ./crm/... ./encrypt/... ./examples/crm/...
	@internal/tools/fuzz.sh 60s

.PHONY: check
check: lint policy examples nested fuzz ## everything that is checked besides the tests
