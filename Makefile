# The front door. `make help` lists what there is; every target installs what it needs first.

PYTHON ?= /usr/bin/python3
VENV   := .venv
BUILD  := build
FUZZ_SECONDS ?= 60
CMD    ?= echo "hello from a container in a microVM"

DEBIAN_PACKAGES := python3-venv
DEBIAN_PACKAGES += qemu-system-x86 qemu-system-common qemu-utils seabios ipxe-qemu
DEBIAN_PACKAGES += busybox-static kmod zstd
DEBIAN_TEST_PACKAGES := crun runc socat procps iproute2 tmux
DEBIAN_TEST_PACKAGES += containerd golang-go golang-github-containerd-ttrpc-dev

IMAGE_SOURCES := $(shell find image kuasar_agent -name "*.py" -o -name "*.txt") setup.cfg

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run image test lint format proto bench fuzz lock clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

run: $(BUILD)/image/.done ## boot a microVM with the agent as PID 1 and run CMD in a container
	@$(VENV)/bin/kuasar-debug run -- $(CMD)

image: $(BUILD)/image/.done ## build the guest image (build/image)

test: $(VENV)/.done $(BUILD)/.test-packages $(BUILD)/image/.done ## run every test: unit, host, vm, interop
	tests/own_root $(VENV)/bin/pytest

lint: $(VENV)/.done ## ruff and mypy --strict
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: $(VENV)/.done ## rewrite the sources in the house style
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

proto: $(VENV)/.done ## regenerate the protobuf modules from proto/
	$(VENV)/bin/python proto/generate.py

bench: $(VENV)/.done $(BUILD)/.test-packages $(BUILD)/image/.done ## measure and print the tables
	tests/own_root $(VENV)/bin/python -m tests.bench

fuzz: $(VENV)/.done $(BUILD)/fuzz/.done ## feed the ttrpc cores inputs guided by coverage for FUZZ_SECONDS
	PYTHONPATH=$(BUILD)/fuzz $(VENV)/bin/python -m tests.fuzz $(BUILD)/fuzz-corpus \
	  -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -rss_limit_mb=1024 -artifact_prefix=$(BUILD)/

clean: ## remove what was built; the virtual environment and the download cache stay
	rm -rf $(BUILD)

$(VENV)/.done: image/requirements.txt tests/requirements.txt setup.cfg | $(BUILD)/.packages
	@echo "==> virtual environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/pip install -q --require-hashes -r image/requirements.txt -r tests/requirements.txt
	@$(VENV)/bin/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(BUILD)/image/.done: $(IMAGE_SOURCES) | $(VENV)/.done
	@$(VENV)/bin/python -m image --output $(BUILD)/image
	@touch $@

$(BUILD)/fuzz/.done: tests/fuzz/requirements.txt | $(VENV)/.done
	@$(VENV)/bin/pip install -q --no-deps --require-hashes --upgrade --target $(@D) -r $<
	@touch $@

$(BUILD)/.packages:
	@mkdir -p $(BUILD)
	@echo "==> Debian packages: $(DEBIAN_PACKAGES)"
	@dpkg -s $(DEBIAN_PACKAGES) >/dev/null 2>&1 || { apt-get update -q >/dev/null && \
	  apt-get install -qy --no-install-recommends $(DEBIAN_PACKAGES) >/dev/null; }
	@touch $@

$(BUILD)/.test-packages: | $(BUILD)/.packages
	@echo "==> Debian packages for the tests: $(DEBIAN_TEST_PACKAGES)"
	@dpkg -s $(DEBIAN_TEST_PACKAGES) >/dev/null 2>&1 || { apt-get update -q >/dev/null && \
	  apt-get install -qy --no-install-recommends $(DEBIAN_TEST_PACKAGES) >/dev/null; }
	@touch $@
