# The front door. `make help` lists the targets; each installs what it needs first.

#: the Python that makes .venv (3.11 or newer)
PYTHON ?= /usr/bin/python3
#: run: the command of the container
CMD ?= echo "hello from a container in a microVM"
#: image: default, or debug (adds ip, ss, ps, mount, curl, strace and the like)
FLAVOUR ?= default
#: image, tests, bench: debian, or own (a small kernel from source, which takes minutes)
KERNEL ?= debian
#: tests: more words for pytest, such as '-k cgroup -x'
ARGS ?=
#: bench: the tables to measure; empty means all
PARTS ?=
#: fuzz: how long
FUZZ_SECONDS ?= 60
#: install-image: the root directory to install below
DESTDIR ?=

VENV  := .venv
BUILD := build
# build/image, or build/image-debug-own.
IMAGE := $(subst -debian,,$(subst -default,,$(BUILD)/image-$(FLAVOUR)-$(KERNEL)))

VM_PACKAGES := qemu-system-x86 qemu-system-common qemu-utils seabios ipxe-qemu
IMAGE_PACKAGES := busybox-static e2fsprogs kmod zstd
KERNEL_PACKAGES := build-essential bc bison flex libelf-dev xz-utils
HOST_TEST_PACKAGES := busybox-static e2fsprogs kmod zstd crun runc socat procps iproute2 tmux
INTEROP_PACKAGES := containerd golang-go golang-github-containerd-ttrpc-dev

IMAGE_SOURCES := $(shell find image kuasar_agent -name "*.py" -o -name "*.txt")
IMAGE_SOURCES += image/boot_init.sh image/kernel.config
# What booting one microVM takes; `make image` writes all there is.
BOOT_FILES := vmlinux kuasar.initrd
BUILD_IMAGE = $(VENV)/bin/python -m image --output $(IMAGE) --flavour $(FLAVOUR) --kernel $(KERNEL)

PYTEST    = $(VENV)/bin/pytest $(ARGS)
# With the image, and with `/` as a mount point.
IN_ROOT   = KUASAR_IMAGE=$(CURDIR)/$(IMAGE) tests/own_root
UNIT      := tests/unit tests/fuzz
# The order-only prerequisites of every test that is no unit test.
ALL_TESTS := $(VENV)/.test $(BUILD)/.packages-vm $(BUILD)/.packages-host $(BUILD)/.packages-interop

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run image kernel install-image test test-unit test-host test-vm test-interop
.PHONY: lint format proto ttrpc bench lock soak fuzz clean root

help: ## list the targets and the variables
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@printf '\nVariables, as in make run CMD=uname:\n'
	@sed -nE '/^#: /{s/^#: //;h;n;s/^([A-Z_]+) \?= ?(.*)/  \1\t\2/;G;s/^([^\t]*)\t(.+)\n(.*)/\1\t\3 [\2]/;s/\t\n/\t/;p}' \
	  $(MAKEFILE_LIST) | expand -t 22

run: $(IMAGE)/.done ## boot a microVM with the agent as PID 1 and run CMD in a container
	@KUASAR_IMAGE=$(IMAGE) $(VENV)/bin/kuasar-debug run -- $(CMD)

image: $(IMAGE)/.all ## build every file of the guest image

kernel: ## build the image with a small kernel from source, which takes minutes
	@$(MAKE) --no-print-directory image KERNEL=own

install-image: $(IMAGE)/.all ## put it where Kuasar looks: DESTDIR/var/lib/kuasar
	@$(VENV)/bin/python -m image.install --image $(IMAGE) --destdir "$(DESTDIR)"

test: root $(ALL_TESTS) $(IMAGE)/.all ## run every test: unit, host, vm, interop (root)
	$(IN_ROOT) $(PYTEST)

test-unit: $(VENV)/.unit ## run the tests that need neither root nor a Debian package nor an image
	$(PYTEST) $(UNIT)

test-host: root $(VENV)/.test $(BUILD)/.packages-vm $(BUILD)/.packages-host ## run those against real runtimes and kernels' interfaces (root)
	$(IN_ROOT) $(PYTEST) tests/host

test-vm: root $(VENV)/.test $(BUILD)/.packages-host $(IMAGE)/.all ## run those that boot microVMs (root)
	$(IN_ROOT) $(PYTEST) tests/vm

test-interop: root $(ALL_TESTS) ## run those against Go's ttrpc and containerd (root)
	$(IN_ROOT) $(PYTEST) tests/interop

lint: $(VENV)/.lint ## ruff and mypy --strict
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: $(VENV)/.lint ## rewrite the sources in the project's style
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

ttrpc: $(VENV)/.run ## build kuasar_agent/ttrpc as a distribution of its own, in build/ttrpc
	@rm -rf $(BUILD)/ttrpc
	@mkdir -p $(BUILD)/ttrpc
	@cp -r kuasar_agent/ttrpc $(BUILD)/ttrpc/source
	@cp LICENSE $(BUILD)/ttrpc/source
	$(VENV)/bin/pip wheel -q --no-deps --no-build-isolation -w $(BUILD)/ttrpc $(BUILD)/ttrpc/source

