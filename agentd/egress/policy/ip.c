/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/ip.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/cdefs.h"

static const uint8_t MAPPED[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void from_in6(const struct in6_addr *in, struct ip_addr *ret)
{
    *ret = (struct ip_addr){.family = AF_INET6};
    if (memcmp(in->s6_addr, MAPPED, sizeof MAPPED) == 0) {
        ret->family = AF_INET;
        memcpy(ret->bytes, in->s6_addr + sizeof MAPPED, 4);
    } else {
        memcpy(ret->bytes, in->s6_addr, 16);
    }
}

/* As ip_parse(), but tells how many bits of the text's own family the result lacks: 96
 * for an IPv4-mapped one. */
static int parse(struct span text, struct ip_addr *ret, unsigned *ret_lost)
{
    char s[INET6_ADDRSTRLEN];
    struct in6_addr six;
    struct in_addr four;

    /* inet_pton() stops at a NUL and would read the rest as if it were not there. */
    if (text.len == 0 || text.len >= sizeof s || memchr(text.p, '\0', text.len))
        return -1;
    memcpy(s, text.p, text.len);
    s[text.len] = '\0';
    *ret_lost = 0;
    if (inet_pton(AF_INET, s, &four) == 1) {
        *ret = (struct ip_addr){.family = AF_INET};
        memcpy(ret->bytes, &four, 4);
        return 0;
    }
    if (inet_pton(AF_INET6, s, &six) != 1)
        return -1;
    from_in6(&six, ret);
    *ret_lost = ret->family == AF_INET ? 96 : 0;
    return 0;
}

int ip_parse(struct span text, struct ip_addr *ret)
{
    unsigned lost;

    return parse(text, ret, &lost);
}

/* 0..128 without sign or leading zero; -1. */
static int bits_parse(struct span text)
{
    int v = 0;

    if (text.len == 0 || text.len > 3 || (text.len > 1 && text.p[0] == '0'))
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return -1;
        v = v * 10 + (text.p[i] - '0');
    }
    return v <= 128 ? v : -1;
}

/* The first `bits` bits of a; the others 0. */
static struct ip_addr masked(const struct ip_addr *a, unsigned bits)
{
    struct ip_addr r = *a;

    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = bits > i * 8 ? bits - i * 8 : 0;

        if (keep < 8)
            r.bytes[i] &= (uint8_t)(0xff00 >> keep);
    }
    return r;
}

int ip_net_parse(struct span text, struct ip_net *ret)
{
    const uint8_t *slash = text.len ? memchr(text.p, '/', text.len) : NULL;
    size_t len = slash ? (size_t)(slash - text.p) : text.len;
    struct ip_addr a, m;
    unsigned lost;
    int bits;

    if (parse(span_of(text.p, len), &a, &lost) < 0)
        return -1;
    bits = slash ? bits_parse(span_skip(text, len + 1)) : (int)(ip_bits(a.family) + lost);
    if (bits < (int)lost || (unsigned)bits > ip_bits(a.family) + lost)
        return -1;
    bits -= (int)lost;
    m = masked(&a, (unsigned)bits);
    if (!ip_eq(&a, &m))
        return -1;
    ret->addr = a;
    ret->bits = (uint8_t)bits;
    return 0;
}

const char *ip_print(const struct ip_addr *a, char out[IP_TEXT_MAX])
{
    if ((a->family != AF_INET && a->family != AF_INET6) ||
        !inet_ntop(a->family, a->bytes, out, IP_TEXT_MAX))
        (void)snprintf(out, IP_TEXT_MAX, "none");
    return out;
}

const char *ip_net_print(const struct ip_net *n, char out[IP_TEXT_MAX])
{
    size_t len;

    (void)ip_print(&n->addr, out);
    len = strlen(out);
    if (n->bits < ip_bits(n->addr.family))
        (void)snprintf(out + len, IP_TEXT_MAX - len, "/%u", n->bits);
    return out;
}

bool ip_eq(const struct ip_addr *a, const struct ip_addr *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool ip_net_has(const struct ip_net *n, const struct ip_addr *a)
{
    unsigned whole = n->bits / 8, rest = n->bits % 8;

    if (n->addr.family != a->family || a->family == 0 ||
        memcmp(n->addr.bytes, a->bytes, whole) != 0)
        return false;
    return rest == 0 || ((n->addr.bytes[whole] ^ a->bytes[whole]) >> (8 - rest)) == 0;
}

void ip_net_of(const struct ip_addr *a, unsigned bits, struct ip_net *ret)
{
    ret->addr = masked(a, bits);
    ret->bits = (uint8_t)(bits < ip_bits(a->family) ? bits : ip_bits(a->family));
}

bool ip_net_covers(const struct ip_net *outer, const struct ip_net *inner)
{
    return outer->bits <= inner->bits && ip_net_has(outer, &inner->addr);
}

void ip_from_sock(const struct sock_addr *a, struct ip_addr *ret)
{
    *ret = (struct ip_addr){.family = 0};
    if (a->len == 0)
        return;
    if (a->u.sa.sa_family == AF_INET) {
        ret->family = AF_INET;
        memcpy(ret->bytes, &a->u.in.sin_addr, 4);
    } else if (a->u.sa.sa_family == AF_INET6) {
        from_in6(&a->u.in6.sin6_addr, ret);
    }
}

void ip_to_sock(const struct ip_addr *a, uint16_t port, struct sock_addr *ret)
{
    memset(ret, 0, sizeof *ret);
    if (a->family == AF_INET) {
        ret->len = sizeof ret->u.in;
        ret->u.in.sin_family = AF_INET;
        ret->u.in.sin_port = htons(port);
        memcpy(&ret->u.in.sin_addr, a->bytes, 4);
    } else if (a->family == AF_INET6) {
        ret->len = sizeof ret->u.in6;
        ret->u.in6.sin6_family = AF_INET6;
        ret->u.in6.sin6_port = htons(port);
        memcpy(&ret->u.in6.sin6_addr, a->bytes, 16);
    }
}
