# fiefdom: "make help" lists the targets. On a Debian machine with Go, as root,
# everything that is missing is installed by the target that needs it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
ROOT    := $(shell [ "$$(id -u)" = 0 ] && echo 1)

# The race detector wants a C compiler; the tests want the tools that the
# documents' hooks call, a real uwsgi to talk to, something to talk with, and a
# browser for the web page.
PACKAGES := gcc libc6-dev git iproute2 iptables iputils-ping nftables net-tools \
	procps util-linux curl netcat-openbsd python3 iperf3 uwsgi-core uwsgi-plugin-psgi uwsgi-plugin-python3 systemd \
	chromium fonts-dejavu-core

# Web servers that tests put vassals behind. Installed they would be services of the
# machine; here their packages are only unpacked.
PROXIES    := nginx nginx-common caddy
PROXIES_IN := bin/proxies

# What the examples of apps run, and with it what that needs and this machine has not:
# unpacked, too, and nothing of what is installed.
APPS    := redis-server php8.2-fpm postgresql-15 nodejs
APPS_IN := bin/apps

# A public escape kit that a confined app runs.
KIT_VERSION := v0.4.9
KIT         := bin/amicontained

GOLANGCI_VERSION := v2.15.0
GOLANGCI_DIR      = $(shell $(GO) env GOPATH)/bin/golangci-lint-$(GOLANGCI_VERSION)
GOLANGCI          = $(GOLANGCI_DIR)/golangci-lint

BENCHSTAT_VERSION := v0.0.0-20260908200009-22c9c6c9d4da
BENCHSTAT_DIR      = $(shell $(GO) env GOPATH)/bin/benchstat-$(BENCHSTAT_VERSION)
BENCHSTAT          = $(BENCHSTAT_DIR)/benchstat

NFPM_VERSION := v2.45.2
NFPM_DIR      = $(shell $(GO) env GOPATH)/bin/nfpm-$(NFPM_VERSION)
NFPM          = $(NFPM_DIR)/nfpm

PREFIX  ?= /usr/local
DESTDIR ?=
ETC     ?= /etc
ZSH     ?= $(PREFIX)/share/zsh/site-functions

FUZZTIME ?= 10s
# Most e2e tests wait more than they work.
GOTEST    = $(GO) test -tags man -race -shuffle=on -timeout 20m -parallel 3

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## Build the one static binary, bin/fiefdom
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/fiefdom ./cmd/fiefdom

