/* SPDX-License-Identifier: MIT */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/egress/guard/dnsmsg.h"
#include "common/sock.h"
#include "tests/support/dns_scene.h"
#include "tests/support/test.h"

/* An answer that is being written. */
struct out {
    uint8_t m[65535];
    size_t n;
    unsigned count;
};

static void put(struct out *o, const void *p, size_t n)
{
    memcpy(o->m + o->n, p, n);
    o->n += n;
}

static void put_addr(struct out *o, const char *text, uint32_t ttl_s)
{
    struct ip_addr a;
    uint8_t head[] = {0xc0,
                      12,
                      0,
                      0,
                      0,
                      1,
                      (uint8_t)(ttl_s >> 24),
                      (uint8_t)(ttl_s >> 16),
                      (uint8_t)(ttl_s >> 8),
                      (uint8_t)ttl_s,
                      0,
                      0};

    assert_int_equal(ip_parse(span_str(text), &a), 0);
    head[3] = a.family == AF_INET ? DNS_A : DNS_AAAA;
    head[11] = ip_bytes(a.family);
    put(o, head, sizeof(head));
    put(o, a.bytes, head[11]);
    o->count++;
}

static bool is(const struct dns_question *q, const char *label)
{
    size_t n = strlen(label);

    return strncmp(q->text, label, n) == 0 && (q->text[n] == '.' || q->text[n] == '\0');
}

static void put_both(struct out *o, const struct dns_question *q, const char *v4,
                     const char *v6, uint32_t ttl_s)
{
    if (q->type == DNS_A && v4)
        put_addr(o, v4, ttl_s);
    if (q->type == DNS_AAAA && v6)
        put_addr(o, v6, ttl_s);
}

static void put_thousand(struct out *o, const struct dns_question *q)
{
    char text[24];

    for (unsigned i = 0; i < 1000 && q->type == DNS_A; i++) {
        (void)snprintf(text, sizeof(text), "203.%u.%u.1", i / 250, i % 250);
        put_addr(o, text, 300);
    }
}

static void put_alias(struct out *o, const struct dns_question *q)
{
    static const uint8_t cname[] = "\xc0\x0c\0\5\0\1\0\0\0\x5a\0\x0c\4real\5other";
    static const uint8_t a[] = "\4real\5other\0\0\1\0\1\0\0\0\x3c\0\4\xcb\0\x71\x08";

    put(o, cname, sizeof(cname)); /* with the root's 0 */
    o->count++;
    if (q->type != DNS_A)
        return;
    put(o, a, sizeof(a) - 1);
    o->count++;
}

/* False: no answer. */
static bool plain_answer(struct dns_upstream *u, struct out *o,
                         const struct dns_question *q)
{
    if (is(q, "one"))
        put_both(o, q, "203.0.113.7", "2001:db8::7", 300);
    else if (is(q, "short"))
        put_both(o, q, "203.0.113.7", "2001:db8::7", 1);
    else if (is(q, "long"))
        put_both(o, q, "203.0.113.7", "2001:db8::7", 1000000);
    else if (is(q, "v4"))
        put_both(o, q, "203.0.113.7", NULL, 300);
    else if (is(q, "slow6") && q->type == DNS_AAAA)
        return false;
    else if (is(q, "private"))
        put_both(o, q, "10.0.0.1", "fd00::1", 300);
    else if (is(q, "rebind") && q->type == DNS_A)
        put_addr(o, u->rebinds++ ? "127.0.0.1" : "203.0.113.9", 1);
    else if (is(q, "alias"))
        put_alias(o, q);
    else if (is(q, "thousand"))
        put_thousand(o, q);
    else if (is(q, "mixed") && q->type == DNS_A) {
        put_addr(o, "203.0.113.7", 300);
        put_addr(o, "10.0.0.1", 300);
        put_addr(o, "169.254.169.254", 300);
    } else if (!is(q, "none") && !is(q, "nx"))
        put_both(o, q, "203.0.113.1", NULL, 300);
    return true;
}

/* Faults that are put into a good answer. */
static bool spoil(struct out *o, const struct dns_question *q, bool is_tcp)
{
    static const uint8_t circle[] = "\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x0c";
    static const uint8_t self[] = "\xc0\xff\0\1\0\1\0\0\0\1\0\4\1\2\3\4";

    if (is(q, "silent") || (is(q, "cutoff") && is_tcp))
        return false;
    if (is(q, "nx"))
        o->m[3] |= DNS_NXDOMAIN;
    if (is(q, "servfail"))
        o->m[3] |= DNS_SERVFAIL;
    if (is(q, "refused"))
        o->m[3] |= DNS_REFUSED;
    if (is(q, "wrongid"))
        o->m[1] ^= 1;
    if (is(q, "other"))
        o->m[13] = 'x';
    if (is(q, "garbage"))
        o->n -= 3;
    if (is(q, "formerr") && q->has_edns) {
        o->m[3] |= DNS_FORMERR;
        o->m[7] = 0;
        o->n = 12u + q->wire_len + 4u;
    }
    if (is(q, "loop") || is(q, "pointer")) {
        o->n = 12u + q->wire_len + 4u;
        o->m[6] = 0;
        o->m[7] = 1;
        if (is(q, "loop"))
            put(o, circle, sizeof(circle) - 1);
        else
            put(o, self, sizeof(self) - 1);
        if (is(q, "pointer"))
            o->m[12 + q->wire_len + 5] = (uint8_t)(12 + q->wire_len + 4);
    }
    if (!is_tcp && (is(q, "cut") || is(q, "cutoff") || is(q, "thousand"))) {
        o->m[2] |= 2;
        o->m[6] = o->m[7] = 0;
        o->n = 12u + q->wire_len + 4u;
    }
    return true;
}

