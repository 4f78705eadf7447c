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
  -MMD -MP -I. -Ihost -Ihost/include -isystem /usr/include/lua5.4 $(WARN) $(CFLAGS)
LIBS = -llua5.4 -luv -lcurl -lmicrohttpd -lsqlite3 -lyaml -ljansson -lsodium -lm -pthread

LIB_SRC  = $(filter-out host/main.c,$(wildcard host/*.c host/*/*.c persistence/*.c))
LIB_OBJ  = $(LIB_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/embedded.o
LUA_SRC  = $(shell find lua/tidemill -name '*.lua')

all: $(BUILD)/tidemill $(BUILD)/libtidemill.a $(BUILD)/libtidemill.so $(BUILD)/tidemill.pc

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/embedded.c: $(LUA_SRC) host/tools/embed.lua
	@mkdir -p $(@D)
	lua5.4 host/tools/embed.lua $@ lua/tidemill

$(BUILD)/obj/embedded.o: $(BUILD)/embedded.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/libtidemill.a: $(LIB_OBJ)
	rm -f $@
	ar rcs $@ $^

$(BUILD)/libtidemill.so: $(LIB_OBJ)
	$(CC) -shared -Wl,-soname,libtidemill.so.0 $(CFLAGS) $^ -o $@ $(LIBS)

$(BUILD)/tidemill: $(BUILD)/obj/host/main.o $(BUILD)/libtidemill.a
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
