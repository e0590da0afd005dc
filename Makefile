# "make" alone prints what there is to make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Go is often installed without being in PATH.
export PATH := $(PATH):/usr/local/go/bin
export GO ?= go

# How long or how many times (5000x) each fuzz function runs, and how long the tests may take.
FUZZTIME ?= 30s
TIMEOUT ?= 20m
# Packages and further arguments of "make test" and "make race": make test PKG=./scan ARGS='-run Shard'
PKG ?= ./...
ARGS ?=

# A clone that belongs to another user, or no clone at all: git refuses, and go would, too.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/fastrewind, one static program
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$(VCS) -o bin/fastrewind ./cmd/fastrewind

.PHONY: deps
deps: ## install what is missing: a PostgreSQL from 13 to 19, a C compiler, make, archivers and HA managers for tests
	scripts/install-deps
	scripts/install-archivers
	scripts/install-managers

.PHONY: majors
majors: ## install PostgreSQL 13 to 19 side by side, in /opt/pg or PG_PREFIX; make test runs on all it finds
	scripts/install-deps majors

.PHONY: demo
demo: ## a failover, a divergence and a rewind on real servers, from nothing
	scripts/demo.sh

.PHONY: test
test: deps s3server ## unit and integration tests, the latter with real servers; PKG=./scan ARGS='-run X -short'
	scripts/test -count=1 -timeout $(TIMEOUT) $(ARGS) $(PKG)

.PHONY: s3server
s3server: ## build the S3 server that tests run, into .cache
	scripts/install-s3server

.PHONY: test-minio
test-minio: ## the tests that need an S3 server, with MinIO instead, which takes minutes to build
	scripts/install-s3server minio
	FASTREWIND_TEST_S3=minio scripts/test -count=1 -timeout $(TIMEOUT) ./archive/object ./archive/layout ./internal/s3test ./internal/archivelive

.PHONY: soak
soak: ## random workloads, divergences, kills and resumes for MINUTES (10), comparing data each round
	scripts/soak $(or $(MINUTES),10)

.PHONY: survival
survival: ## 200 rewinds killed at random and gone on with, on real servers
	FASTREWIND_SURVIVAL_ROUNDS=100 scripts/test -count=1 -timeout 60m -run 'TestSurvival/killed,' ./internal/survival

.PHONY: race
race: ## unit tests with the race detector
	CGO_ENABLED=1 scripts/test -race -short -count=1 -timeout $(TIMEOUT) $(ARGS) $(PKG)

.PHONY: fuzz
fuzz: ## run every fuzz function for FUZZTIME (30s)
	scripts/fuzz $(FUZZTIME)

# The linter is pinned in tools/go.mod, a module of its own so that its dependencies are not ours.
.PHONY: lint
lint: ## golangci-lint with .golangci.yml, and a syntax check of the scripts
	for script in scripts/* .ci/run; do bash -n "$$script"; done
	$(GO) build -C tools -ldflags '-s -w' -o ../.cache/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	.cache/golangci-lint config verify
	.cache/golangci-lint run ./...

.PHONY: check
check: lint build test race fuzz demo ## all of the above

BENCH_OUT ?= .cache/bench
.PHONY: bench
bench: ## fastrewind against pg_rewind on identical copies, report and plots into BENCH_OUT (.cache/bench); about 10 minutes, 20 GB of disk; ARGS='-scenario dir,kept-wal -scale 3/1.75 -runs 5', or ARGS=-help
	$(GO) run ./bench -out $(BENCH_OUT) $(ARGS)
	$(GO) run -C tools/plots . -in $(abspath $(BENCH_OUT))/bench.json

# The hot loops, without servers and disks. To compare: benchstat OLD .cache/microbench.txt
MICRO := CRC32C|Images|SmallRecords|Floor|Insert|Spans|ChunkWrite|DecodeChunk
.PHONY: microbench
microbench: ## Go benchmarks of the hot loops, 10 runs each, into .cache/microbench.txt for benchstat; COUNT=10
	mkdir -p .cache
	$(GO) test -run '^$$' -bench '^Benchmark($(MICRO))' -benchmem -count $(or $(COUNT),10) \
		./internal/pg ./internal/wal ./scan ./internal/plan ./copier ./fetch | tee .cache/microbench.txt

.PHONY: dist
dist: ## programs, deb, rpm, manual, SBOM for amd64 and arm64, in dist
	scripts/dist

.PHONY: test-dist
test-dist: ## build dist twice, in different directories, and compare every byte
	scripts/test-dist

.PHONY: test-deb
test-deb: ## install the deb from dist into a clean Debian (debootstrap; root) and run the demo there
	scripts/test-deb dist/fastrewind_*_$$(dpkg --print-architecture).deb

.PHONY: test-rpm
test-rpm: ## install the rpms from dist into an empty directory with rpm (root), look at them there, and erase them
	for rpm in dist/fastrewind-*.rpm; do scripts/test-rpm "$$rpm" || exit 1; done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache dist
