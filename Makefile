# Targets:
#   make              build tunneld, agentd and agentd-static into build/release/bin/
#   make demo         install what is missing, build, run server, agent and an app; prints the URL
#   make check        build and run every test that this user's rights allow
#   make check-long   what takes long: Next.js, webpack, SvelteKit; the rest of the gauntlet
#   make asan         unit and end-to-end tests under AddressSanitizer and UBSan
#   make tsan         unit and end-to-end tests under ThreadSanitizer
#   make valgrind     unit tests under valgrind's leak check
#   make fuzz         every fuzzer for FUZZ_TIME seconds (default 30), clang
#   make bench        us and nginx -> nginx side by side
#   make coverage     line coverage of the unit tests, gcov
#   make lint         format, self-contained headers, layering, documents, clang-tidy, cppcheck
#   make deps         install the Debian packages that are missing
#   make install      honours DESTDIR, PREFIX and the usual directory names
#   make tools        what tests and examples/sandbox.sh need besides: the app, and tools
#   make clean
# Variables: CC CFLAGS CPPFLAGS LDFLAGS LDLIBS V=1 WERROR=1 T=pattern

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION ?= 0.1.0

PREFIX     ?= /usr/local
SBINDIR    ?= $(PREFIX)/sbin
MANDIR     ?= $(PREFIX)/share/man
INSTALL    ?= install
PKG_CONFIG ?= pkg-config
AR         ?= ar
FUZZ_TIME  ?= 30
JOBS       ?= $(shell nproc)
PYTHON     ?= /usr/bin/python3

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin AR),default)
AR := ar
endif

VARIANT ?= release
B := build/$(VARIANT)

# -- packages -----------------------------------------------------------------------------

DEBS_BUILD := gcc make libc6-dev pkg-config libwebsockets-dev libwebsockets-evlib-uv libssl-dev \
              libuv1-dev libjansson-dev libc-ares-dev libnftnl-dev libmnl-dev libseccomp-dev \
              libpsl-dev openssl
DEBS_TEST  := libcmocka-dev python3 python3-pytest curl ca-certificates nginx-light squid \
              microsocks chromium iproute2 procps nodejs npm nftables podman runc docker.io \
              busybox-static bind9-dnsutils iodine python3-jsonschema
DEBS_TOOLS := clang libclang-rt-14-dev clang-format clang-tidy cppcheck codespell mandoc valgrind \
              wrk

# Evaluated once, at first use: `make deps` may install pkg-config in the same run.
PKGS := openssl libuv jansson libcares libwebsockets libnftnl libmnl libseccomp libpsl
DEPS_CFLAGS = $(eval DEPS_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS)))$(DEPS_CFLAGS)
LIBS_TUNNELD := -lwebsockets -luv -lssl -lcrypto -ljansson
LIBS_EGRESS  := -lnftnl -lmnl -lseccomp -lpsl
LIBS_AGENTD  := -Wl,--as-needed -l:libcares.a -l:libuv_a.a -lssl -lcrypto -l:libjansson.a \
                $(LIBS_EGRESS)
LIBS_TEST    := -lwebsockets -lcares -luv -lssl -lcrypto -ljansson $(LIBS_EGRESS)
LIBS_STATIC  := -lcares -l:libuv_a.a -lssl -lcrypto -ljansson -ldl

# -- flags --------------------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wcast-qual -Wwrite-strings \
        -Wstrict-prototypes -Wmissing-prototypes -Wundef -Wformat=2 -Wvla \
        -Wconversion -Wno-sign-conversion -Wimplicit-fallthrough
WARN += $(if $(WERROR),-Werror)

STD  := -std=c11 -D_GNU_SOURCE
HARD := -fstack-protector-strong -fPIE -D_FORTIFY_SOURCE=2
OPT.release  := -O2 -g $(HARD)
LINK.release := -pie -Wl,-z,relro,-z,now
OPT.debug    := -O0 -g3
OPT.asan     := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
LINK.asan    := -fsanitize=address,undefined
# It starts a thread in each child of fork(), and with two a process may not make a user namespace.
OPT.tsan     := -O1 -g -fno-omit-frame-pointer -fsanitize=thread -Dfork=_Fork
LINK.tsan    := -fsanitize=thread
OPT.cov      := -O0 -g --coverage
LINK.cov     := --coverage
OPT.fuzz     := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined
LINK.fuzz    := -fsanitize=address,undefined
ifeq ($(OPT.$(VARIANT)),)
$(error unknown VARIANT '$(VARIANT)')
endif