.PHONY: install
install: build ## Install below PREFIX (/usr/local), in the tree DESTDIR: binary, unit, manual, completion, documents
	@d='$(DESTDIR)$(PREFIX)'; packed=internal/packaging; umask 022; \
	install -D -m 755 bin/fiefdom "$$d/bin/fiefdom"; \
	install -d "$$d/lib/systemd/system" "$$d/share/man/man1" "$$d/share/man/man5" "$$d/share/bash-completion/completions" \
		"$$d/share/fish/vendor_completions.d" '$(DESTDIR)$(ZSH)' "$$d/share/doc/fiefdom/docs" '$(DESTDIR)$(ETC)/fiefdom/vassals'; \
	sed 's|/usr/bin/|$(PREFIX)/bin/|; s|/etc/fiefdom/|$(ETC)/fiefdom/|' "$$packed/fiefdom@.service" >"$$d/lib/systemd/system/fiefdom@.service"; \
	install -D -m 644 "$$packed/subgroup.conf" "$$d/lib/systemd/system/fiefdom@.service.d/subgroup.conf"; \
	bin/fiefdom completion bash >"$$d/share/bash-completion/completions/fiefdom"; \
	bin/fiefdom completion fish >"$$d/share/fish/vendor_completions.d/fiefdom.fish"; \
	bin/fiefdom completion zsh >'$(DESTDIR)$(ZSH)/_fiefdom'; \
	rm -rf bin/man; mkdir bin/man; CGO_ENABLED=0 $(GO) run -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -tags man ./cmd/fiefdom man bin/man; gzip -9n bin/man/*; \
	install -m 644 bin/man/*.1.gz "$$d/share/man/man1"; install -m 644 bin/man/*.5.gz "$$d/share/man/man5"; \
	install -m 644 README.md CHANGELOG.md "$$d/share/doc/fiefdom"; cp -r docs examples "$$d/share/doc/fiefdom"; \
	rm "$$d/share/doc/fiefdom/examples/embed.go"; \
	[ -e '$(DESTDIR)$(ETC)/fiefdom/emperor.ini' ] || install -m 644 "$$packed/emperor.ini" '$(DESTDIR)$(ETC)/fiefdom'

# A package's version begins with a digit, and a later commit's is a later one.
DEBVERSION ?= $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-\([0-9]*\)-/+\1./' | grep . || git log -1 --date=format:%Y%m%d%H%M --format='0~%cd.%h')

.PHONY: deb
deb: $(NFPM) ## Make the Debian package bin/fiefdom.deb
	@rm -rf bin/stage
	@$(MAKE) --no-print-directory install DESTDIR=bin/stage PREFIX=/usr ZSH=/usr/share/zsh/vendor-completions
	@DEBVERSION='$(DEBVERSION)' DEBARCH="$$($(GO) env GOARCH)" SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" \
		$(NFPM) package --config internal/packaging/nfpm.yaml --packager deb --target bin/fiefdom.deb

$(NFPM):
	@echo "== installing nfpm $(NFPM_VERSION) into $(NFPM_DIR) (once; takes minutes)"
	GOBIN=$(NFPM_DIR) $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)

.PHONY: demo
demo: deps build ## Tell and check the whole story in namespaces of its own (root)
	bin/fiefdom demo

.PHONY: test
test: deps build lint ## Everything that CI runs: lint, all tests, some seconds of each fuzz target
	@$(MAKE) --no-print-directory tests
	@$(MAKE) --no-print-directory fuzz FUZZTIME=3s

# Each raced program waits for 1 s at its end, and the tests end thousands.
.PHONY: tests
tests: export GORACE = atexit_sleep_ms=50
tests: build deb
	@echo "== tests, with the race detector$(if $(ROOT),; as root only what this kernel lacks is skipped,; not root: what needs it is skipped)"
	@$(if $(ROOT),FIEFDOM_TEST_ROOT=1) $(GOTEST) -v ./... 2>&1 | awk -v strict=$(ROOT) -f .ci/summary.awk

.PHONY: test-root
test-root: deps build deb ## All tests; only for what this kernel lacks one may be skipped (root)
	@FIEFDOM_TEST_ROOT=1 $(GOTEST) -v ./... 2>&1 | awk -v strict=1 -f .ci/summary.awk

LOADTIME ?= 1h
SOAKTIME ?= 1h

.PHONY: soak
soak: deps build deb ## All tests at their full numbers (SOAKTIME=1h of changes), soak-load, then minutes of each fuzz target (root)
	@FIEFDOM_TEST_ROOT=1 FIEFDOM_SOAK=1 FIEFDOM_SOAK_TIME=$(SOAKTIME) $(GO) test -shuffle=on -timeout 12h -v ./... 2>&1 | awk -v strict=1 -f .ci/summary.awk
	@$(MAKE) --no-print-directory soak-load
	@$(MAKE) --no-print-directory fuzz FUZZTIME=5m

.PHONY: soak-load
soak-load: deps ## Mixed load at full speed while vassals come and go and routers die (root, LOADTIME=1h)
	FIEFDOM_TEST_ROOT=1 FIEFDOM_LOAD_TIME=$(LOADTIME) $(GO) test -count=1 -timeout 12h -v -run '^TestMixedLoad$$' ./cmd/fiefdom

ROUNDS    ?= 5
BENCH     ?= full
BENCHARGS ?=

.PHONY: bench
bench: deps build ## Measure us beside veth+bridge and a real uWSGI (root, a quiet machine, 20 minutes; BENCH=quick: a minute)
	$(GO) test -c -o bin/bench.test ./internal/bench
	bin/bench.test -test.run '^TestSideBySide$$' -test.count=1 -test.timeout 4h -mode $(BENCH) -rounds $(ROUNDS) \
		-program $(CURDIR)/bin/fiefdom -out $(CURDIR)/bin/bench $(BENCHARGS)

.PHONY: bench-go
bench-go: $(BENCHSTAT) ## Run the Go benchmarks beside those of BASE, a commit (last tag, else HEAD~10) or a former run's file
	@GO='$(GO)' .ci/bench-go $(BENCHSTAT) bin/bench-go

$(BENCHSTAT):
	@echo "== installing benchstat $(BENCHSTAT_VERSION) into $(BENCHSTAT_DIR) (once)"
	GOBIN=$(BENCHSTAT_DIR) $(GO) install golang.org/x/perf/cmd/benchstat@$(BENCHSTAT_VERSION)

# The flags are those of build, so that each package is compiled once for both.
.PHONY: lint
lint: $(GOLANGCI) ## go vet and golangci-lint, which checks gofumpt's format too
	CGO_ENABLED=0 $(GO) vet -trimpath -tags man ./...
	CGO_ENABLED=0 GOFLAGS="$$($(GO) env GOFLAGS) -trimpath" $(GOLANGCI) run ./...

$(GOLANGCI):
	@echo "== installing golangci-lint $(GOLANGCI_VERSION) into $(GOLANGCI_DIR) (once; takes minutes)"
	GOBIN=$(GOLANGCI_DIR) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

# Up to Go 1.26 a target may fail by nothing but its own end (golang/go#75804): no input is told then.
.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (10s)
	@mkdir -p bin
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's/:func / /' | sort | while read -r file target; do \
		dir=$$(dirname "$$file"); \
		printf '== fuzz %s %s for %s: ' "$$dir" "$$target" "$(FUZZTIME)"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" </dev/null >bin/fuzz.log 2>&1 \
			|| { grep -q '^ *context deadline exceeded' bin/fuzz.log && ! grep -qi 'failing input\|panic' bin/fuzz.log; } \
			|| { echo failed; cat bin/fuzz.log; exit 1; }; \
		grep -o 'execs: [0-9]*' bin/fuzz.log | tail -n 1 || echo done; \
	done

.PHONY: deps
deps: $(PROXIES_IN) $(KIT)
	@missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q '^install ok installed$$' || missing="$$missing $$p"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ -n "$(ROOT)" ] && command -v apt-get >/dev/null; then \
		echo "== installing distribution packages:$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
		echo "== missing distribution packages, some tests may need them:$$missing"; \
	fi
	@$(MAKE) -s $(APPS_IN)

$(PROXIES_IN):
	@command -v apt-get >/dev/null || { echo "== missing web servers, some tests need them: $(PROXIES)"; exit 0; }; \
	echo "== unpacking web servers into $@: $(PROXIES)"; \
	rm -rf $@.new; mkdir -p $@.new; \
	$(if $(ROOT),apt-get update -qq;) \
	(cd $@.new && apt-get download -qq $(PROXIES) 2>&1 | grep -v unsandboxed || :; \
		for deb in *.deb; do dpkg-deb -x "$$deb" . || exit 1; rm "$$deb"; done) \
		&& mv $@.new $@ || echo "== missing web servers, some tests need them: $(PROXIES)"

# All that is not below /usr or /etc there is a link to /usr.
$(APPS_IN):
	@command -v apt-get >/dev/null || { echo "== missing programs, some tests need them: $(APPS)"; exit 0; }; \
	echo "== unpacking programs into $@: $(APPS)"; \
	rm -rf $@.new; mkdir -p $@.new/archives/partial $@.new/usr/bin $@.new/usr/sbin $@.new/usr/lib $@.new/etc; \
	$(if $(ROOT),apt-get update -qq;) \
	apt-get install -qq --yes --download-only --no-install-recommends --no-upgrade -o Debug::NoLocking=1 \
		-o Dir::Cache::archives=$(CURDIR)/$@.new/archives $(APPS) >$@.new/log 2>&1 \
		&& (cd $@.new && find archives -name '*.deb' -exec dpkg-deb -x {} . ';' && rm -r archives && \
			for dir in bin sbin lib; do [ ! -d $$dir ] || cp -a $$dir/. usr/$$dir; done) \
		&& mv $@.new $@ || { cat $@.new/log; echo "== missing programs, some tests need them: $(APPS)"; }

# Its list of versions may be out of reach where this one is not, so it is built where it was unpacked.
$(KIT):
	@echo "== building an escape kit: $@ $(KIT_VERSION)"
	@mkdir -p bin; rm -rf $@.new; \
	dir=$$($(GO) mod download -json github.com/genuinetools/amicontained@$(KIT_VERSION) | sed -n 's/.*"Dir": "\(.*\)",/\1/p'); \
	{ [ -n "$$dir" ] && cp -r "$$dir" $@.new && chmod -R u+w $@.new && \
		(cd $@.new && CGO_ENABLED=0 $(GO) build -mod=mod -o $(CURDIR)/$@ .); } || echo "== missing the escape kit, a test needs it"; \
	rm -rf $@.new

.PHONY: clean
clean: ## Remove what the targets made here
	rm -rf bin
