/* SPDX-License-Identifier: MIT */
#include "common/proxyproto.h"

#include <arpa/inet.h>
#include <string.h>

#include "common/limits.h"
#include "common/wire.h"

#define V1_MAX  107 /* with CRLF (proxy-protocol.txt 2.1) */
#define V2_HEAD 16

static const char v1_sign[] = "PROXY ";
static const char v2_sign[] = "\r\n\r\n\0\r\nQUIT\n";
#define V1_SIGN_LEN (sizeof(v1_sign) - 1)
#define V2_SIGN_LEN (sizeof(v2_sign) - 1)

/* The next word of a line; exactly one space stands between two words. */
static bool next_word(struct span *line, struct span *ret)
{
    const uint8_t *sp = line->len ? memchr(line->p, ' ', line->len) : NULL;

    *ret = span_of(line->p, sp ? (size_t)(sp - line->p) : line->len);
    *line = span_skip(*line, ret->len + (sp ? 1 : 0));
    return ret->len > 0 && (!sp || line->len > 0);
}

static int port_parse(struct span s, uint16_t *ret)
{
    unsigned v = 0;

    if (s.len == 0 || s.len > 5 || (s.len > 1 && s.p[0] == '0'))
        return -1;
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return -1;
        v = v * 10 + (unsigned)(s.p[i] - '0');
    }
    if (v > UINT16_MAX)
        return -1;
    *ret = (uint16_t)v;
    return 0;
}

static struct sock_addr addr_of(int family, const void *bytes, uint16_t port)
{
    struct sock_addr a = {.len = 0};

    if (family == AF_INET) {
        a.len = sizeof(a.u.in);
        a.u.in.sin_family = AF_INET;
        a.u.in.sin_port = htons(port);
        memcpy(&a.u.in.sin_addr, bytes, sizeof(a.u.in.sin_addr));
    } else {
        a.len = sizeof(a.u.in6);
        a.u.in6.sin6_family = AF_INET6;
        a.u.in6.sin6_port = htons(port);
        memcpy(&a.u.in6.sin6_addr, bytes, sizeof(a.u.in6.sin6_addr));
    }
    return a;
}

static int ip_parse(int family, struct span s, uint8_t out[16])
{
    char text[INET6_ADDRSTRLEN];

    /* inet_pton() stops at a NUL. */
    if (s.len >= sizeof(text) || memchr(s.p, '\0', s.len))
        return -1;
    memcpy(text, s.p, s.len);
    text[s.len] = '\0';
    return inet_pton(family, text, out) == 1 ? 0 : -1;
}

/* "TCP4 source destination source-port destination-port", or "UNKNOWN" and anything. */
static enum proxyproto_result v1_line(struct span line, struct sock_addr *ret_client)
{
    struct span proto, from, to, from_port, to_port;
    uint8_t client[16], server[16];
    uint16_t client_port, server_port;
    int family;

    /* What follows UNKNOWN is to be ignored. */
    if (span_eq(line, span_str("UNKNOWN")) ||
        (line.len >= 8 && memcmp(line.p, "UNKNOWN ", 8) == 0)) {
        *ret_client = (struct sock_addr){.len = 0};
        return PROXYPROTO_OK;
    }
    if (!next_word(&line, &proto))
        return PROXYPROTO_BAD;
    if (span_eq(proto, span_str("TCP4")))
        family = AF_INET;
    else if (span_eq(proto, span_str("TCP6")))
        family = AF_INET6;
    else
        return PROXYPROTO_BAD;
    if (!next_word(&line, &from) || !next_word(&line, &to) ||
        !next_word(&line, &from_port) || !next_word(&line, &to_port) || line.len > 0)
        return PROXYPROTO_BAD;
    if (ip_parse(family, from, client) < 0 || ip_parse(family, to, server) < 0 ||
        port_parse(from_port, &client_port) < 0 || port_parse(to_port, &server_port) < 0)
        return PROXYPROTO_BAD;
    *ret_client = addr_of(family, client, client_port);
    return PROXYPROTO_OK;
}

static enum proxyproto_result v1_parse(struct span bytes, size_t *ret_len,
                                       struct sock_addr *ret_client)
{
    size_t n = bytes.len < V1_MAX ? bytes.len : V1_MAX, len;
    const uint8_t *lf = memchr(bytes.p, '\n', n), *cr = memchr(bytes.p, '\r', n);
    enum proxyproto_result r;