ALL_CFLAGS  = $(STD) $(WARN) $(OPT.$(VARIANT)) -I. -DVERSION='"$(VERSION)"' \
              $(DEPS_CFLAGS) $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = $(LINK.$(VARIANT)) -pthread $(LDFLAGS)

# -- sources: every .c under a folder is part of it; main.c is only linked into its daemon ----

rsrc = $(sort $(shell find $(1) -name '*.c' 2>/dev/null))
COMMON_SRC  := $(call rsrc,common)
TUNNELD_SRC := $(filter-out tunneld/main.c,$(call rsrc,tunneld))
AGENTD_SRC  := $(filter-out agentd/main.c agentd/egress_absent.c,$(call rsrc,agentd))
# What runs in a container: no egress, so nothing of libnftnl (GPL) in it.
STATIC_SRC  := $(filter-out agentd/egress/%,$(AGENTD_SRC)) agentd/egress_absent.c
SUPPORT_SRC := $(call rsrc,tests/support)
UNIT_SRC    := $(call rsrc,tests/unit)
FUZZ_SRC    := $(call rsrc,tests/fuzz)
BENCH_SRC   := $(call rsrc,tests/bench)
TOOLS_SRC   := $(call rsrc,tests/tools)
EXAMPLE_SRC := $(call rsrc,examples)
HEADERS     := $(sort $(shell find common tunneld agentd -name '*.h'))

obj = $(patsubst %.c,$(B)/%.o,$(1))
UNIT_BIN  := $(patsubst %.c,$(B)/%,$(UNIT_SRC))
FUZZ_BIN  := $(patsubst %.c,$(B)/%,$(FUZZ_SRC))
BENCH_BIN := $(patsubst %.c,$(B)/%,$(BENCH_SRC))
TOOLS_BIN := $(patsubst %.c,$(B)/%,$(TOOLS_SRC))
EXAMPLE_BIN := $(patsubst %.c,$(B)/%,$(EXAMPLE_SRC))
ALL_OBJ   := $(call obj,$(COMMON_SRC) $(TUNNELD_SRC) $(AGENTD_SRC) tunneld/main.c \
             agentd/main.c agentd/egress_absent.c $(SUPPORT_SRC) $(UNIT_SRC) $(FUZZ_SRC) $(BENCH_SRC) \
             $(TOOLS_SRC) $(EXAMPLE_SRC))

ifeq ($(V),1)
say = @:
Q :=
else
say = @printf '  %-7s %s\n' $(1) $(patsubst $(B)/%,%,$@)
Q := @
endif

.PHONY: all
all: $(B)/bin/tunneld $(B)/bin/agentd $(if $(filter release,$(VARIANT)),$(B)/bin/agentd-static)

# The library archives let the linker take only what a program uses.
$(B)/libcommon.a:  $(call obj,$(COMMON_SRC))
$(B)/libtunneld.a: $(call obj,$(TUNNELD_SRC))
$(B)/libagentd.a:  $(call obj,$(AGENTD_SRC))
$(B)/libstatic.a:  $(call obj,$(STATIC_SRC))
$(B)/libsupport.a: $(call obj,$(SUPPORT_SRC))
$(B)/lib%.a:
	$(call say,AR)
	$(Q)mkdir -p $(@D) && rm -f $@ && $(AR) rcs $@ $^

# A test sees one daemon's code: neither daemon knows the other, and names may meet.
SUPPORT_LIB := $(if $(SUPPORT_SRC),$(B)/libsupport.a)
daemon_lib   = $(foreach d,tunneld agentd,$(if $(findstring /$(d)/,$(1))$(shell grep -l '"$(d)/' $(1:$(B)/%=%.c)),$(B)/lib$(d).a))
link  = $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) \
        -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(1) $(LDLIBS)

