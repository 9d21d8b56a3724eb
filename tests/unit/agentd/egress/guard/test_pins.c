/* SPDX-License-Identifier: MIT */
/* Lifetimes are no less than a minute: the tests of what happens at their ends
 * move the ends. */
#include "agentd/egress/guard/pins.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins_int.h"

#include "tests/support/dns_scene.h"
#include "tests/support/test.h"

struct scene {
    struct dns_scene dns;
    struct pins *pins;
};

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
    struct err e = {0};
    int rc = pins_add(s->pins, &(struct pins_answer){name, &a, 1, ttl_s}, &e);

    (void)pin_sink_notes(&s->dns.pins); /* read at once: a socket holds a few hundred */
    assert_true(rc == 0 || e.code == ERR_SYS);
    return rc == 0;
}

static uint32_t life(struct scene *s, const char *addr, uint16_t port)
{
    return pin_sink_life(&s->dns.pins, addr, port);
}

static unsigned notes(struct scene *s)
{
    return pin_sink_notes(&s->dns.pins);
}

/* As if the kernel refused all, or no longer. */
static void refuse(struct scene *s, bool is_refused)
{
    s->dns.ward.pin_fd = is_refused ? -1 : s->dns.pins.fd;
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
    assert_int_equal(life(s, "203.0.113.1", 443), pin_sink_as(300 + NAMES_GRACE_S));
    assert_int_equal(life(s, "203.0.113.1", 5432), pin_sink_as(300 + NAMES_GRACE_S));
    assert_int_equal(life(s, "203.0.113.1", 80), 0);
    assert_int_equal(notes(s), 2);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    assert_string_equal(names_of(s, "203.0.113.2"), "");
    assert_int_equal(pins_count(s->pins), 1);
    assert_int_equal(s->dns.ward.counts.pins, 1);
}

static void the_end_is_the_latest_of_all_answers(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    assert_true(add(s, "a.test", "203.0.113.1", 30));
    assert_int_equal(notes(s), 2); /* the kernel knows it for longer */
    assert_int_equal(life(s, "203.0.113.1", 443), 1024);
    /* another name at the same address and port: it does not shorten what is there */
    assert_true(add(s, "b.test", "203.0.113.1", 30));
    assert_int_equal(notes(s), 3);
    assert_int_equal(life(s, "203.0.113.1", 443), 1024);
    assert_true(add(s, "a.test", "203.0.113.1", 2000));
    assert_int_equal(life(s, "203.0.113.1", 443), 4096);
    assert_true(add(s, "a.test", "203.0.113.1", 4000000));
    assert_int_equal(life(s, "203.0.113.1", 443), pin_sink_as(NAMES_TTL_MAX_S));
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test b.test");
}

static void an_answer_from_the_table_tells_nothing(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    for (uint32_t ttl = 300; ttl > 290; ttl--)
        assert_true(add(s, "a.test", "203.0.113.1", ttl));
    assert_int_equal(notes(s), 2);
}

static void what_the_kernel_refuses_is_no_answer(void **state)
{
    struct scene *s = *state;

    refuse(s, true);
    assert_false(add(s, "a.test", "203.0.113.1", 300));
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    refuse(s, false);
    s->dns.ward.tag = 0; /* the kernel has no rules of it */
    assert_false(add(s, "a.test", "203.0.113.1", 300));
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    assert_int_equal(notes(s), 0);
    s->dns.ward.tag = PIN_SINK_TAG;
    assert_true(add(s, "a.test", "203.0.113.1", 300));
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    /* What it has stays: only that it is to be longer failed. */
    refuse(s, true);
    assert_true(add(s, "a.test", "203.0.113.1", 300));
    assert_false(add(s, "a.test", "203.0.113.1", 1000));
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    refuse(s, false);
    assert_true(add(s, "a.test", "203.0.113.1", 1000));
    assert_int_equal(life(s, "203.0.113.1", 443), 4096);
}

