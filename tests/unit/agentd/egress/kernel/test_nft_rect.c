/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/egress/kernel/nft_int.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

static void put(struct nft_rects *r, const char *net, uint16_t first, uint16_t last)
{
    struct ip_net n;

    assert_int_equal(ip_net_parse(span_str(net), &n), 0);
    assert_int_equal(rects_add(r, &n, first, last), 0);
}

static bool is_in(const struct nft_rect *x, const struct ip_addr *a, uint16_t port)
{
    return x->lo.family == a->family && memcmp(x->lo.bytes, a->bytes, 16) <= 0 &&
           memcmp(x->hi.bytes, a->bytes, 16) >= 0 && x->first <= port && port <= x->last;
}

static unsigned count(const struct nft_rects *r, const struct ip_addr *a, uint16_t port)
{
    unsigned n = 0;

    for (size_t i = 0; i < r->n; i++)
        n += is_in(&r->at[i], a, port);
    return n;
}

/* The ends of every rectangle, and one beyond, on both axes: that is where two covers
 * would differ. */
static void same_cover(const struct nft_rects *before, const struct nft_rects *after)
{
    for (size_t i = 0; i < before->n; i++)
        for (size_t k = 0; k < before->n; k++)
            for (int side = 0; side < 8; side++) {
                struct ip_addr a = side & 1 ? before->at[i].hi : before->at[i].lo;
                int port = side & 2 ? before->at[k].last : before->at[k].first;

                if (side & 4 && !rect_next_addr(&a, &a))
                    continue;
                if (side & 4)
                    port += side & 2 ? 1 : -1;
                if (port < 0 || port > 65535)
                    continue;
                assert_int_equal(count(after, &a, (uint16_t)port),
                                 count(before, &a, (uint16_t)port) > 0);
            }
}

static void copy(struct nft_rects *to, const struct nft_rects *from)
{
    for (size_t i = 0; i < from->n; i++)
        assert_int_equal(rects_push(to, &from->at[i]), 0);
}

static void nested_networks_keep_what_those_around_have_not(void **state)
{
    struct nft_rects r = {0}, before = {0};

    UNUSED_ARG(state);
    put(&r, "10.1.2.3", 80, 80);
    put(&r, "10.0.0.0/8", 443, 443);
    put(&r, "10.1.0.0/16", 400, 500);
    put(&r, "10.1.2.0/24", 443, 443); /* nothing new */
    put(&r, "10.1.2.3", 0, 65535);
    put(&r, "10.2.0.0/16", 80, 80);
    put(&r, "10.2.0.0/16", 79, 81);
    put(&r, "2001:db8::/32", 443, 443);
    put(&r, "2001:db8:1::/48", 1, 65535);
    copy(&before, &r);
    assert_int_equal(rects_disjoin(&r), 0);
    same_cover(&before, &r);
    assert_int_equal(r.n, 9);
    rects_done(&r);
    rects_done(&before);
}

static void random_networks_cover_the_same_without_overlap(void **state)
{
    unsigned seed = 7;

    UNUSED_ARG(state);
    for (int round = 0; round < 300; round++) {
        struct nft_rects r = {0}, before = {0};
        int n = 1 + rand_r(&seed) % 12;

        for (int i = 0; i < n; i++) {
            unsigned bits = 16 + (unsigned)rand_r(&seed) % 17;
            uint32_t a = 0x0a000000u | ((uint32_t)rand_r(&seed) & 0xf);
            struct ip_net net = {.addr.family = AF_INET, .bits = (uint8_t)bits};
            unsigned first = (unsigned)rand_r(&seed) % 6,
                     len = (unsigned)rand_r(&seed) % 5;

            a &= bits == 0 ? 0 : UINT32_MAX << (32 - bits);
            for (int k = 0; k < 4; k++)
                net.addr.bytes[k] = (uint8_t)(a >> (24 - 8 * k));
            if (rand_r(&seed) % 5 == 0)
                first += 65500;
            assert_int_equal(
                rects_add(&r, &net, (uint16_t)first, (uint16_t)(first + len)), 0);
        }
        copy(&before, &r);
        assert_int_equal(rects_disjoin(&r), 0);
        same_cover(&before, &r);
        rects_done(&r);
        rects_done(&before);
    }
}