$(B)/bin/tunneld: $(B)/tunneld/main.o $(B)/libtunneld.a $(B)/libcommon.a
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(call link,$(LIBS_TUNNELD))
$(B)/bin/agentd: $(B)/agentd/main.o $(B)/libagentd.a $(B)/libcommon.a
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(call link,$(LIBS_AGENTD))
# For any container, an empty one included. c-ares and OpenSSL mention getaddrinfo and dlopen in
# parts that we do not call; the linker's warnings about them are not about us.
$(B)/bin/agentd-static: $(B)/agentd/main.o $(B)/libstatic.a $(B)/libcommon.a
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -static -pthread $(LDFLAGS) -o $@ $(filter %.o,$^) \
	    -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS_STATIC) $(LDLIBS) \
	    2>$@.log || { cat $@.log; exit 1; }

.SECONDEXPANSION:
$(UNIT_BIN): $(B)/%: $(B)/%.o $$(call daemon_lib,$$@) $(SUPPORT_LIB) $(B)/libcommon.a
	$(call say,LD)
	$(Q)$(call link,-lcmocka $(LIBS_TEST))
$(FUZZ_BIN): $(B)/%: $(B)/%.o $$(call daemon_lib,$$@) $(SUPPORT_LIB) $(B)/libcommon.a
	$(call say,LD)
	$(Q)$(call link,-fsanitize=fuzzer $(LIBS_TEST))
$(BENCH_BIN) $(TOOLS_BIN) $(EXAMPLE_BIN): $(B)/%: $(B)/%.o $$(call daemon_lib,$$@) $(SUPPORT_LIB) $(B)/libcommon.a
	$(call say,LD)
	$(Q)$(call link,$(LIBS_TEST))

# Objects depend on a stamp that changes only when the command line does.
$(B)/%.o: %.c $(B)/flags
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/flags: FORCE
	@mkdir -p $(B)
	@$(PKG_CONFIG) --exists $(PKGS) || \
	   { echo "missing: one of $(PKGS). Run 'make deps'."; exit 1; }
	@echo '$(subst ','\'',$(CC) $(ALL_CFLAGS))' | cmp -s - $@ || \
	 echo '$(subst ','\'',$(CC) $(ALL_CFLAGS))' > $@
.PHONY: FORCE
FORCE:

# -- running it -----------------------------------------------------------------------------

.PHONY: deps demo
deps:
	@tests/support/deps.sh $(DEBS_BUILD) $(DEBS_TEST)
demo:
	@tests/support/deps.sh $(DEBS_BUILD) curl
	@$(MAKE) --no-print-directory all $(B)/examples/hello/hello
	@examples/demo.sh $(B)

# -- tests ----------------------------------------------------------------------------------

.PHONY: check check-all check-unit check-e2e check-long tools
check: deps
	@$(MAKE) --no-print-directory check-all
check-all:
	@$(if $(WANTED_UNIT),$(MAKE) --no-print-directory check-unit,echo "no unit test matches $(T)")
	@$(MAKE) --no-print-directory check-e2e $(if $(T),$(if $(WANTED_UNIT),UNIT_IS_ENOUGH=1))
tools: $(TOOLS_BIN) $(EXAMPLE_BIN)
WANTED_UNIT := $(strip $(if $(T),$(foreach b,$(UNIT_BIN),$(if $(findstring $(T),$(b)),$(b))),$(UNIT_BIN)))
check-unit: $(WANTED_UNIT)
	@tests/unit/run.sh $(B) $(WANTED_UNIT)
PYTEST = BUILD=$(B) $(PYTHON) -m pytest -q -rs -p no:cacheprovider $(if $(T),-k '$(T)') tests/e2e
check-e2e: all tools
	@$(PYTEST) -m 'not long' $(if $(UNIT_IS_ENOUGH),|| [ $$? -eq 5 ]) # 5: none matches
check-long: all tools
	@$(PYTEST) -m long

.PHONY: asan tsan valgrind
asan tsan:
	$(Q)$(MAKE) --no-print-directory VARIANT=$@ check-all
