# Everything a contributor runs. Each target installs what it needs first (Debian 12 and 13, as root).
#
#   make check   formatting, clippy, and the tests that need no root: a minute after a build
#   make test    all tests; those of the kernel make network namespaces of their own. Never on a Proxmox VE node: it installs
#                packages (firewalld, iptables, ...), and makes two Debians below ~/.cache (739 MB)
#   make test-vm on Debian's own kernels, in virtual machines (QEMU without KVM); FULL=1 with what takes long, too
#   make demo    a node with two guests in network namespaces, step by step
#   make deb     the package, in build/
#   make lint    formatting, clippy, cargo-deny, shellcheck
#   make bench   what it costs
#   make churn   guests that come, live and go on two nodes, for CHURN_SECONDS=600
#   make fuzz    the parsers, and the filter against the oracle, for FUZZ_SECONDS=20 each
#   make doc     API documentation, manual page, completions, schemas

SHELL := /bin/bash
CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(CURDIR)/target
# A package is built where HOME may not exist.
export CARGO_HOME ?= $(if $(wildcard $(HOME)/.),$(HOME)/.cargo,$(CURDIR)/debian/.cargo-home)

# With the crates in vendor/ (`cargo vendor`) nothing is fetched.
VENDORED := $(if $(wildcard vendor),--offline \
	--config 'source.crates-io.replace-with="vendored"' --config 'source.vendored.directory="vendor"')
LOCKED := --locked $(VENDORED)

# The same bytes from whatever directory it is built in.
REMAP := --remap-path-prefix=$(CURDIR)=/usr/src/pve-public-ip --remap-path-prefix=$(CARGO_HOME)=/cargo

# The program as it is shipped.
BINARY := $(CURDIR)/build/pve-public-ip

# Name of the files that go with the package, found out by the shell of the recipe's own line: make expands all lines of a
# recipe before it runs the first, which installs dpkg-dev.
BUILT := build/pve-public-ip_$$(dpkg-parsechangelog -S Version)_$$(dpkg --print-architecture)
FUZZ_SECONDS ?= 20
# Fails if fuzz/Cargo.lock is older than a Cargo.toml: the fuzzing targets are a workspace of their own.
FUZZ_LOCK := $(CARGO) metadata --locked --manifest-path fuzz/Cargo.toml --format-version 1 >/dev/null
CHURN_SECONDS ?= 600
# One of them is of Python.
SCRIPTS := $(filter-out scripts/port-program,$(wildcard scripts/*)) .ci/run hookscripts/* debian/*.postinst debian/*.prerm debian/*.postrm debian/*.if-up \
	$(wildcard demo/run benches/run benches/storm benches/learnt benches/ports fuzz/run tests/booted/run) \
	$(wildcard tests/vm/init tests/vm/run tests/vm/lab tests/vm/cases/* findings/lib findings/*.sh)

.PHONY: all setup fmt lint check test test-library test-package test-vm deb demo bench churn doc fuzz release release-gateway pages clean

all: deb

# Everything at once; each target below asks for its own part only.
setup:
	scripts/setup build test gateway lint deb package vm demo bench fuzz

fmt:
	scripts/setup build lint
	$(CARGO) fmt --all

lint:
	scripts/setup build lint
	$(CARGO) fmt --all --check
	$(FUZZ_LOCK)
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	"$$(scripts/cargo-deny $(CARGO_TARGET_DIR)/cargo-deny)" --locked --workspace check bans licenses sources
	shellcheck $(SCRIPTS)

# What needs neither root nor namespaces.
check:
	scripts/setup build lint
	$(CARGO) fmt --all --check
	$(FUZZ_LOCK)
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(CARGO) test $(LOCKED) --lib --test layers --test golden --test doctor --test topology --test partition
	$(CARGO) test $(LOCKED) --package pve-public-ip-gateway --lib

test:
	scripts/setup build test gateway
	@echo "make test: the tests begin; those of the kernel run in namespaces of their own"
	$(CARGO) test $(LOCKED) --workspace --no-fail-fast

# No root, no network, no other programs: what a package build can run.
test-library:
	$(CARGO) test $(LOCKED) --lib

release:
	RUSTFLAGS="$(RUSTFLAGS) $(REMAP)" $(CARGO) build $(LOCKED) --release
	install -D -m 0755 $(CARGO_TARGET_DIR)/release/pve-public-ip $(BINARY)

# The daemon of the API: it unwinds, so that a call that panics is one call, and need not be as small as can be.
release-gateway:
	RUSTFLAGS="$(RUSTFLAGS) $(REMAP)" $(CARGO) build $(LOCKED) --profile daemon --package pve-public-ip-gateway
	install -D -m 0755 $(CARGO_TARGET_DIR)/daemon/pve-public-ip-gateway $(BINARY)-gateway

pages:
	$(CARGO) run $(LOCKED) --quiet --example docs -- build/pages

# Tests ran before, or will: a package build for its own sake runs those of the library.
deb:
	scripts/setup build deb
	mkdir -p build
	DEB_DIRECTORY=build DEB_BUILD_OPTIONS="nocheck $(DEB_BUILD_OPTIONS)" dpkg-buildpackage -us -uc -b \
		$$(scripts/setup --builddeps-flag) \
		--buildinfo-file="$(BUILT).buildinfo" --buildinfo-option=-ubuild \
		--changes-file="$(BUILT).changes" --changes-option=-ubuild
	ls -l build/*.deb

# Install, upgrade, remove and purge in a throwaway Debian.
test-package: deb
	scripts/setup package
	scripts/test-package

# Other kernels, and links that namespaces of this one cannot play.
test-vm:
	scripts/setup build vm
	$(MAKE) release
	PVE_PUBLIC_IP=$(BINARY) FULL=$(FULL) scripts/test-vm

demo:
	scripts/setup build demo
	$(CARGO) build $(LOCKED) --profile demo --bin pve-public-ip
	PVE_PUBLIC_IP=$(CARGO_TARGET_DIR)/demo/pve-public-ip demo/run

bench:
	scripts/setup build bench
	benches/run

churn:
	scripts/setup build test
	PVE_PUBLIC_IP_CHURN_SECONDS=$(CHURN_SECONDS) $(CARGO) test $(LOCKED) --test nodes churn -- --nocapture

fuzz:
	scripts/setup build test fuzz
	fuzz/run $(FUZZ_SECONDS)
	PVE_PUBLIC_IP_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test $(LOCKED) --test differential

doc:
	scripts/setup build
	$(MAKE) pages
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --no-deps
	@echo "build/pages: manual page, completions, schemas"

clean:
	rm -rf build debian/pve-public-ip debian/.debhelper debian/files debian/*.substvars debian/debhelper-build-stamp
	$(CARGO) clean
