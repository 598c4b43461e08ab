# finance: see README.md.  PGXS build; also builds out of tree (VPATH).

EXTENSION = finance
MODULE_big = finance
DATA = finance--1.0.sql

srcdir_ = $(dir $(abspath $(firstword $(MAKEFILE_LIST))))
OBJS = $(patsubst $(srcdir_)%.c,%.o,$(sort $(wildcard $(srcdir_)src/*.c)))

PG_CFLAGS = -Wall -Wextra -Werror -Wno-unused-parameter -std=gnu99

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS tracks no headers
$(OBJS): $(wildcard $(srcdir_)src/*.h)