static bool respond(struct dns_upstream *u, struct span msg, bool is_tcp, struct out *o)
{
    struct dns_question q;

    if (dnsmsg_parse_question(msg, &q) != DNSMSG_OK)
        return false;
    u->asked++;
    u->asked_tcp += is_tcp;
    (void)snprintf(u->last, sizeof(u->last), "%.255s", q.text);
    o->count = 0;
    o->n = 0;
    put(o, msg.p, 12u + q.wire_len + 4u);
    o->m[2] |= 0x80;
    o->m[3] = 0x80;
    memset(o->m + 6, 0, 6);
    if (!plain_answer(u, o, &q))
        return false;
    o->m[6] = (uint8_t)(o->count >> 8);
    o->m[7] = (uint8_t)o->count;
    return spoil(o, &q, is_tcp);
}

static void on_udp(void *arg, unsigned events)
{
    struct dns_upstream *u = arg;
    struct sock_addr from;
    uint8_t m[1500];
    ssize_t n;

    UNUSED_ARG(events);
    for (;;) {
        struct out *o;

        from.len = sizeof(from.u);
        n = recvfrom(u->udp, m, sizeof(m), MSG_DONTWAIT, &from.u.sa, &from.len);
        if (n < 0)
            return;
        o = mem_alloc(sizeof(*o));
        assert_non_null(o);
        if (respond(u, span_of(m, (size_t)n), false, o))
            (void)sendto(u->udp, o->m, o->n, 0, &from.u.sa, from.len);
        mem_free(o);
    }
}

/* One connection at a time; its question comes in one segment. */
static void on_question(void *arg, unsigned events)
{
    struct dns_upstream *u = arg;
    uint8_t m[1500], len[2];
    ssize_t n = recv(u->conn, m, sizeof(m), MSG_DONTWAIT);
    struct out *o = mem_alloc(sizeof(*o));

    UNUSED_ARG(events);
    assert_non_null(o);
    if (n > 2 && respond(u, span_of(m + 2, (size_t)n - 2), true, o)) {
        len[0] = (uint8_t)(o->n >> 8);
        len[1] = (uint8_t)o->n;
        (void)send(u->conn, len, 2, MSG_NOSIGNAL);
        (void)send(u->conn, o->m, o->n, MSG_NOSIGNAL);
    }
    mem_free(o);
    loop_io_stop(&u->conn_io);
    sock_close(&u->conn);
}

static void on_tcp(void *arg, unsigned events)
{
    struct dns_upstream *u = arg;
    struct sock_addr from;
    int fd = sock_accept(u->tcp, &from);

    UNUSED_ARG(events);
    if (fd < 0)
        return;
    loop_io_stop(&u->conn_io);
    sock_close(&u->conn);
    u->conn = fd;
    u->conn_io = loop_io_start(u->loop, fd, on_question, u, NULL);
    assert_non_null(u->conn_io);
    loop_io_want(u->conn_io, LOOP_READ);
}

void dns_upstream_open(struct dns_upstream *u, struct loop *l)
{
    struct sock_addr a = {.len = sizeof(a.u.in)};
    struct err e = {0};

    memset(u, 0, sizeof(*u));
    u->loop = l;
    u->conn = -1;
    for (int i = 0; i < 50; i++) { /* a port that is free for both */
        assert_int_equal(sock_parse_ip(span_str("127.0.0.1"), 0, &a), 0);
        u->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_int_equal(bind(u->udp, &a.u.sa, a.len), 0);
        assert_int_equal(sock_local(u->udp, &a), 0);
        u->tcp = sock_listen(&a, &e);
        if (u->tcp >= 0)
            break;
        sock_close(&u->udp);
    }
    assert_true(u->tcp >= 0);
    u->port = sock_port(&a);
    (void)snprintf(u->servers, sizeof(u->servers), "127.0.0.1:%u", u->port);
    u->udp_io = loop_io_start(l, u->udp, on_udp, u, &e);
    u->tcp_io = loop_io_start(l, u->tcp, on_tcp, u, &e);
    assert_true(u->udp_io && u->tcp_io);
    loop_io_want(u->udp_io, LOOP_READ);
    loop_io_want(u->tcp_io, LOOP_READ);
}

void dns_upstream_close(struct dns_upstream *u)
{
    loop_io_stop(&u->udp_io);
    loop_io_stop(&u->tcp_io);
    loop_io_stop(&u->conn_io);
    sock_close(&u->udp);
    sock_close(&u->tcp);
    sock_close(&u->conn);
}
