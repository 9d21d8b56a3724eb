/* SPDX-License-Identifier: MIT */
/** test -- cmocka with the includes it needs, in the order it needs them. */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "common/err.h"
#include "common/mem.h"

/**
 * FAIL_EACH_ALLOC(call): run `call` once to count its allocations, then once
 * per allocation with that one failing. `call` returns 0 or -1 and must leave
 * no memory behind in either case.
 */
#define FAIL_EACH_ALLOC(call)                                                            \
    do {                                                                                 \
        unsigned n_, i_;                                                                 \
        size_t live_ = mem_live();                                                       \
        mem_fault_at(0);                                                                 \
        assert_int_equal((call), 0);                                                     \
        n_ = mem_count();                                                                \
        for (i_ = 1; i_ <= n_; i_++) {                                                   \
            mem_fault_at(i_);                                                            \
            assert_int_equal((call), -1);                                                \
            assert_int_equal(mem_live(), live_);                                         \
        }                                                                                \
        mem_fault_at(0);                                                                 \
    } while (0)

#endif
