/* SPDX-License-Identifier: MIT */
#include "common/metrics.h"

#include "tests/support/test.h"

static bool has_line(struct buf *b, const char *line)
{
    return memmem(b->p, b->len, line, strlen(line)) != NULL;
}

static void every_metric_has_help_type_and_value(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    size_t i, lines = 0;

    (void)state;
    metric_add(METRIC_BYTES_UP, 5000000000);
    metric_inc(METRIC_REQUESTS);
    metric_inc(METRIC_REQUESTS);
    metric_inc(METRIC_LINKS);
    metric_add(METRIC_LINKS, -1);
    assert_int_equal(metrics_print(&b), 0);
    for (i = 0; i < b.len; i++)
        lines += b.p[i] == '\n';
    assert_int_equal(lines, 3 * METRIC_COUNT);
    assert_true(has_line(&b, "# HELP tunneld_requests_total HTTP requests answered.\n"
                             "# TYPE tunneld_requests_total counter\n"
                             "tunneld_requests_total 2\n"));
    assert_true(has_line(&b, "# TYPE tunneld_links gauge\ntunneld_links 0\n"));
    assert_true(has_line(&b, "\ntunneld_bytes_up_total 5000000000\n"));
}

/* The names are an interface: Prometheus' rules, and a counter ends in _total. */
static void names_follow_the_rules_of_prometheus(void **state)
{
    static const struct {
        const char *name, *help;
        bool is_counter;
    } rows[] = {
#define COUNTER(id, name, help) {name, help, true},
#define GAUGE(id, name, help)   {name, help, false},
#include "common/metrics.def"
#undef COUNTER
#undef GAUGE
    };
    size_t i, j;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        const char *name = rows[i].name;
        size_t n = strlen(name);

        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"), n);
        assert_int_equal(n > 6 && strcmp(name + n - 6, "_total") == 0,
                         rows[i].is_counter);
        assert_null(strpbrk(rows[i].help, "\\\n"));
        for (j = 0; j < i; j++)
            assert_string_not_equal(name, rows[j].name);
    }
}

static int print_all(void)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    return metrics_print(&b);
}

static void every_allocation_failure_is_clean(void **state)
{
    (void)state;
    FAIL_EACH_ALLOC(print_all());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_has_help_type_and_value),
        cmocka_unit_test(names_follow_the_rules_of_prometheus),
        cmocka_unit_test(every_allocation_failure_is_clean),
    };

    return cmocka_run_group_tests_name("common/metrics", tests, NULL, NULL);
}
