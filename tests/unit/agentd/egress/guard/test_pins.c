/* SPDX-License-Identifier: MIT */
/* Lifetimes are no less than a minute: the tests of what happens at their ends
 * move the ends. */
#include "agentd/egress/guard/pins.h"

#include <stdio.h>
#include <string.h>

#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins_int.h"

#include "tests/support/dns_scene.h"
#include "tests/support/test.h"

struct scene {
    struct dns_scene dns;
    struct pins *pins;
};

struct told {
    unsigned calls;
    bool is_over, ok;
};

static void on_pinned(void *arg, bool ok)
{
    struct told *t = arg;

    t->calls++;
    t->is_over = true;
    t->ok = ok;
}

static int setup(void **state)
{
    static const char *const allow[] = {"a.test:443", "a.test:5432",   "b.test:443",
                                        "c.test:22",  "*.wild.test:9", NULL};
    static struct scene scene;
    char policy[4096];

    dns_scene_open(&scene.dns, dns_scene_allow(policy, allow));
    scene.pins = pins_new(&scene.dns.ward, NULL);
    assert_non_null(scene.pins);
    *state = &scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    pins_free(s->pins);
    dns_scene_close(&s->dns);
    return 0;
}

static struct ip_addr ip(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(span_str(text), &a), 0);
    return a;
}

static bool add(struct scene *s, const char *name, const char *addr, uint32_t ttl_s)
{
    struct ip_addr a = ip(addr);
    struct told t = {0};
    struct err e = {0};

    if (!pins_add(s->pins, &(struct pins_answer){name, &a, 1, ttl_s}, on_pinned, &t, &e))
        fail_msg("%s: %s", name, e.msg);
    assert_int_equal(t.calls, 0);
    dns_scene_until(&s->dns, &t.is_over);
    assert_int_equal(t.calls, 1);
    return t.ok;
}

/* All names of an address, "a.test b.test". */
static const char *names_of(struct scene *s, const char *addr)
{
    static char room[512];
    struct ip_addr a = ip(addr);
    const char *name;
    size_t pos = 0, n = 0;

    room[0] = '\0';
    while (pins_next(s->pins, &a, &pos, &name))
        n += (size_t)snprintf(room + n, sizeof(room) - n, "%s%s", n ? " " : "", name);
    return room;
}

static void each_port_of_a_name_is_pinned_before_the_answer(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 443), 300 + NAMES_GRACE_S);
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 5432), 300 + NAMES_GRACE_S);
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 80), 0);
    assert_int_equal(s->dns.n_pin_msgs, 1);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    assert_string_equal(names_of(s, "203.0.113.2"), "");
    assert_int_equal(pins_count(s->pins), 1);
    assert_int_equal(s->dns.ward.counts.pins, 1);
}

static void the_end_is_the_latest_of_all_answers(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 1000));
    assert_true(add(s, "a.test", "203.0.113.1", 30));
    assert_int_equal(s->dns.n_pin_msgs, 1); /* the kernel knows it for longer */
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 443), 1000 + NAMES_GRACE_S);
    /* another name at the same address and port: it does not shorten what is there */
    assert_true(add(s, "b.test", "203.0.113.1", 30));
    assert_in_range(dns_scene_pin(&s->dns, "203.0.113.1", 443), 1000, 1060);
    assert_true(add(s, "a.test", "203.0.113.1", 2000));
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 443), 2000 + NAMES_GRACE_S);
    assert_true(add(s, "a.test", "203.0.113.1", 4000000));
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 443), NAMES_TTL_MAX_S);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test b.test");
}

static void an_answer_from_the_table_costs_no_message(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    for (uint32_t ttl = 300; ttl > 290; ttl--)
        assert_true(add(s, "a.test", "203.0.113.1", ttl));
    assert_int_equal(s->dns.n_pin_msgs, 1);
}