static void all_addresses_and_ports_of_an_answer_are_pinned(void **state)
{
    struct scene *s = *state;
    struct ip_addr a[NAMES_ADDRS_MAX + 1];
    struct err e = {0};
    char text[24];

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":[{\"to\":"
                              "{\"domain\":\"a.test\"},\"ports\":[\"100-103\"]}]}");
    for (unsigned i = 0; i < COUNT_OF(a); i++) {
        (void)snprintf(text, sizeof(text), "203.0.113.%u", i + 1);
        a[i] = ip(text);
    }
    assert_int_equal(
        pins_add(s->pins, &(struct pins_answer){"a.test", a, NAMES_ADDRS_MAX + 1, 300},
                 &e),
        -1);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(pins_count(s->pins), 0);
    assert_int_equal(
        pins_add(s->pins, &(struct pins_answer){"a.test", a, NAMES_ADDRS_MAX, 300}, &e),
        0);
    assert_int_equal(pin_sink_count(&s->dns.pins), NAMES_ADDRS_MAX * 4);
    assert_int_equal(notes(s), NAMES_ADDRS_MAX * 4);
    assert_int_equal(life(s, "203.0.113.32", 103), 1024);
    assert_int_equal(pins_add(s->pins, &(struct pins_answer){"a.test", a, 0, 300}, &e),
                     0);
}

static void a_name_without_ports_needs_no_kernel(void **state)
{
    struct scene *s = *state;

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"default\":\"allow\"}");
    assert_true(add(s, "anything.test", "203.0.113.1", 300));
    assert_string_equal(names_of(s, "203.0.113.1"), "anything.test");
    assert_int_equal(notes(s), 0);
    refuse(s, true);
    assert_true(add(s, "other.test", "203.0.113.1", 300));
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
    assert_string_equal(names_of(s, "203.0.113.1"), "b.test");
    assert_int_equal(life(s, "203.0.113.1", 5432), 0);
    assert_int_equal(life(s, "203.0.113.1", 443), 1024); /* b's too */
    assert_int_equal(life(s, "203.0.113.1", 8443), 1024);
    assert_int_equal(life(s, "203.0.113.3", 22), 0);
    assert_int_equal(life(s, "203.0.113.3", 23), 1024);
    assert_int_equal(life(s, "198.51.100.9", 9), 0);
    assert_int_equal(pin_sink_count(&s->dns.pins), 3);
    assert_int_equal(pins_count(s->pins), 2);
    assert_int_equal(s->dns.ward.counts.pins, 2);
}

/* What stays is told with the end of those that stay. */
static void
another_policy_shortens_what_only_a_name_that_goes_had_for_longer(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 3000));
    assert_true(add(s, "b.test", "203.0.113.1", 30));
    assert_int_equal(life(s, "203.0.113.1", 443), 4096);
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":"
                              "[\"b.test:443\"]}");
    pins_reload(s->pins);
    assert_int_equal(life(s, "203.0.113.1", 443), 256);
    assert_int_equal(life(s, "203.0.113.1", 5432), 0);
}

/* With another tag the kernel's sets are new: what it had is nothing. The sink takes the
 * first tag only, so what the second is told is read here. */
static void with_another_tag_all_is_told_again(void **state)
{
    struct scene *s = *state;
    const uint32_t tag = PIN_SINK_TAG + 1;
    uint8_t note[PIN_NOTE_MAX + 1];
    unsigned n = 0;

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    assert_true(add(s, "b.test", "203.0.113.1", 30));
    assert_true(add(s, "c.test", "2001:db8::3", 300));
    assert_int_equal(notes(s), 4);
    s->dns.ward.tag = tag;
    pins_reload(s->pins);
    while (recv(s->dns.pins.other, note, sizeof(note), 0) > 0) {
        assert_memory_equal(note + PIN_KEY_AT, &tag, sizeof(tag));
        assert_true(note[1] > 0);
        n++;
    }
    assert_int_equal(n, 4); /* 443 of two names, 5432, 22 */
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test b.test");
}

/* The sets are new and could not be filled: what they had does not count, and the next
 * answer tells it. */
