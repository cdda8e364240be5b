# make run        build, and watch this machine with the built-in default (log only)
# make test       install what the tests need, run them
# make test-long  the rest: fuzzing, every kind in full, soak
# make packages   deb, rpm, program, bill of materials and checksums in $(PACKAGES)
# make bench      the table of docs/performance.md
# make lint       golangci-lint and staticcheck

GO      ?= go
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VERSION := 3.0.0
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
TESTENV := $(SUDO) env "PATH=$$PATH" "HOME=$$HOME" CI=$(CI)
TEST    := test -race -shuffle=on -count=1 -json

# The packages hold the time of the last commit, so that they can be built again.
PACKAGES   ?= bin/packages
ARCHES     ?= amd64 arm64
MAINTAINER ?= portsentry authors <authors@portsentry.invalid>
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)

.PHONY: build run test test-long packages bench lint deps

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o portsentry ./cmd/portsentry

run: build
	$(SUDO) ./portsentry

deps:
	@scripts/deps

# The daemons of the tests take XDP, as they do by themselves. The second time they
# read the packet ring and ban with nftables, as where a driver has no XDP.
# The race detector needs a C compiler; the program itself never does.
test: deps
	@test -z "$$(gofmt -l cmd internal packaging test tools)" || { echo "not formatted:"; gofmt -l cmd internal packaging test tools; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/portsentry
	{ $(TESTENV) CGO_ENABLED=1 $(GO) $(TEST) -timeout 9m ./...; \
	  $(TESTENV) CGO_ENABLED=1 PORTSENTRY_CAPTURE=afpacket $(GO) $(TEST) -timeout 9m ./test/e2e/ban ./test/e2e/sight; } | $(GO) run ./test/summary

test-long:
	@scripts/deps long
	scripts/fuzz
	{ $(TESTENV) CGO_ENABLED=1 PORTSENTRY_LONG=1 $(GO) $(TEST) -timeout 60m ./...; \
	  $(TESTENV) PORTSENTRY_LONG=1 $(GO) test -count=1 -json -timeout 20m ./internal/store/sqlite; \
	  $(TESTENV) CGO_ENABLED=1 PORTSENTRY_LONG=1 PORTSENTRY_CAPTURE=afpacket $(GO) $(TEST) -timeout 60m $$($(GO) list ./test/e2e/... | grep -vE '/(xdp|packages|privileges)$$'); } | $(GO) run ./test/summary

packages:
	@GO='$(GO)' VERSION='$(VERSION)' COMMIT='$(COMMIT)' ARCHES='$(ARCHES)' MAINTAINER='$(MAINTAINER)' \
		SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)' packaging/build '$(PACKAGES)'

bench: deps build
	$(GO) test -run '^$$' -bench . -benchmem ./internal/app ./internal/decode ./internal/detect ./internal/judge ./internal/view/log
	$(TESTENV) $(GO) run ./test/bench -portsentry ./portsentry

lint:
	$(GO) tool staticcheck ./...
	golangci-lint run
