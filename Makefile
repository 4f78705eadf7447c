# Tidemill. `make run` serves the shipped systems, `make test` passes all tests; both install what is
# missing first. `make help` lists the rest.
CC      ?= cc
BUILD   ?= build
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
VERSION := 0.1.0

WARN = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
  -Wold-style-definition -Wcast-qual -Wwrite-strings -Wvla -Wformat=2 -Wswitch-enum \
  -Wimplicit-fallthrough -Wnull-dereference -Wdouble-promotion -Werror
ALL_CFLAGS = -std=c17 -D_GNU_SOURCE -DTM_VERSION='"$(VERSION)"' -fPIC -fvisibility=hidden -pthread \
  -MMD -MP -I. -Ihost -Ihost/include -isystem /usr/include/lua5.4 \
  -isystem /usr/include/postgresql $(WARN) $(CFLAGS)
# The program's allocator: a turn makes many small blocks, and glibc's malloc takes a third of its time.
# The library leaves malloc to whom it is linked into; sanitizers bring their own.
MALLOC = $(if $(findstring -fsanitize,$(CFLAGS)),,-lmimalloc)
LIBS = -llua5.4 -luv -lcurl -lmicrohttpd -lsqlite3 -lhiredis -lpq -lzstd -lyaml \
  -ljansson -lsodium -lm -pthread