static void what_a_reload_could_not_tell_is_told_by_the_next_answer(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    refuse(s, true);
    pins_reload(s->pins);
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    assert_false(add(s, "a.test", "203.0.113.1", 300));
    refuse(s, false);
    assert_true(add(s, "a.test", "203.0.113.1", 300));
    assert_int_equal(notes(s), 4);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    refuse(s, true);
    pins_reload(s->pins);
    refuse(s, false);
    pins_reload(s->pins);
    assert_int_equal(notes(s), 6);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
}

static void the_table_is_bounded_and_what_ends_first_goes(void **state)
{
    struct scene *s = *state;
    struct ip_addr a[NAMES_ADDRS_MAX];
    unsigned n_left = 0;

    assert_true(add(s, "c.test", "203.0.113.1", 30)); /* ends first */
    assert_int_equal(life(s, "203.0.113.1", 22), 256);
    assert_true(add(s, "a.test", "203.0.113.2", 3000));
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"default\":\"allow\"}");
    memset(a, 0, sizeof(a));
    for (unsigned i = 0; i < PINS_MAX / NAMES_ADDRS_MAX; i++) {
        for (unsigned k = 0; k < NAMES_ADDRS_MAX; k++) {
            a[k].family = AF_INET;
            a[k].bytes[0] = 8;
            a[k].bytes[1] = (uint8_t)(i >> 8);
            a[k].bytes[2] = (uint8_t)i;
            a[k].bytes[3] = (uint8_t)k;
        }
        assert_int_equal(
            pins_add(s->pins, &(struct pins_answer){"x.test", a, NAMES_ADDRS_MAX, 60 + i},
                     NULL),
            0);
        assert_true(pins_count(s->pins) <= PINS_MAX);
    }
    assert_int_equal(pins_count(s->pins), PINS_MAX);
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    assert_int_equal(life(s, "203.0.113.1", 22), 0); /* was taken out */
    assert_int_equal(life(s, "203.0.113.2", 443), 4096);
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
    e->end_ms = e->told_ms = loop_now(s->dns.guard.loop) + left_s * 1000;
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
    assert_int_equal(notes(s), 2); /* not yet */
    age(s, "a.test", "203.0.113.1", PIN_RENEW_S);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(notes(s), 4);
    assert_int_equal(life(s, "203.0.113.1", 443),
                     pin_sink_as(NAMES_TTL_MIN_S + NAMES_GRACE_S));
    assert_int_equal(life(s, "203.0.113.1", 5432),
                     pin_sink_as(NAMES_TTL_MIN_S + NAMES_GRACE_S));
    pins_release(s->pins, &a, "a.test"); /* one still holds it */
    age(s, "a.test", "203.0.113.1", 0);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(notes(s), 6);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    pins_release(s->pins, &a, "a.test");
    age(s, "a.test", "203.0.113.1", 1);
    dns_scene_for(&s->dns, 20);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    assert_int_equal(notes(s), 6);
    age(s, "a.test", "203.0.113.1", 0);
    assert_string_equal(names_of(s, "203.0.113.1"), "");
    dns_scene_for(&s->dns, 20);
    assert_int_equal(pins_count(s->pins), 0);
    assert_int_equal(notes(s), 8);
    assert_int_equal(pin_sink_count(&s->dns.pins), 0);
}

static void an_end_takes_out_what_no_other_name_of_the_address_gives(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 3000)); /* 443, 5432 */
    assert_true(add(s, "b.test", "203.0.113.1", 300));  /* 443 */
    assert_true(add(s, "b.test", "203.0.113.2", 300));
    age(s, "a.test", "203.0.113.1", 0);
    dns_scene_for(&s->dns, 20);
    assert_string_equal(names_of(s, "203.0.113.1"), "b.test");
    assert_int_equal(life(s, "203.0.113.1", 5432), 0);
    assert_true(life(s, "203.0.113.1", 443) > 0);
    age(s, "b.test", "203.0.113.1", 0);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(life(s, "203.0.113.1", 443), 0);
    assert_int_equal(life(s, "203.0.113.2", 443), 1024);
}

