/* SPDX-License-Identifier: MIT */
#include "common/buf.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"

static void a_reserve_past_the_cap_changes_nothing(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    assert_int_equal(buf_add(&b, "abc", 3), 0);
    assert_int_equal(buf_reserve(&b, 8, 10), -1);
    assert_int_equal(buf_reserve(&b, SIZE_MAX, 10), -1);
    assert_int_equal(buf_reserve(&b, SIZE_MAX, SIZE_MAX), -1);
    assert_int_equal(b.len, 3);
    assert_int_equal(buf_reserve(&b, 7, 10), 0);
    assert_int_equal(buf_reserve(&b, 997, 1000), 0);
    assert_int_equal(b.cap, 1000);
    assert_memory_equal(b.p, "abc", 3);
    buf_done(&b);
    assert_null(b.p);
}

static void printed_text_is_appended_without_its_nul(void **state)
{
    struct buf b = BUF_INIT;
    char want[400];

    (void)state;
    assert_int_equal(buf_adds(&b, "x="), 0);
    assert_int_equal(buf_addf(&b, "%d %300s", 42, "end"), 0);
    (void)snprintf(want, sizeof(want), "x=42 %300s", "end");
    assert_int_equal(b.len, strlen(want));
    assert_memory_equal(b.p, want, b.len);
    buf_drop(&b, 5);
    assert_int_equal(b.len, 300);
    buf_drop(&b, 999);
    assert_int_equal(b.len, 0);
    assert_non_null(b.p);
    buf_done(&b);
}

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 31 + (i >> 8));
}

/* Writer and reader of every stride must see one and the same byte sequence. */
static void a_queue_gives_back_every_byte_in_order(void **state)
{
    static const size_t in[] = {1, 7, 4000, 4096, 70000};
    static const size_t out[] = {1, 13, 4096, 100000};
    static uint8_t bytes[70000];
    size_t a, b;

    (void)state;
    for (a = 0; a < COUNT_OF(in); a++) {
        for (b = 0; b < COUNT_OF(out); b++) {
            struct bufq q = {0};
            size_t put = 0, got = 0, i;

            while (got < 200000) {
                while (put < 200000 && q.len < 90000) {
                    for (i = 0; i < in[a]; i++)
                        bytes[i] = pattern(put + i);
                    assert_int_equal(bufq_add(&q, bytes, in[a]), 0);
                    put += in[a];
                }
                while (q.len > 0 && (q.len > 30000 || put >= 200000)) {
                    struct span s = bufq_peek(&q);
                    size_t n = s.len < out[b] ? s.len : out[b];

                    assert_true(s.len > 0);
                    for (i = 0; i < n; i++)
                        assert_int_equal(s.p[i], pattern(got + i));
                    bufq_consume(&q, n);
                    got += n;
                    assert_int_equal(q.len, put - got);
                }
            }
            assert_int_equal(mem_live(), 0);
            bufq_done(&q);
        }
    }
}

static void consuming_across_chunks_frees_them(void **state)
{
    static const uint8_t zeros[150000];
    struct bufq q = {0};

    (void)state;
    assert_int_equal(bufq_add(&q, zeros, sizeof(zeros)), 0);
    bufq_consume(&q, 149999);
    assert_int_equal(q.len, 1);
    assert_int_equal(mem_live(), 1);
    assert_int_equal(bufq_peek(&q).len, 1);
    bufq_consume(&q, 1);
    assert_int_equal(mem_live(), 0);
    assert_int_equal(bufq_peek(&q).len, 0);
}

static void an_unused_reservation_leaves_the_queue_readable(void **state)
{
    struct bufq q = {0};
    size_t cap, i;
    uint8_t *p;

    (void)state;
    assert_non_null(bufq_reserve(&q, 10, &cap));
    bufq_commit(&q, 0);
    assert_int_equal(bufq_peek(&q).len, 0);
    p = bufq_reserve(&q, 65536, &cap);
    assert_non_null(p);
    for (i = 0; i < cap; i++)
        p[i] = 'a';
    bufq_commit(&q, cap);
    assert_non_null(bufq_reserve(&q, 65536, &cap));
    assert_true(cap > 60000);
    bufq_commit(&q, 0);
    assert_int_equal(bufq_add(&q, "tail", 4), 0);
    bufq_consume(&q, q.len - 4);
    assert_memory_equal(bufq_peek(&q).p, "tail", 4);
    bufq_done(&q);
    assert_int_equal(mem_live(), 0);
}

static void a_small_wish_gets_a_small_chunk(void **state)
{
    struct bufq q = {0};
    size_t cap;

    (void)state;
    assert_non_null(bufq_reserve(&q, 100, &cap));
    assert_true(cap <= 4096);
    bufq_done(&q);
    assert_non_null(bufq_reserve(&q, 1 << 20, &cap));
    assert_true(cap <= 65536);
    bufq_done(&q);
}

static int fill(void)
{
    static const uint8_t bytes[140000] = {1, 2, 3};
    struct bufq q = {0};
    struct buf b = BUF_INIT;
    int r = -1;

    if (bufq_add(&q, "head", 4) == 0) {
        r = bufq_add(&q, bytes, sizeof(bytes));
        /* All or nothing, and what was there stays. */
        assert_int_equal(q.len, r == 0 ? 4 + sizeof(bytes) : 4);
        assert_memory_equal(bufq_peek(&q).p, "head", 4);
    }
    if (r == 0)
        r = buf_adds(&b, "one");
    if (r == 0)
        r = buf_addf(&b, "%1000d", 1);
    buf_done(&b);
    bufq_done(&q);
    return r;
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(fill());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reserve_past_the_cap_changes_nothing),
        cmocka_unit_test(printed_text_is_appended_without_its_nul),
        cmocka_unit_test(a_queue_gives_back_every_byte_in_order),
        cmocka_unit_test(consuming_across_chunks_frees_them),
        cmocka_unit_test(an_unused_reservation_leaves_the_queue_readable),
        cmocka_unit_test(a_small_wish_gets_a_small_chunk),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/buf", tests, NULL, NULL);
}