static void a_kernel_that_refuses_or_is_silent_means_no_answer(void **state)
{
    struct scene *s = *state;

    s->dns.pin_error = 12;
    assert_false(add(s, "a.test", "203.0.113.1", 300));
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    s->dns.pin_error = 0;
    s->dns.is_silent = true;
    assert_false(add(s, "a.test", "203.0.113.1", 300));
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    s->dns.is_silent = false;
    assert_true(add(s, "a.test", "203.0.113.1", 300));
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
}

static void many_addresses_and_ports_go_in_several_messages(void **state)
{
    struct scene *s = *state;
    struct ip_addr a[NAMES_ADDRS_MAX];
    struct told t = {0};
    char text[24];

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":[{\"to\":"
                              "{\"domain\":\"a.test\"},\"ports\":[\"100-115\"]}]}");
    for (unsigned i = 0; i < COUNT_OF(a); i++) {
        (void)snprintf(text, sizeof(text), "203.0.113.%u", i + 1);
        a[i] = ip(text);
    }
    assert_non_null(pins_add(s->pins,
                             &(struct pins_answer){"a.test", a, COUNT_OF(a), 300},
                             on_pinned, &t, NULL));
    dns_scene_until(&s->dns, &t.is_over);
    assert_true(t.ok);
    assert_int_equal(s->dns.n_pins, COUNT_OF(a) * 16);
    assert_int_equal(s->dns.n_pin_msgs, COUNT_OF(a) * 16 / CHANNEL_PINS);
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.32", 115), 360);
    assert_null(pins_add(s->pins,
                         &(struct pins_answer){"a.test", a, COUNT_OF(a) + 1, 300},
                         on_pinned, &t, NULL));
}

static void a_name_without_ports_needs_no_kernel(void **state)
{
    struct scene *s = *state;

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"default\":\"allow\"}");
    assert_true(add(s, "anything.test", "203.0.113.1", 300));
    assert_string_equal(names_of(s, "203.0.113.1"), "anything.test");
    assert_int_equal(s->dns.n_pin_msgs, 0);
}

static void who_waits_may_leave(void **state)
{
    struct scene *s = *state;
    struct ip_addr a = ip("203.0.113.1");
    struct told t = {0};
    struct pins_wait *w, *none = NULL;

    w = pins_add(s->pins, &(struct pins_answer){"a.test", &a, 1, 300}, on_pinned, &t,
                 NULL);
    assert_non_null(w);
    pins_cancel(&w);
    pins_cancel(&none);
    assert_null(w);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(t.calls, 0);
    /* and one that is left when all ends */
    assert_non_null(pins_add(s->pins, &(struct pins_answer){"a.test", &a, 1, 300},
                             on_pinned, &t, NULL));
}

static void another_policy_takes_pins_out_and_puts_them_in(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    assert_true(add(s, "b.test", "203.0.113.1", 300));
    assert_true(add(s, "c.test", "203.0.113.3", 300));
    for (int i = 0; i < 40; i++) {
        char name[32], addr[32];

        (void)snprintf(name, sizeof(name), "n%d.wild.test", i);
        (void)snprintf(addr, sizeof(addr), "198.51.100.%d", i + 1);
        assert_true(add(s, name, addr, (uint32_t)(30 + 7 * i % 40)));
    }
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":"
                              "[\"b.test:443\",\"b.test:8443\",\"c.test:23\"]}");
    pins_reload(s->pins);
    dns_scene_for(&s->dns, 50);
    assert_string_equal(names_of(s, "203.0.113.1"), "b.test");
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 5432), 0);
    assert_in_range(dns_scene_pin(&s->dns, "203.0.113.1", 443), 350, 360); /* b's too */
    assert_in_range(dns_scene_pin(&s->dns, "203.0.113.1", 8443), 350, 360);
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.3", 22), 0);
    assert_in_range(dns_scene_pin(&s->dns, "203.0.113.3", 23), 350, 360);
    assert_int_equal(dns_scene_pin(&s->dns, "198.51.100.9", 9), 0);
    assert_int_equal(pins_count(s->pins), 2);
    assert_int_equal(s->dns.ward.counts.pins, 2);
}

