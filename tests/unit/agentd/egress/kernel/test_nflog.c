/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>

#include "agentd/egress/kernel/nflog.h"
#include "agentd/egress/kernel/nft_int.h"
#include "tests/support/test.h"

struct dgram {
    uint8_t p[1024];
    size_t len, start; /* of the last message */
};

static void attr(struct dgram *d, uint16_t type, const void *p, size_t len)
{
    struct nlattr a = {.nla_len = (uint16_t)(sizeof(a) + len), .nla_type = type};
    struct nlmsghdr m;

    memcpy(d->p + d->len, &a, sizeof(a));
    memcpy(d->p + d->len + sizeof(a), p, len);
    d->len += NLMSG_ALIGN(sizeof(a) + len);
    memcpy(&m, d->p + d->start, sizeof(m));
    m.nlmsg_len = (uint32_t)(d->len - d->start);
    memcpy(d->p + d->start, &m, sizeof(m));
}

static void message(struct dgram *d, uint32_t mark, const void *packet, size_t len)
{
    struct nlmsghdr m = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct nfgenmsg)),
                         .nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET};

    d->start = d->len;
    memset(d->p + d->len, 0, m.nlmsg_len);
    memcpy(d->p + d->len, &m, sizeof(m));
    d->len += m.nlmsg_len;
    mark = htonl(mark);
    attr(d, NFULA_MARK, &mark, 4);
    attr(d, NFULA_PAYLOAD, packet, len);
}

static const uint8_t tcp4[] = {0x45, 0, 0, 40, 0, 0, 0,  0,  64,   6,    0, 0, 192, 0,
                               0,    8, 1, 2,  3, 4, 48, 57, 0x15, 0x38, 0, 0, 0,   0};
static const uint8_t options4[] = {0x46, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0,
                                   0,    8, 8, 8,  8, 8, 1, 1, 1,  1,  0, 1, 0,   53};
static const uint8_t fragment4[] = {0x45, 0, 0, 28, 0, 0, 0, 1, 64, 17, 0, 0,
                                    192,  0, 0, 8,  8, 8, 8, 8, 0,  1,  0, 53};
static const uint8_t udp6[] = {0x60, 0, 0,    0, 0,   8,    17, 64,   1,    0, 0,
                               0,    0, 0,    0, 0,   0,    0,  0,    0,    0, 0,
                               0,    8, 0x20, 1, 0xd, 0xb8, 0,  0,    0,    0, 0,
                               0,    0, 0,    0, 0,   0,    1,  0x30, 0x39, 1, 0xbb};
/* hop-by-hop options, then a first fragment, then TCP */
static const uint8_t chain6[] = {
    0x60, 0, 0, 0, 0,    8, 0,   64,   1, 0, 0, 0, 0, 0, 0, 0, 0,    0,    0, 0,
    0,    0, 0, 8, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0,    0, 1,
    44,   0, 0, 0, 0,    0, 0,   0,    6, 0, 0, 1, 0, 0, 0, 9, 0x30, 0x39, 0, 22};
static const uint8_t mapped6[] = {
    0x60, 0, 0, 0, 0, 8, 6, 64, 1, 0, 0, 0, 0,    0,    0,  0, 0, 0, 0,    0,    0, 0,
    0,    8, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 0x30, 0x39, 0, 22};