    if (!lf) {
        bool is_open = !cr || cr == bytes.p + bytes.len - 1;

        return is_open && n < V1_MAX ? PROXYPROTO_MORE : PROXYPROTO_BAD;
    }
    if (!cr || cr != lf - 1)
        return PROXYPROTO_BAD;
    len = (size_t)(cr - bytes.p);
    r = v1_line(span_of(bytes.p + V1_SIGN_LEN, len - V1_SIGN_LEN), ret_client);
    if (r == PROXYPROTO_OK)
        *ret_len = len + 2;
    return r;
}

static bool are_tlvs(struct wire_rd r)
{
    while (!r.bad && wire_rd_left(&r) > 0) {
        (void)wire_rd_uint(&r, 1);
        (void)wire_rd_sub(&r, wire_rd_uint(&r, 2));
    }
    return !r.bad;
}

static enum proxyproto_result v2_address(unsigned family, struct wire_rd body,
                                         struct sock_addr *ret_client)
{
    size_t n = family == 0x11 ? 4 : family == 0x21 ? 16 : 108;
    struct wire_rd client, server;
    uint16_t port;

    *ret_client = (struct sock_addr){.len = 0};
    if (family == 0x00) /* UNSPEC: what follows is to be ignored */
        return PROXYPROTO_OK;
    if (family != 0x11 && family != 0x21 && family != 0x31)
        return PROXYPROTO_BAD; /* no byte stream, or not assigned */
    client = wire_rd_sub(&body, n);
    server = wire_rd_sub(&body, n);
    if (server.bad)
        return PROXYPROTO_BAD;
    if (family != 0x31) {
        port = (uint16_t)wire_rd_uint(&body, 2);
        (void)wire_rd_uint(&body, 2);
        if (body.bad)
            return PROXYPROTO_BAD;
        *ret_client = addr_of(family == 0x11 ? AF_INET : AF_INET6, client.p, port);
    }
    return are_tlvs(body) ? PROXYPROTO_OK : PROXYPROTO_BAD;
}

static enum proxyproto_result v2_parse(struct span bytes, size_t *ret_len,
                                       struct sock_addr *ret_client)
{
    struct sock_addr client = {.len = 0};
    enum proxyproto_result r;
    size_t len;

    if (bytes.len > 12 && bytes.p[12] != 0x20 && bytes.p[12] != 0x21)
        return PROXYPROTO_BAD; /* version 2; LOCAL or PROXY */
    if (bytes.len < V2_HEAD)
        return PROXYPROTO_MORE;
    len = (size_t)bytes.p[14] << 8 | bytes.p[15];
    if (len > PROXYPROTO_MAX - V2_HEAD)
        return PROXYPROTO_BAD;
    if (bytes.len - V2_HEAD < len)
        return PROXYPROTO_MORE;
    if (bytes.p[12] == 0x21) {
        r = v2_address(bytes.p[13], wire_rd_init(bytes.p + V2_HEAD, len), &client);
        if (r != PROXYPROTO_OK)
            return r;
    }
    *ret_client = client;
    *ret_len = V2_HEAD + len;
    return PROXYPROTO_OK;
}

static bool begins(struct span bytes, const char *sign, size_t sign_len)
{
    size_t n = bytes.len < sign_len ? bytes.len : sign_len;

    return memcmp(bytes.p, sign, n) == 0;
}

enum proxyproto_result proxyproto_parse(struct span bytes, size_t *ret_len,
                                        struct sock_addr *ret_client)
{
    if (bytes.len == 0)
        return PROXYPROTO_MORE;
    if (begins(bytes, v1_sign, V1_SIGN_LEN))
        return bytes.len < V1_SIGN_LEN ? PROXYPROTO_MORE
                                       : v1_parse(bytes, ret_len, ret_client);
    if (begins(bytes, v2_sign, V2_SIGN_LEN))
        return bytes.len < V2_SIGN_LEN ? PROXYPROTO_MORE
                                       : v2_parse(bytes, ret_len, ret_client);
    return PROXYPROTO_BAD;
}