MAIN_SRC = $(wildcard host/main*.c)
MAIN_OBJ = $(MAIN_SRC:%.c=$(BUILD)/obj/%.o)
LIB_SRC  = $(filter-out $(MAIN_SRC),$(wildcard host/*.c host/*/*.c persistence/*.c))
LIB_OBJ  = $(LIB_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/embedded.o
LUA_SRC  = $(shell find lua/tidemill -name '*.lua')

all: $(BUILD)/tidemill $(BUILD)/libtidemill.a $(BUILD)/libtidemill.so $(BUILD)/tidemill.pc

help:
	@echo "make run        install what is missing, build, serve the systems on port 8700"
	@echo "make test       install what tests need, build, pass all tests"
	@echo "make            build $(BUILD)/tidemill, libtidemill.a and .so, tidemill.pc"
	@echo "make lint       format, static analysis, layers, symbols"
	@echo "make sanitize   the C tests under ASan+UBSan, and again under TSan"
	@echo "make fuzz       each fuzzer for FUZZ_SECONDS (60) seconds"
	@echo "make ci         test, lint, sanitize, fuzz: what every change must pass"
	@echo "make nightly    the same at length: TIDEMILL_NIGHTLY=1 makes suites long"
	@echo "make bench      throughput and latency as ratios against the raw store"
	@echo "make docs       docs/errors.md from host/core/errors.def and the sources"
	@echo "make install    to PREFIX ($(PREFIX))"

# A second make here and below, so that the build runs after the packages are there.
run:
	@host/tools/install.sh run
	@$(MAKE) --no-print-directory all
	$(BUILD)/tidemill serve

test:
	@host/tools/install.sh test
	@$(MAKE) --no-print-directory check

# $(call keep,WORDS) writes them to the target only if they differ from what it holds: what depends on
# it is made again when the flags or the set of files changed, and only then.
keep = @mkdir -p $(@D); printf '%s\n' $(1) | cmp -s - $@ || printf '%s\n' $(1) >$@
FORCE:
$(BUILD)/flags: FORCE
	$(call keep,'$(subst ','\'',$(CC) $(ALL_CFLAGS) $(MALLOC) $(LIBS))')
$(BUILD)/sources: FORCE
	$(call keep,$(sort $(LIB_SRC) $(MAIN_SRC)))
$(BUILD)/modules: FORCE
	$(call keep,$(sort $(LUA_SRC)))

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/embedded.c: $(LUA_SRC) host/tools/embed.lua $(BUILD)/modules
	@mkdir -p $(@D)
	lua5.4 host/tools/embed.lua $@ lua/tidemill

$(BUILD)/obj/embedded.o: $(BUILD)/embedded.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/libtidemill.a: $(LIB_OBJ) $(BUILD)/sources
	rm -f $@
	ar rcs $@ $(LIB_OBJ)

$(BUILD)/libtidemill.so: $(LIB_OBJ) $(BUILD)/sources
	$(CC) -shared -Wl,-soname,libtidemill.so.0 $(CFLAGS) $(LIB_OBJ) -o $@ $(LIBS)

$(BUILD)/tidemill: $(MAIN_OBJ) $(BUILD)/libtidemill.a $(BUILD)/flags
	$(CC) $(CFLAGS) $(MAIN_OBJ) $(BUILD)/libtidemill.a -o $@ $(MALLOC) $(LIBS)

$(BUILD)/tidemill.pc: FORCE
	$(call keep,'prefix=$(PREFIX)' 'Name: tidemill' 'Description: Lua-scriptable workflow host' \
	  'Version: $(VERSION)' 'Cflags: -I$${prefix}/include' 'Libs: -L$${prefix}/lib -ltidemill' \
	  'Libs.private: $(LIBS)')

docs:
	lua5.4 host/tools/errors.lua docs docs/errors.md

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install $(BUILD)/tidemill $(DESTDIR)$(PREFIX)/bin
	install -m 644 host/include/tidemill.h $(DESTDIR)$(PREFIX)/include
	install -m 644 $(BUILD)/libtidemill.a $(DESTDIR)$(PREFIX)/lib
	install $(BUILD)/libtidemill.so $(DESTDIR)$(PREFIX)/lib/libtidemill.so.0
	ln -sf libtidemill.so.0 $(DESTDIR)$(PREFIX)/lib/libtidemill.so
	install -m 644 $(BUILD)/tidemill.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig

# ---- tests: every tests/**/NAME_test.c is a program; specs and end-to-end tests run on the build ----
C_TESTS  = $(shell find tests -name '*_test.c')
TEST_BIN = $(C_TESTS:%.c=$(BUILD)/%)
BUSTED   = lua5.4 $$(command -v busted)

# In all of them tests/provoke.c stands before these functions, which only tests/provoke.h can tell.
PROVOKE  = $(BUILD)/obj/tests/provoke.o $(addprefix -Wl$(comma)--wrap=,tm__fail tm__fail_memory \
  tm__clock_monotonic_us uv_thread_create curl_version_info)
comma   := ,
# A failure that a test makes up proves nothing about the host: it goes past provoke.c and is not noted.
MADE_UP  = -Dtm__fail=__real_tm__fail

$(BUILD)/tests/%_test: tests/%_test.c $(BUILD)/obj/tests/provoke.o $(BUILD)/libtidemill.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(MADE_UP) $< $(PROVOKE) $(BUILD)/libtidemill.a -o $@ -lcmocka $(LIBS)

$(BUILD)/hostlua.so: tests/lua/hostlua.c $(BUILD)/obj/tests/provoke.o $(BUILD)/libtidemill.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(MADE_UP) -shared $< $(PROVOKE) $(BUILD)/libtidemill.a -o $@ $(LIBS)

# A disk that fails and forgets, and a host that dies at a commit, for the end-to-end tests:
# tests/shim/disk.c and cut.c.
# The second host has small logs: it copies SQLite's into the file, and changes the redo log, after a
# few turns already.
SHIM = $(BUILD)/tests/disk.so $(BUILD)/tests/disk_user $(BUILD)/tests/store_user \
  $(BUILD)/tests/tidemill_small_log $(BUILD)/tests/tidemill_rare_look $(BUILD)/tests/tidemill_cut
$(BUILD)/tests/disk.so: tests/shim/disk.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -shared $< -o $@
$(BUILD)/tests/disk_user: tests/shim/disk_user.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $< -o $@
$(BUILD)/tests/small_log.o: persistence/store_sqlite_conn.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DTM_SQLITE_LOG_PAGES=48 -c $< -o $@
$(BUILD)/tests/small_redo.o: persistence/store_file_redo.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DTM_FILE_REDO_BYTES=49152 -c $< -o $@
$(BUILD)/tests/small_drain.o: persistence/store_file_drain.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DTM_FILE_SYNC_MANY=16 -c $< -o $@
$(BUILD)/tests/small_index.o: persistence/store_file_index.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DTM_FILE_INDEX_PAGES=48 -c $< -o $@
$(BUILD)/tests/tidemill_small_log: $(MAIN_OBJ) $(BUILD)/tests/small_log.o \
  $(BUILD)/tests/small_redo.o $(BUILD)/tests/small_drain.o $(BUILD)/tests/small_index.o \
  $(BUILD)/libtidemill.a
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)

# A host that looks for what others have left once an hour, so that it must have been told.
RARE_LOOK = -DTM_POLL_MS=3600000 -DTM_WAIT_MIN_MS=3600000 -DTM_WAIT_MAX_MS=3600000
$(BUILD)/tests/rare_look_%.o: host/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(RARE_LOOK) -c $< -o $@
$(BUILD)/tests/tidemill_rare_look: $(MAIN_OBJ) $(BUILD)/tests/rare_look_host.o \
  $(BUILD)/tests/rare_look_journal/slot.o $(BUILD)/libtidemill.a
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)