static void
a_pin_that_a_new_policy_takes_out_before_the_kernel_answered_is_no_answer(void **state)
{
    struct scene *s = *state;
    struct ip_addr a = ip("203.0.113.1");
    struct told t = {0};

    assert_non_null(pins_add(s->pins, &(struct pins_answer){"a.test", &a, 1, 300},
                             on_pinned, &t, NULL));
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":[\"b.test\"]}");
    pins_reload(s->pins);
    dns_scene_until(&s->dns, &t.is_over);
    assert_false(t.ok);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 443), 0);
}

static void the_table_is_bounded_and_what_ends_first_goes(void **state)
{
    struct scene *s = *state;
    struct ip_addr a[NAMES_ADDRS_MAX];
    unsigned n_left = 0;

    assert_true(add(s, "c.test", "203.0.113.1", 30)); /* ends first */
    assert_true(add(s, "a.test", "203.0.113.2", 3000));
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"default\":\"allow\"}");
    memset(a, 0, sizeof(a));
    for (unsigned i = 0; i < PINS_MAX / NAMES_ADDRS_MAX; i++) {
        struct told t = {0};

        for (unsigned k = 0; k < NAMES_ADDRS_MAX; k++) {
            a[k].family = AF_INET;
            a[k].bytes[0] = 8;
            a[k].bytes[1] = (uint8_t)(i >> 8);
            a[k].bytes[2] = (uint8_t)i;
            a[k].bytes[3] = (uint8_t)k;
        }
        assert_non_null(
            pins_add(s->pins, &(struct pins_answer){"x.test", a, NAMES_ADDRS_MAX, 60 + i},
                     on_pinned, &t, NULL));
        dns_scene_until(&s->dns, &t.is_over);
        assert_true(t.ok);
        assert_true(pins_count(s->pins) <= PINS_MAX);
    }
    assert_int_equal(pins_count(s->pins), PINS_MAX);
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 22), 0); /* was taken out */
    assert_string_equal(names_of(s, "203.0.113.2"), "a.test");
    for (unsigned k = 0; k < NAMES_ADDRS_MAX; k++) {
        char text[24];

        (void)snprintf(text, sizeof(text), "8.0.0.%u", k);
        n_left += names_of(s, text)[0] == 'x';
    }
    assert_int_equal(n_left, NAMES_ADDRS_MAX - 1); /* of the next that ended */
    pins_reload(s->pins);
    assert_int_equal(pins_count(s->pins), PINS_MAX);
}

static void holding_and_releasing_what_is_not_there_is_nothing(void **state)
{
    struct scene *s = *state;
    struct ip_addr a = ip("203.0.113.1");

    pins_hold(s->pins, &a, "a.test");
    pins_release(s->pins, &a, "a.test");
    assert_true(add(s, "a.test", "203.0.113.1", 300));
    pins_release(s->pins, &a, "a.test");
    pins_hold(s->pins, &a, "b.test");
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
}

/* As if so much of its life had passed. */
static void age(struct scene *s, const char *name, const char *addr, unsigned left_s)
{
    struct ip_addr a = ip(addr);
    struct pin_entry *e = pin_table_find(&s->pins->table, &a, name);

    assert_non_null(e);
    e->end_ms = e->acked_ms = loop_now(s->dns.guard.loop) + left_s * 1000;
    pin_table_set_due(&s->pins->table, e);
    pins_hold(s->pins, &a, name); /* the timer is set anew */
    pins_release(s->pins, &a, name);
}