static void the_deepest_nesting_fits(void **state)
{
    struct nft_rects r = {0};
    struct ip_net net = {.addr = {.family = AF_INET6}};

    UNUSED_ARG(state);
    for (unsigned bits = 0; bits <= 128; bits++) {
        net.bits = (uint8_t)bits;
        assert_int_equal(rects_add(&r, &net, (uint16_t)bits, (uint16_t)bits), 0);
    }
    assert_int_equal(rects_disjoin(&r), 0);
    assert_int_equal(r.n, 129);
    rects_done(&r);
}

static void touching_and_overlapping_ranges_are_joined(void **state)
{
    struct nft_rects r = {0};
    char a[IP_TEXT_MAX], b[IP_TEXT_MAX];

    UNUSED_ARG(state);
    put(&r, "10.0.1.0/24", 0, 0);
    put(&r, "10.0.0.0/24", 0, 0);
    put(&r, "10.0.0.128/25", 0, 0);
    put(&r, "10.0.3.0/24", 0, 0);
    put(&r, "240.0.0.0/4", 0, 0);
    put(&r, "255.255.255.255", 0, 0);
    put(&r, "::/8", 0, 0);
    rects_join(&r);
    assert_int_equal(r.n, 4);
    assert_string_equal(ip_print(&r.at[0].lo, a), "10.0.0.0");
    assert_string_equal(ip_print(&r.at[0].hi, b), "10.0.1.255");
    assert_string_equal(ip_print(&r.at[2].hi, a), "255.255.255.255");
    rects_done(&r);
}

static int plan_once(const struct policy *p)
{
    struct nft_plan plan;

    if (plan_make(&plan, p) < 0)
        return -1;
    plan_done(&plan);
    return 0;
}

static void a_plan_takes_what_the_policy_says(void **state)
{
    struct policy *p = policy_text(
        "{\"version\":1,\"name\":\"t\",\"allow\":[\"a.example.com\",\"203.0.113.0/"
        "24:443\","
        "\"203.0.113.9:400-500\",\"10.0.0.0/8:1\"],\"deny\":[\"198.51.100.0/24:1-65535\","
        "{\"to\":{\"cidr\":\"192.0.2.0/24\"},\"expires\":\"2999-01-01T00:00:00Z\"}],"
        "\"limits\":{\"connections\":7,\"bytes\":1000}}");
    struct nft_rects private = {0};
    struct nft_plan plan;

    UNUSED_ARG(state);
    assert_int_equal(plan_make(&plan, p), 0);
    assert_int_equal(plan.allowed.n, 4);
    assert_int_equal(plan.denied.n, 1); /* the one that ends is the guard's alone */
    assert_int_equal(plan.connections, 7);
    assert_true(plan.quota > 1000);
    assert_int_equal(plan_sets(&plan), 1 << NFT_NET4 | 1 << NFT_NO4 | 1 << NFT_PORT);
    plan_done(&plan);
    assert_int_equal(rects_of_policy(&private, p, NFT_TAKE_PRIVATE), 0);
    assert_int_equal(private.n, 1);
    rects_done(&private);
    FAIL_EACH_ALLOC(plan_once(p));
    policy_unref(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nested_networks_keep_what_those_around_have_not),
        cmocka_unit_test(random_networks_cover_the_same_without_overlap),
        cmocka_unit_test(the_deepest_nesting_fits),
        cmocka_unit_test(touching_and_overlapping_ranges_are_joined),
        cmocka_unit_test(a_plan_takes_what_the_policy_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
