# make help lists the targets.

STATICCHECK_VERSION := v0.8.2

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO_FILES := $(shell find . -name '*.go' -not -path './web/node_modules/*' -o -name '*.lua' -o -name '*.sql')
WEB_FILES := $(shell find web -type f -not -path 'web/node_modules/*' -not -path 'web/dist/*')
UNIT_PACKAGES = $$(go list ./... | grep -v /e2e)
# Those that wait for real time the longest begin first, and more of them run at once
# than there are cores: three packages, and in each so many tests for each core.
LONGEST = ./transcode/encode ./transcode ./edge ./cmd/millrace ./ingest
SIDE_BY_SIDE = -p $$(($$(nproc) + 1)) -parallel $$((2 * $$(nproc)))
# What tests of the whole run: the program as it was built.
BUILT = E2E_BINARY=$(CURDIR)/bin/millrace

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | \
		while IFS=$$'\t' read -r target what; do printf 'make %-11s %s\n' "$$target" "$$what"; done

.PHONY: run
run: ## install what is missing (ffmpeg, redis-server), build, and start everything; ARGS="--http :80" adds flags
	@scripts/need run
	@$(MAKE) --no-print-directory build
	@exec bin/millrace all $(ARGS)

.PHONY: build
build: bin/millrace ## build the pages and bin/millrace

bin/millrace: go.mod go.sum $(GO_FILES) web/dist/index.html
	go build -o $@ ./cmd/millrace

# npm ci is run again when the lock file changes, the build when a source does.
web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_FILES)
	cd web && npm run build
	@touch $@

.PHONY: test
test: ## install what the tests need, then run all that decides whether a change is good
	@scripts/need test
	@scripts/timed build lint+web-test race e2e chaos-short hostile-short

.PHONY: unit
unit: ## run the Go tests without the race detector and without e2e, for a quick look
	go test $(UNIT_PACKAGES)

.PHONY: race
race: web/dist/index.html ## run them with the race detector, as make test does
	GORACE=atexit_sleep_ms=0 go test -race -vet=off -timeout 10m $(SIDE_BY_SIDE) $(LONGEST) $(UNIT_PACKAGES)

.PHONY: web-test
web-test: web/node_modules/.package-lock.json ## run the tests of the pages
	cd web && npm test

# The published clients of chat that tests run.
e2e/bots/node_modules/.package-lock.json: e2e/bots/package-lock.json
	cd e2e/bots && npm ci --no-audit --no-fund
	@touch $@

.PHONY: e2e
e2e: build e2e/bots/node_modules/.package-lock.json ## run the tests of the whole: the real binary, real encoders, a real browser
	$(BUILT) go test -count=1 -vet=off -timeout 15m ./e2e/...

# -timeout bounds the whole: a row takes one to two minutes.
.PHONY: chaos
chaos: build ## inject every fault into the real processes and write docs/chaos.md; ROWS="regexp" picks some, TIMES=1 does each once
	ROWS='$(ROWS)' TIMES='$(TIMES)' CHAOS_REPORT=$(CURDIR)/docs/chaos.md $(BUILT) \
		go test -count=1 -timeout 3h -tags chaos -run '^TestChaos$$' -v ./e2e/chaos | grep --line-buffered -vE '^ {8}'

# Two rows at a time: each has a browser of its own, and three of them starve the encoders of two cores.
.PHONY: chaos-short
chaos-short: build ## the few faults that CI injects, each once: part of make test
	CHAOS_SHORT=1 $(BUILT) go test -count=1 -vet=off -timeout 10m -tags chaos -parallel 2 -run '^TestChaos$$' ./e2e/chaos

# A row takes half a minute: with -timeout for the whole.
.PHONY: hostile
hostile: build ## attack a running millrace in every way of docs/security.md, and write the table there; ROWS="regexp" picks some
	ROWS='$(ROWS)' HOSTILE_REPORT=$(CURDIR)/docs/security.md $(BUILT) \
		go test -count=1 -timeout 2h -tags hostile -run '^TestHostile$$' -v ./e2e/hostile | grep --line-buffered -vE '^ {8}'

.PHONY: hostile-short
hostile-short: build ## the few attacks that CI does: part of make test
	HOSTILE_SHORT=1 $(BUILT) go test -count=1 -vet=off -timeout 10m -tags hostile -run '^TestHostile$$' ./e2e/hostile

.PHONY: soak
soak: build ## overload for SOAK (20m30s) with memory plotted into docs/images/soak.svg
	SOAK='$(SOAK)' SOAK_PLOT=$(CURDIR)/docs/images/soak.svg $(BUILT) \
		go test -count=1 -timeout 13h -tags chaos -run '^TestSoak$$' -v ./e2e/chaos | grep --line-buffered -vE '^ {8}'

.PHONY: fuzz
fuzz: ## fuzz every parser of foreign bytes, FUZZTIME=1m each; TARGETS="FuzzFold ..." picks some
	scripts/fuzz '$(or $(FUZZTIME),1m)' $(TARGETS)

# What takes too long for each change. One that fails doesn't keep the others from running.
.PHONY: night
night: build ## the list for the night: fuzz, chaos, hostile, soak, long; all of them take some four and a half hours
	@failed=; for what in fuzz chaos hostile soak long; do $(MAKE) --no-print-directory $$what || failed+=" $$what"; done; \
		[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

.PHONY: long
long: build ## publish LONG=30h of stream time at speed, across the limits of RTMP's timestamps
	MILLRACE_LONG='$(or $(LONG),30h)' $(BUILT) go test -count=1 -timeout 3h -run '^TestLong$$' -v ./e2e

.PHONY: latency
latency: build ## measure glass-to-glass latency in Chromium, with a clock burned into the picture
	$(BUILT) go test -count=1 -tags latency -run TestLatency -v ./e2e

# A module of its own: its peers aren't the product's dependencies.
.PHONY: bench-chat
bench-chat: ## measure chat's engine beside its peers, ONLY="regexp" picks scenarios, TIMES=1 does each once: docs/benchmarks.md
	@mkdir -p bin
	cd e2e/chatbench && go build -mod=mod -o $(CURDIR)/bin/chatbench .
	bin/chatbench run -only '$(or $(ONLY),.)' -times $(or $(TIMES),3)

.PHONY: lint
lint: bin/tools/staticcheck-$(STATICCHECK_VERSION) web/node_modules/.package-lock.json ## gofmt, go vet, staticcheck, svelte-check
	@files=$$(gofmt -l $$(go list -f '{{.Dir}}' ./...)); \
		if [ -n "$$files" ]; then echo "gofmt -w these files:"; echo "$$files"; exit 1; fi
	go vet -tags chaos,hostile,latency ./...
	$< -tags chaos,hostile,latency ./...
	cd web && npm run check

bin/tools/staticcheck-$(STATICCHECK_VERSION):
	GOBIN=$(CURDIR)/bin/tools go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	mv bin/tools/staticcheck $@

.PHONY: clean
clean: ## remove what was built
	rm -rf bin web/node_modules e2e/bots/node_modules
	find web/dist -mindepth 1 -not -name .gitkeep -delete