proto: $(VENV)/.test ## regenerate the protobuf modules from proto/
	$(VENV)/bin/python -P proto/generate.py

bench: root $(ALL_TESTS) $(IMAGE)/.all ## measure and print the tables (root)
	$(IN_ROOT) $(VENV)/bin/python -m tests.bench $(PARTS)

soak: root $(VENV)/.test $(BUILD)/.packages-host ## run 2,000 containers and 5,000 execs, then look for leaks (root)
	tests/own_root $(VENV)/bin/python -m tests.soak

fuzz: $(VENV)/.unit $(BUILD)/fuzz/.done ## feed the ttrpc cores inputs guided by coverage for FUZZ_SECONDS
	PYTHONPATH=$(BUILD)/fuzz $(VENV)/bin/python -m tests.fuzz $(BUILD)/fuzz-corpus \
	  -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -rss_limit_mb=1024 -artifact_prefix=$(BUILD)/

lock: ## pin the newest versions of every dependency, with their hashes
	@echo "==> resolving image/ and requirements/ (a minute or two)"
	@$(PYTHON) -m venv $(BUILD)/lock
	@$(BUILD)/lock/bin/pip install -q pip-tools
	@set -e; for list in image/requirements requirements/install requirements/unit requirements/test \
	  requirements/lint requirements/fuzz; do echo "    $$list.txt"; \
	  (cd $${list%/*} && $(CURDIR)/$(BUILD)/lock/bin/pip-compile -q --upgrade --generate-hashes \
	  --allow-unsafe --strip-extras --no-header --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-options --output-file $${list##*/}.txt $${list##*/}.in); done

clean: ## remove what was built; the virtual environment and the download cache stay
	rm -rf $(BUILD)

# One virtual environment in layers, each a list of pinned packages on top of the one before.
PIP_INSTALL = $(VENV)/bin/pip install -q --require-hashes -r

$(VENV)/.base: image/requirements.txt requirements/install.txt
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  requirements/install_debian.sh "a virtual environment" python3-venv
	@echo "==> virtual environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) image/requirements.txt -r requirements/install.txt
	@touch $@

$(VENV)/.run: $(VENV)/.base setup.cfg setup.py pyproject.toml
	@echo "==> kuasar-agent and kuasar-debug in $(VENV)/bin"
	@$(VENV)/bin/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.unit: requirements/unit.txt $(VENV)/.base | $(VENV)/.run
	@echo "==> pytest and hypothesis"
	@$(PIP_INSTALL) $<
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.unit
	@echo "==> matplotlib, OpenTelemetry, protoc, Go (300 MB)"
	@$(PIP_INSTALL) $<
	@touch $@

$(VENV)/.lint: requirements/lint.txt $(VENV)/.test
	@echo "==> mypy and ruff"
	@$(PIP_INSTALL) $<
	@touch $@

$(BUILD)/fuzz/.done: requirements/fuzz.txt | $(VENV)/.run
	@echo "==> atheris"
	@$(VENV)/bin/pip install -q --no-deps --require-hashes --upgrade --target $(@D) -r $<
	@touch $@

ifeq ($(KERNEL),own)
$(IMAGE)/.done $(IMAGE)/.all: | $(BUILD)/.packages-kernel
endif

$(IMAGE)/.done: $(IMAGE_SOURCES) | $(BUILD)/.packages-vm $(BUILD)/.packages-image $(VENV)/.run
	@rm -f $(@D)/.all
	@$(BUILD_IMAGE) $(BOOT_FILES)
	@touch $@

$(IMAGE)/.all: $(IMAGE_SOURCES) | $(BUILD)/.packages-vm $(BUILD)/.packages-image $(VENV)/.run
	@rm -f $(@D)/.done
	@$(BUILD_IMAGE)
	@touch $(@D)/.done $@

root:
	@[ "$$(id -u)" = 0 ] || { echo "error: make $(MAKECMDGOALS) needs root: containers, mounts and" \
	  "virtiofsd do; make test-unit does not" >&2; exit 1; }

# $(1): the name of the stamp file, $(2): the purpose, $(3): the packages.
define debian_packages
$(BUILD)/.packages-$(1): Makefile requirements/install_debian.sh
	@mkdir -p $(BUILD)
	@requirements/install_debian.sh "$(2)" $(3)
	@touch $$@
endef

$(eval $(call debian_packages,vm,booting microVMs,$(VM_PACKAGES)))
$(eval $(call debian_packages,image,building the image,$(IMAGE_PACKAGES)))
$(eval $(call debian_packages,kernel,building a kernel,$(KERNEL_PACKAGES)))
$(eval $(call debian_packages,host,tests on this host,$(HOST_TEST_PACKAGES)))
$(eval $(call debian_packages,interop,tests with Go and containerd,$(INTEROP_PACKAGES)))