static void packets_are_read_as_they_are(void **state)
{
    static const struct {
        const uint8_t *p;
        size_t len;
        uint8_t protocol;
        const char *to;
        uint16_t port;
    } rows[] = {
        {tcp4, sizeof(tcp4), IPPROTO_TCP, "1.2.3.4", 5432},
        {options4, sizeof(options4), IPPROTO_UDP, "8.8.8.8", 53},
        {fragment4, sizeof(fragment4), IPPROTO_UDP, "8.8.8.8", 0},
        {udp6, sizeof(udp6), IPPROTO_UDP, "2001:db8::1", 443},
        {chain6, sizeof(chain6), IPPROTO_TCP, "2001:db8::1", 22},
        {mapped6, sizeof(mapped6), IPPROTO_TCP, "10.0.0.1", 22},
        {tcp4, 20, IPPROTO_TCP, "1.2.3.4", 0},
        {udp6, 42, IPPROTO_UDP, "2001:db8::1", 0},
    };

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct dgram d = {0};
        struct nflog_packet got;
        char text[IP_TEXT_MAX];
        size_t pos = 0;

        message(&d, NFT_REFUSED | 777 << 8 | NFT_WHY_FLOOR, rows[i].p, rows[i].len);
        assert_true(nflog_next(span_of(d.p, d.len), &pos, &got));
        assert_int_equal(got.index, 777);
        assert_string_equal(got.why, "floor");
        assert_int_equal(got.protocol, rows[i].protocol);
        assert_string_equal(ip_print(&got.to, text), rows[i].to);
        assert_int_equal(got.to_port, rows[i].port);
        assert_int_equal(got.uid, UINT32_MAX);
        assert_false(nflog_next(span_of(d.p, d.len), &pos, &got));
    }
}

static void a_cut_packet_is_no_address(void **state)
{
    static const struct {
        const uint8_t *p;
        size_t len;
    } rows[] = {{tcp4, 0},
                {tcp4, 1},
                {tcp4, 19},
                {udp6, 39},
                {(const uint8_t *)"\x10zzz", 4},
                {(const uint8_t *)"\x44zzzzzzzzzzzzzzzzzzzzzzz", 24}};

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct dgram d = {0};
        struct nflog_packet got;
        size_t pos = 0;

        message(&d, NFT_REFUSED | 1 << 8, rows[i].p, rows[i].len);
        assert_true(nflog_next(span_of(d.p, d.len), &pos, &got));
        assert_int_equal(got.protocol, 0);
        assert_int_equal(got.to.family, 0);
    }
}

static void what_is_not_our_refusal_is_passed_over(void **state)
{
    struct dgram d = {0};
    struct nflog_packet got;
    size_t pos = 0;
    uint32_t uid = htonl(1000);

    UNUSED_ARG(state);
    message(&d, 0, tcp4, sizeof(tcp4));
    message(&d, EGRESS_MARK, tcp4, sizeof(tcp4));
    message(&d, NFT_REFUSED | 2 << 8 | NFT_WHY_DENIED, tcp4, sizeof(tcp4));
    attr(&d, NFULA_UID, &uid, 4);
    message(&d, NFT_REFUSED | 3 << 8 | 0xff, tcp4, sizeof(tcp4));
    assert_true(nflog_next(span_of(d.p, d.len), &pos, &got));
    assert_int_equal(got.index, 2);
    assert_int_equal(got.uid, 1000);
    assert_string_equal(got.why, "denied");
    assert_true(nflog_next(span_of(d.p, d.len), &pos, &got));
    assert_int_equal(got.index, 3);
    assert_string_equal(got.why, "unknown");
    assert_false(nflog_next(span_of(d.p, d.len), &pos, &got));
}

/* At each cut: fewer packets or none, never a byte beyond. */
static void every_cut_ends(void **state)
{
    struct dgram d = {0};

    UNUSED_ARG(state);
    message(&d, NFT_REFUSED | 1 << 8, chain6, sizeof(chain6));
    message(&d, NFT_REFUSED | 1 << 8, options4, sizeof(options4));
    for (size_t len = 0; len < d.len; len++) {
        uint8_t *copy = mem_alloc(len + 1);
        struct nflog_packet got;
        size_t pos = 0;
        unsigned n = 0;

        assert_non_null(copy);
        memcpy(copy, d.p, len);
        while (nflog_next(span_of(copy, len), &pos, &got))
            n++;
        assert_int_equal(n, len >= d.start);
        mem_free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_are_read_as_they_are),
        cmocka_unit_test(a_cut_packet_is_no_address),
        cmocka_unit_test(what_is_not_our_refusal_is_passed_over),
        cmocka_unit_test(every_cut_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
