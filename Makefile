# The project's commands. Each installs what it needs (or says what is missing); CMake does the work.
SHELL := bash
.DELETE_ON_ERROR:

RUN    := PATH="$(CURDIR)/.venv/bin:$$PATH"
CMAKE  := $(RUN) cmake
CTEST  := $(RUN) ctest --output-on-failure --parallel $(shell nproc)
PREFIX ?= /usr/local
VENV   := .venv/.ready

# The Python package and the library of this tree, not installed.
PACKAGE := PYTHONPATH=bindings/python/src DLATTN_LIBRARY=$(CURDIR)/build/release/libdlattn.so \
           DLATTN_COMMAND=$(CURDIR)/build/release/dlattn

.PHONY: help configure build demo test test-torch sanitize neon bench bench-peers format install clean tools

help:
	@echo 'make demo         attention layers of real models, checked and timed; then trains a small transformer'
	@echo 'make test         builds and runs every test but those of'
	@echo 'make test-torch   the PyTorch bindings, for which it installs PyTorch (several GB)'
	@echo 'make build        the library and the command dlattn, in build/release'
	@echo 'make sanitize     the tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer'
	@echo 'make neon         cross-compiles for 64-bit Arm and runs a few cases under qemu'
	@echo 'make bench        times the case table from every language;  make bench-peers  beside other libraries'
	@echo 'make format       clang-format over all C files'
	@echo 'make install      to PREFIX=$(PREFIX)'
	@echo 'make clean        removes build/; the Python environment .venv stays'

tools:
	@.ci/need cc venv cmake ninja pkg-config criterion libffi

# The Python environment: dlpack.h, the Python tests, the report.
$(VENV): bindings/python/requirements-test.txt | tools
	@echo 'making .venv'
	@[ -x .venv/bin/pip ] || python3 -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# $(call configure,<preset>): configures once; ninja notices later changes by itself.
configure = [ -e build/$(1)/build.ninja ] || $(CMAKE) --preset $(1)

configure: $(VENV)
	@$(call configure,release)

build: configure
	@$(CMAKE) --build --preset release

demo: build
	@build/release/dlattn demo
	@echo
	@$(PACKAGE) .venv/bin/python examples/python/train_characters.py

# The same cases from every language that is installed. FLAGS: of bench/languages.py; `dlattn bench --table` is C alone.
bench: build
	@.venv/bin/python bench/languages.py $(FLAGS)

# PyTorch is large, so it has an environment of its own. FLAGS: of bench/peers.py.
.venv-peers/.ready: bench/requirements-peers.txt | tools
	@[ -x .venv-peers/bin/pip ] || python3 -m venv .venv-peers
	@.venv-peers/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench-peers: build .venv-peers/.ready
	@$(PACKAGE) .venv-peers/bin/python bench/peers.py $(FLAGS)
	@.venv/bin/python bench/report.py
	@.venv/bin/python bench/pages.py

# The last line counts: ctest's own summary, after whatever failed.
test: build
	@command -v cargo >/dev/null || echo 'no cargo on PATH: the Rust tests are skipped (apt-get install cargo)'
	@command -v julia >/dev/null || echo 'no julia on PATH: the Julia tests are skipped (julialang.org; Debian 12: .ci/need_julia)'
	@$(CTEST) --test-dir build/release --output-log build/release/test.log
	@echo "make test: $$(grep 'tests passed' build/release/test.log)"

# PyTorch again: what its bindings are tested with.
.venv-torch/.ready: bindings/python/requirements-torch.txt | tools
	@[ -x .venv-torch/bin/pip ] || python3 -m venv .venv-torch
	@.venv-torch/bin/pip install --quiet --no-compile --disable-pip-version-check -r $<
	@touch $@

test-torch: build .venv-torch/.ready
	@$(PACKAGE) .venv-torch/bin/python -m pytest -q tests/python/test_torch_*.py tests/python/test_flash_attn.py

# Criterion forks beside a thread of its own; if that one is inside the sanitizer's allocator just then, the child waits for ever
# before a test has begun. So what runs out of time runs once more.
sanitize: $(VENV)
	@for preset in asan tsan; do \
	    $(call configure,$$preset) && $(CMAKE) --build --preset $$preset && \
	        $(CTEST) --test-dir build/$$preset --repeat after-timeout:2 || exit 1; \
	done

neon: $(VENV)
	@.ci/need aarch64 qemu
	@$(call configure,aarch64)
	@$(CMAKE) --build --preset aarch64
	@$(CTEST) --test-dir build/aarch64

install: build
	@$(CMAKE) --install build/release --prefix $(PREFIX)

format: | tools
	@.ci/need clang-format
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
