# finance: see README.md.
#
#   make, make install       build and install (PGXS; also out of tree: make -f DIR/Makefile)
#   make installcheck        regression and isolation tests against the running server
#   make check               all tests, on a throw-away server      (scripts/check)
#   make demo, make demo-stop
#   make bench               performance, with figures and a plot   (bench/run, and
#                            bench/queue unless BENCH_QUEUE=0)
#   make bench-queue         performance of the queue               (bench/queue)
#   make soak                the crash and concurrency tests, longer
#   make relay, make install-relay   finance-relay, which needs librabbitmq too (tools/)
#   make verify, make install-verify finance-verify, which needs OpenSSL (tools/)
#
# PG_CONFIG=... chooses the PostgreSQL to build for.

# These run with nothing installed yet, so they need no PGXS; and PGXS has a
# stub of its own named check.
OWN_GOALS = check soak demo demo-stop bench bench-queue relay install-relay verify install-verify

srcdir_ := $(dir $(abspath $(firstword $(MAKEFILE_LIST))))

ifneq (,$(filter $(OWN_GOALS),$(MAKECMDGOALS)))

.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)

check:
	'$(srcdir_)scripts/check'
soak:
	FIN_SOAK=$(or $(FIN_SOAK),1) '$(srcdir_)scripts/check' tap
demo:
	'$(srcdir_)scripts/demo'
demo-stop:
	'$(srcdir_)scripts/demo' stop
bench:
	'$(srcdir_)bench/run'
	[ '$(BENCH_QUEUE)' = 0 ] || '$(srcdir_)bench/queue'
bench-queue:
	'$(srcdir_)bench/queue'
relay install-relay verify install-verify:
	$(MAKE) -f '$(srcdir_)tools/Makefile' $@

# goals of PGXS that were asked for in the same command
$(filter-out $(OWN_GOALS),$(MAKECMDGOALS)):
	$(MAKE) -f '$(srcdir_)Makefile' $@

else

EXTENSION = finance
MODULE_big = finance
DATA = finance--1.0.sql

OBJS = $(patsubst $(srcdir_)%.c,%.o,$(sort $(wildcard $(srcdir_)src/*.c)))

REGRESS = $(patsubst $(srcdir_)sql/%.sql,%,$(sort $(wildcard $(srcdir_)sql/*.sql)))
ISOLATION = $(patsubst $(srcdir_)specs/%.spec,%,$(sort $(wildcard $(srcdir_)specs/*.spec)))
EXTRA_CLEAN = results output_iso tmp_check log

# AES-256-GCM of the audit log
SHLIB_LINK = -lcrypto

PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -std=gnu99
# PostgreSQL was built by gcc; clang knows not all its flags and attributes
ifneq (,$(findstring clang,$(CC)))
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes
endif

# Out of tree, objects lie in src/ below the build directory, which PGXS does
# not make; a src/ with sources in it is never the one to clean away.  The PGXS
# of a server that was built in its source tree needs to be told VPATH.
ifeq (,$(wildcard $(CURDIR)/src/*.c))
VPATH = $(patsubst %/,%,$(srcdir_))
$(shell mkdir -p src)
EXTRA_CLEAN += src
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq (,$(PGXS))
$(error $(PG_CONFIG) does not work: install the PostgreSQL server headers or give PG_CONFIG=...)
endif
include $(PGXS)

# PGXS tracks no headers
$(OBJS): $(wildcard $(srcdir_)src/*.h)
# nor whether bitcode is older than they are
$(OBJS:.o=.bc): $(wildcard $(srcdir_)src/*.h)

endif