$(BUILD)/tests/cut.o: tests/shim/cut.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c $< -o $@
$(BUILD)/tests/tidemill_cut: $(MAIN_OBJ) $(BUILD)/tests/cut.o $(BUILD)/libtidemill.a
	$(CC) $(CFLAGS) -Wl,--wrap=tm__store_backend $^ -o $@ $(MALLOC) $(LIBS)

$(BUILD)/tests/store_user: tests/shim/store_user.c $(BUILD)/tests/small_log.o $(BUILD)/libtidemill.a
	$(CC) $(ALL_CFLAGS) $< $(BUILD)/tests/small_log.o $(BUILD)/libtidemill.a -o $@ $(LIBS)

# All tests, then: has each error code of host/core/errors.def really been provoked by one?
PROVOKED = $(abspath $(BUILD))/provoked
check:
	@mkdir -p $(BUILD) && rm -f $(PROVOKED)
	@TIDEMILL_PROVOKED=$(PROVOKED) $(MAKE) --no-print-directory check-c check-lua check-e2e
	@lua5.4 host/tools/errors.lua provoked $(PROVOKED)
# Their stores lie in memory where there is room: a test of the code need not wait for a disk. The
# end-to-end tests use the disk.
SCRATCH  = $(or $(TMPDIR),$(shell [ "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 4000000 ] \
  2>/dev/null && echo /dev/shm || echo /tmp))
check-c: $(TEST_BIN)
	@TMPDIR=$(SCRATCH) tests/servers.sh host/tools/run_tests.sh $(TEST_BIN)
check-lua: $(BUILD)/hostlua.so
	BUILD=$(BUILD) $(BUSTED) -o plainTerminal tests/lua
check-e2e: all $(SHIM)
	TIDEMILL=$(BUILD)/tidemill tests/servers.sh node --test --test-concurrency=2 tests/e2e

sanitize:
	@host/tools/install.sh test
	$(MAKE) BUILD=build-asan CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined" check-c
	TSAN_OPTIONS=second_deadlock_stack=1 \
	  $(MAKE) BUILD=build-tsan CFLAGS="-O1 -g -fsanitize=thread" check-c

lint:
	@host/tools/install.sh lint
	@$(MAKE) --no-print-directory all
	@BUILD=$(BUILD) host/tools/lint.sh
	@tests/lint/self_test.sh

# What every change must pass, and what each night runs longer; both say how long each part took.
ci:
	@host/tools/ci.sh
nightly:
	@TIDEMILL_NIGHTLY=1 host/tools/ci.sh

FUZZ_SECONDS ?= 60
fuzz:
	@host/tools/install.sh lint
	+@host/tools/fuzz.sh $(FUZZ_SECONDS)

bench:
	@host/tools/install.sh bench
	@$(MAKE) --no-print-directory all
	@bench/run.sh $(BUILD)

clean:
	rm -rf build build-*

.PHONY: all help run test check check-c check-lua check-e2e sanitize lint ci nightly fuzz bench clean docs \
  install

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