static void a_pin_is_renewed_while_a_connection_holds_it(void **state)
{
    struct scene *s = *state;
    struct ip_addr a = ip("203.0.113.1");

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    pins_hold(s->pins, &a, "a.test");
    pins_hold(s->pins, &a, "a.test");
    age(s, "a.test", "203.0.113.1", PIN_RENEW_S + 1);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(s->dns.n_pin_msgs, 1); /* not yet */
    age(s, "a.test", "203.0.113.1", PIN_RENEW_S);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(s->dns.n_pin_msgs, 2);
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 443),
                     NAMES_TTL_MIN_S + NAMES_GRACE_S);
    assert_int_equal(dns_scene_pin(&s->dns, "203.0.113.1", 5432),
                     NAMES_TTL_MIN_S + NAMES_GRACE_S);
    pins_release(s->pins, &a, "a.test"); /* one still holds it */
    age(s, "a.test", "203.0.113.1", 0);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(s->dns.n_pin_msgs, 3);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    pins_release(s->pins, &a, "a.test");
    age(s, "a.test", "203.0.113.1", 1);
    dns_scene_for(&s->dns, 20);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    age(s, "a.test", "203.0.113.1", 0);
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    dns_scene_for(&s->dns, 20);
    assert_int_equal(pins_count(s->pins), 0);
    assert_int_equal(s->dns.n_pin_msgs, 3); /* the kernel's own timeout took it out */
}

static void what_is_no_longer_allowed_is_not_renewed(void **state)
{
    struct scene *s = *state;
    struct ip_addr a = ip("203.0.113.1");

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    pins_hold(s->pins, &a, "a.test");
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":[\"b.test\"]}");
    age(s, "a.test", "203.0.113.1", 1);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(s->dns.n_pin_msgs, 1);
    assert_int_equal(pins_count(s->pins), 1);
    age(s, "a.test", "203.0.113.1", 0);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(pins_count(s->pins), 0);
}

static void ends_come_in_their_order(void **state)
{
    struct scene *s = *state;
    char name[32], addr[32];

    for (unsigned i = 0; i < 200; i++) {
        (void)snprintf(name, sizeof(name), "n%u.wild.test", i);
        (void)snprintf(addr, sizeof(addr), "198.51.100.%u", i);
        assert_true(add(s, name, addr, 30 + i * 37 % 200));
    }
    for (unsigned i = 1; i < 200; i++)
        assert_true(s->pins->table.heap[(i - 1) / 2]->due_ms <=
                    s->pins->table.heap[i]->due_ms);
    for (unsigned i = 0; i < 200; i += 2) {
        (void)snprintf(name, sizeof(name), "n%u.wild.test", i);
        (void)snprintf(addr, sizeof(addr), "198.51.100.%u", i);
        age(s, name, addr, 0);
    }
    dns_scene_for(&s->dns, 50);
    assert_int_equal(pins_count(s->pins), 100);
    assert_string_equal(names_of(s, "198.51.100.4"), "");
    assert_string_equal(names_of(s, "198.51.100.5"), "n5.wild.test");
}

static int add_once(struct scene *s)
{
    struct ip_addr a = ip("203.0.113.1");
    struct told t = {0};
    struct pins *p = pins_new(&s->dns.ward, NULL);
    struct pins_wait *w =
        p ? pins_add(p, &(struct pins_answer){"a.test", &a, 1, 300}, on_pinned, &t, NULL)
          : NULL;
    int rc = w ? 0 : -1;

    pins_cancel(&w);
    pins_free(p);
    return rc;
}

static void no_memory_is_an_error_and_leaves_nothing(void **state)
{
    struct scene *s = *state;

    FAIL_EACH_ALLOC(add_once(s));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_port_of_a_name_is_pinned_before_the_answer),
        TEST(the_end_is_the_latest_of_all_answers),
        TEST(an_answer_from_the_table_costs_no_message),
        TEST(a_kernel_that_refuses_or_is_silent_means_no_answer),
        TEST(many_addresses_and_ports_go_in_several_messages),
        TEST(a_name_without_ports_needs_no_kernel),
        TEST(who_waits_may_leave),
        TEST(another_policy_takes_pins_out_and_puts_them_in),
        TEST(a_pin_that_a_new_policy_takes_out_before_the_kernel_answered_is_no_answer),
        TEST(the_table_is_bounded_and_what_ends_first_goes),
        TEST(a_pin_is_renewed_while_a_connection_holds_it),
        TEST(what_is_no_longer_allowed_is_not_renewed),
        TEST(ends_come_in_their_order),
        TEST(holding_and_releasing_what_is_not_there_is_nothing),
        TEST(no_memory_is_an_error_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
