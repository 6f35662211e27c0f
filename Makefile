# The front door. `make help` lists what there is; every target installs what it needs first.

PYTHON ?= /usr/bin/python3
VENV   := .venv
BUILD  := build
FUZZ_SECONDS ?= 60
CMD    ?= echo "hello from a container in a microVM"
FLAVOUR ?= default
KERNEL  ?= debian
# build/image, or build/image-debug-own.
IMAGE   := $(subst -debian,,$(subst -default,,$(BUILD)/image-$(FLAVOUR)-$(KERNEL)))

DEBIAN_PACKAGES := python3-venv
DEBIAN_PACKAGES += qemu-system-x86 qemu-system-common qemu-utils seabios ipxe-qemu
DEBIAN_PACKAGES += busybox-static e2fsprogs kmod zstd
DEBIAN_KERNEL_PACKAGES := build-essential bc bison flex libelf-dev xz-utils
DEBIAN_TEST_PACKAGES := crun runc socat procps iproute2 tmux
DEBIAN_TEST_PACKAGES += containerd golang-go golang-github-containerd-ttrpc-dev

IMAGE_SOURCES := $(shell find image kuasar_agent -name "*.py" -o -name "*.txt") setup.cfg
IMAGE_SOURCES += image/boot_init.sh image/kernel.config
# What booting one microVM takes; `make image` writes all there is.
BOOT_FILES := vmlinux kuasar.initrd
BUILD_IMAGE = $(VENV)/bin/python -m image --output $(IMAGE) --flavour $(FLAVOUR) --kernel $(KERNEL)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run image kernel install-image test lint format proto bench soak fuzz lock ttrpc clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: $(IMAGE)/.done ## boot a microVM with the agent as PID 1 and run CMD in a container
	@KUASAR_IMAGE=$(IMAGE) $(VENV)/bin/kuasar-debug run -- $(CMD)

image: $(IMAGE)/.all ## build every file of the guest image; FLAVOUR=debug adds tools

kernel: ## build the image with a small kernel from source, which takes minutes
	@$(MAKE) --no-print-directory image KERNEL=own

install-image: $(IMAGE)/.all ## put it where Kuasar looks: DESTDIR/var/lib/kuasar
	@$(VENV)/bin/python -m image.install --image $(IMAGE) --destdir "$(DESTDIR)"

test: $(VENV)/.done $(BUILD)/.test-packages $(IMAGE)/.all ## run every test: unit, host, vm, interop
	KUASAR_IMAGE=$(CURDIR)/$(IMAGE) tests/own_root $(VENV)/bin/pytest

lint: $(VENV)/.done ## ruff and mypy --strict
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: $(VENV)/.done ## rewrite the sources in the house style
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

ttrpc: $(VENV)/.done ## build kuasar_agent/ttrpc as a distribution of its own, in build/ttrpc
	@rm -rf $(BUILD)/ttrpc
	@mkdir -p $(BUILD)/ttrpc
	@cp -r kuasar_agent/ttrpc $(BUILD)/ttrpc/source
	@cp LICENSE $(BUILD)/ttrpc/source
	$(VENV)/bin/pip wheel -q --no-deps --no-build-isolation -w $(BUILD)/ttrpc $(BUILD)/ttrpc/source

proto: $(VENV)/.done ## regenerate the protobuf modules from proto/
	$(VENV)/bin/python proto/generate.py

bench: $(VENV)/.done $(BUILD)/.test-packages $(IMAGE)/.all ## measure and print the tables; PARTS= takes some of them
	KUASAR_IMAGE=$(CURDIR)/$(IMAGE) tests/own_root $(VENV)/bin/python -m tests.bench $(PARTS)

lock: $(VENV)/.done ## pin the newest versions of every dependency, with their hashes
	@$(PYTHON) -m venv $(BUILD)/lock
	@$(BUILD)/lock/bin/pip install -q pip-tools
	@for place in image tests tests/fuzz; do (cd $$place && $(CURDIR)/$(BUILD)/lock/bin/pip-compile -q --upgrade \
	  --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-options --output-file requirements.txt requirements.in); done

soak: $(VENV)/.done $(BUILD)/.test-packages ## live through 2,000 containers and 5,000 execs, then look for leaks
	tests/own_root $(VENV)/bin/python -m tests.soak

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

ifeq ($(KERNEL),own)
$(IMAGE)/.done $(IMAGE)/.all: | $(BUILD)/.kernel-packages
endif

$(IMAGE)/.done: $(IMAGE_SOURCES) | $(VENV)/.done
	@rm -f $(@D)/.all
	@$(BUILD_IMAGE) $(BOOT_FILES)
	@touch $@

$(IMAGE)/.all: $(IMAGE_SOURCES) | $(VENV)/.done
	@rm -f $(@D)/.done
	@$(BUILD_IMAGE)
	@touch $(@D)/.done $@

$(BUILD)/fuzz/.done: tests/fuzz/requirements.txt | $(VENV)/.done
	@$(VENV)/bin/pip install -q --no-deps --require-hashes --upgrade --target $(@D) -r $<
	@touch $@

# Debian packages, installed unless they all are.
define install
@mkdir -p $(BUILD)
@echo "==> Debian packages: $(1)"
@dpkg -s $(1) >/dev/null 2>&1 || { apt-get update -q >/dev/null && \
  apt-get install -qy --no-install-recommends $(1) >/dev/null; }
@touch $@
endef

$(BUILD)/.packages: Makefile
	$(call install,$(DEBIAN_PACKAGES))

$(BUILD)/.kernel-packages: Makefile | $(BUILD)/.packages
	$(call install,$(DEBIAN_KERNEL_PACKAGES))

$(BUILD)/.test-packages: Makefile | $(BUILD)/.packages
	$(call install,$(DEBIAN_TEST_PACKAGES))