valgrind: $(WANTED_UNIT)
	@VALGRIND="valgrind -q --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9" \
	   tests/unit/run.sh $(B) $(WANTED_UNIT)

.PHONY: fuzz fuzz-run
fuzz:
	$(Q)tests/support/deps.sh clang libclang-rt-14-dev
	$(Q)$(MAKE) --no-print-directory VARIANT=fuzz CC=clang fuzz-run
fuzz-run: $(if $(T),$(foreach b,$(FUZZ_BIN),$(if $(findstring $(T),$(b)),$(b))),$(FUZZ_BIN))
	@for f in $^; do n=$$(basename $$f); n=$${n#fuzz_}; d=; \
	   mkdir -p $(B)/corpus/$$n; echo "== $$n"; \
	   [ ! -f tests/fuzz/$$n.dict ] || d=-dict=tests/fuzz/$$n.dict; \
	   $$f $$d -max_total_time=$(FUZZ_TIME) -verbosity=0 -print_final_stats=1 \
	     -artifact_prefix=$(B)/ $(B)/corpus/$$n tests/fuzz/corpus/$$n 2>$(B)/$$n.log || \
	     { tail -40 $(B)/$$n.log; exit 1; }; grep -E 'executed_units' $(B)/$$n.log; done

.PHONY: bench
bench: all tools $(BENCH_BIN)
	@tests/support/deps.sh nginx-light wrk iproute2
	@for b in $(BENCH_BIN); do $$b || exit 1; done
	@$(PYTHON) tests/bench/bench.py $(B)
	@$(PYTHON) tests/bench/bench_egress.py $(B)

.PHONY: coverage
coverage:
	$(Q)$(MAKE) --no-print-directory VARIANT=cov check-unit
	@cd build/cov && gcov -n $$(find . -name '*.gcda' -not -path './tests/*') 2>/dev/null \
	  | awk '/^File/{f=$$2} /^Lines/{if (f !~ "/usr/") print $$0, f ? f : "in all"; f=""}' | sort -t: -k2 -n

.PHONY: lint check-format check-headers check-deps check-docs check-words tidy cppcheck
lint:
	@tests/support/deps.sh $(DEBS_TOOLS)
	@$(MAKE) --no-print-directory check-format check-headers check-deps check-docs check-words \
	    cppcheck tidy
SRC_ALL := $(sort $(shell find common tunneld agentd tests examples -name '*.[ch]' -not -path '*/node_modules/*'))
check-format:
	@clang-format --dry-run -Werror $(SRC_ALL)
check-headers:
	@for h in $(HEADERS); do \
	   $(CC) $(ALL_CFLAGS) -Werror -Wno-unused-function -fsyntax-only -x c $$h || exit 1; done
# Who may include which library, and which folder may include which.
check-deps:
	@tests/lint/deps.sh
check-docs: $(B)/bin/tunneld
	@tests/lint/docs.sh $<
	@tests/lint/limits.sh
	@tests/lint/names.sh
check-words:
	@codespell -q 3 -L 'ans,fo,te,hel,alph,nd' README.md docs common tunneld agentd certs examples
# One file a run, so that all cores work.
tidy:
	@printf '%s\n' $(call rsrc,common tunneld agentd) | xargs -P $(JOBS) -I@ clang-tidy --quiet \
	   --warnings-as-errors='*' @ -- $(STD) -DVERSION='""' -I. $(DEPS_CFLAGS) 2>/dev/null
cppcheck:
	@cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr \
	   --suppress=missingIncludeSystem --error-exitcode=1 -I. common tunneld agentd

# -- installing -------------------------------------------------------------------------------

.PHONY: install
install: all
	$(INSTALL) -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man8
	$(INSTALL) -m 0755 $(B)/bin/tunneld $(B)/bin/agentd $(B)/bin/agentd-static $(DESTDIR)$(SBINDIR)
	$(INSTALL) -m 0644 docs/man/*.5 $(DESTDIR)$(MANDIR)/man5
	$(INSTALL) -m 0644 docs/man/*.8 $(DESTDIR)$(MANDIR)/man8

.PHONY: clean
clean:
	rm -rf build

-include $(ALL_OBJ:.o=.d)