/* The guard decides by its table, whatever the kernel still lets through. */
static void an_end_that_the_kernel_does_not_hear_of_is_an_end(void **state)
{
    struct scene *s = *state;

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    refuse(s, true);
    age(s, "a.test", "203.0.113.1", 0);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(pins_count(s->pins), 0);
    assert_string_equal(names_of(s, "203.0.113.1"), "");
}

static void a_renewal_that_the_kernel_refuses_is_tried_again(void **state)
{
    struct scene *s = *state;
    struct ip_addr a = ip("203.0.113.1");

    assert_true(add(s, "a.test", "203.0.113.1", 300));
    pins_hold(s->pins, &a, "a.test");
    refuse(s, true);
    age(s, "a.test", "203.0.113.1", PIN_RENEW_S);
    dns_scene_for(&s->dns, 20);
    assert_string_equal(names_of(s, "203.0.113.1"), "a.test");
    assert_int_equal(notes(s), 2);
    refuse(s, false);
    age(s, "a.test", "203.0.113.1", PIN_RENEW_S);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(notes(s), 4);
    pins_release(s->pins, &a, "a.test");
}

/* A rule may have an end of its own: the answer after it, or the renewal, finds other
 * ports. The policy is exchanged here without pins_reload(), as the clock does it. */
static void a_port_that_a_name_lost_meanwhile_is_taken_out(void **state)
{
    static const char fewer[] = "{\"version\":1,\"name\":\"t\",\"allow\":"
                                "[\"a.test:443\",\"b.test:80\"]}";
    struct scene *s = *state;
    struct ip_addr a = ip("203.0.113.2");

    assert_true(add(s, "a.test", "203.0.113.1", 30));
    assert_true(add(s, "a.test", "203.0.113.2", 30));
    pins_hold(s->pins, &a, "a.test");
    dns_scene_policy(&s->dns, fewer);
    assert_true(add(s, "a.test", "203.0.113.1", 3000));
    assert_int_equal(life(s, "203.0.113.1", 443), 4096);
    assert_int_equal(life(s, "203.0.113.1", 5432), 0);
    assert_int_equal(life(s, "203.0.113.2", 5432), 256);
    age(s, "a.test", "203.0.113.2", PIN_RENEW_S);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(life(s, "203.0.113.2", 443), 256);
    assert_int_equal(life(s, "203.0.113.2", 5432), 0);
    pins_release(s->pins, &a, "a.test");
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
    assert_int_equal(notes(s), 2);
    assert_int_equal(pins_count(s->pins), 1);
    age(s, "a.test", "203.0.113.1", 0);
    dns_scene_for(&s->dns, 20);
    assert_int_equal(pins_count(s->pins), 0);
    assert_int_equal(pin_sink_count(&s->dns.pins), 0);
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
    struct pins *p = pins_new(&s->dns.ward, NULL);
    int rc = p ? pins_add(p, &(struct pins_answer){"a.test", &a, 1, 300}, NULL) : -1;

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
        TEST(an_answer_from_the_table_tells_nothing),
        TEST(what_the_kernel_refuses_is_no_answer),
        TEST(all_addresses_and_ports_of_an_answer_are_pinned),
        TEST(a_name_without_ports_needs_no_kernel),
        TEST(another_policy_takes_pins_out_and_puts_them_in),
        TEST(another_policy_shortens_what_only_a_name_that_goes_had_for_longer),
        TEST(with_another_tag_all_is_told_again),
        TEST(what_a_reload_could_not_tell_is_told_by_the_next_answer),
        TEST(the_table_is_bounded_and_what_ends_first_goes),
        TEST(a_pin_is_renewed_while_a_connection_holds_it),
        TEST(an_end_takes_out_what_no_other_name_of_the_address_gives),
        TEST(an_end_that_the_kernel_does_not_hear_of_is_an_end),
        TEST(a_renewal_that_the_kernel_refuses_is_tried_again),
        TEST(a_port_that_a_name_lost_meanwhile_is_taken_out),
        TEST(what_is_no_longer_allowed_is_not_renewed),
        TEST(ends_come_in_their_order),
        TEST(holding_and_releasing_what_is_not_there_is_nothing),
        TEST(no_memory_is_an_error_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
