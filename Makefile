# make demo   set up what is missing, build, and show a mount that records
# make test   set up what is missing, then run every check and test
# make help   all targets

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(PATH):/usr/sbin:/sbin:/usr/local/go/bin

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# Packages tested at once. Tests that mount are heavy: more gain nothing.
TESTS_AT_ONCE ?= 2
TEST_TIMEOUT ?= 30m
FUZZTIME ?= 30s
BENCH_NOTE = Written by make bench: the short set, few rounds. Ratios can be compared, absolute figures are this machine's alone. \
	For more rounds and sizes leave --quick out of the commands below.
# Random histories per property in make soak; their number in make test is rapid's.
RUNS ?= 1000
# How many times longer random programs and those of others work in a mount.
SOAK ?= 10

.PHONY: help build setup lint test demo bench soak fuzz clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 8

build: ## bin/georep, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/georep ./cmd/georep

setup: ## install what demo and test need (as root)
	@.ci/setup

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "not gofmt'ed:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

test: setup lint build ## everything that must be green
	$(GO) test -race -p $(TESTS_AT_ONCE) -timeout $(TEST_TIMEOUT) ./...

demo: setup build ## a brick, a mount, its changelogs, before your eyes
	PATH="$(CURDIR)/bin:$$PATH" .ci/demo

bench: setup build ## measure for about 5 minutes; rewrites bench/RESULTS.md and its pictures
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; failed=0; \
	bin/georep bench overhead --quick --image xfs --dir "$$dir" || failed=1; \
	bin/georep bench replicate --quick --image xfs --dir "$$dir" || failed=1; \
	bin/georep bench report --markdown bench/RESULTS.md --how "$(BENCH_NOTE)" "$$dir"/overhead.json "$$dir"/replicate.json; \
	exit $$failed

soak: setup build ## RUNS random histories per property; a failure prints its seed
	@for p in $$($(GO) list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | sed -n 's| .*pgregory.net/rapid.*||p'); do \
		echo "== $$p"; $(GO) test -race -count=1 -timeout 0 $$p -rapid.checks=$(RUNS); \
	done
	GEOREP_SOAK=$(SOAK) $(GO) test -count=1 -timeout 0 -v -run 'Random|Programs|Fio|Stress' ./fusefs

fuzz: ## fuzz each parser for FUZZTIME
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done

clean: ## remove what was built
	rm -rf bin dist
