/* SPDX-License-Identifier: MIT */
#include "common/clienthello.h"

#include <string.h>

#include "common/limits.h"
#include "common/wire.h"

#define RECORD_HEAD      5
#define RECORD_MAX       16384 /* RFC 8446 5.1 */
#define RECORD_HANDSHAKE 22
#define MESSAGE_HEAD     4
#define MESSAGE_HELLO    1
#define EXT_SERVER_NAME  0
#define EXT_ALPN         16
#define NAME_TYPE_HOST   0

/* Faults are BAD, and a reader that ran short is one: every length inside the message is
 * checked against the whole message. */
static bool is_used_up(const struct wire_rd *r)
{
    return !r->bad && wire_rd_left(r) == 0;
}

/* RFC 6066 3: one name of the one type that there is; no address, no port. */
static int server_name(struct wire_rd ext, struct clienthello *ret)
{
    struct wire_rd list = wire_rd_sub(&ext, wire_rd_uint(&ext, 2)), name;
    unsigned type = wire_rd_uint(&list, 1);
    struct host h;

    name = wire_rd_sub(&list, wire_rd_uint(&list, 2));
    if (!is_used_up(&ext) || !is_used_up(&list) || type != NAME_TYPE_HOST)
        return -1;
    /* host_parse() takes a port, which only this could bring in. */
    if (wire_rd_left(&name) == 0 || memchr(name.p, ':', wire_rd_left(&name)))
        return -1;
    if (host_parse(span_of(name.p, wire_rd_left(&name)), &h) < 0)
        return -1;
    /* An address has no business here, but some clients send what stands in their URL: it
     * names nothing of ours, as if it were absent. */
    if (h.is_ip)
        return 0;
    memcpy(ret->server_name, h.name, sizeof(ret->server_name));
    return 0;
}

/* RFC 7301 3.1: one name or more, none of them empty. */
static int alpn(struct wire_rd ext, struct clienthello *ret)
{
    struct wire_rd list = wire_rd_sub(&ext, wire_rd_uint(&ext, 2));

    if (!is_used_up(&ext) || wire_rd_left(&list) == 0)
        return -1;
    while (wire_rd_left(&list) > 0) {
        struct wire_rd name = wire_rd_sub(&list, wire_rd_uint(&list, 1));
        struct span s = span_of(name.p, wire_rd_left(&name));

        if (name.bad || s.len == 0)
            return -1;
        ret->alpn_http1 |= span_eq(s, span_str("http/1.1"));
        ret->alpn_h2 |= span_eq(s, span_str("h2"));
        ret->alpn_acme |= span_eq(s, span_str("acme-tls/1"));
    }
    ret->has_alpn = true;
    return 0;
}

static int extensions(struct wire_rd all, struct clienthello *ret)
{
    bool has_name = false;

    while (wire_rd_left(&all) > 0) {
        unsigned type = wire_rd_uint(&all, 2);
        struct wire_rd ext = wire_rd_sub(&all, wire_rd_uint(&all, 2));

        if (ext.bad)
            return -1;
        /* A second one of a type could be read by us and the first by another (RFC 8446
         * 4.2 forbids it). */
        if (type == EXT_SERVER_NAME) {
            if (has_name || server_name(ext, ret) < 0)
                return -1;
            has_name = true;
        } else if (type == EXT_ALPN) {
            if (ret->has_alpn || alpn(ext, ret) < 0)
                return -1;
        }
    }
    return 0;
}

/* The message without its head (RFC 8446 4.1.2; RFC 5246 7.4.1.2 is the same shape and may
 * end before the extensions). */
static enum clienthello_result hello_parse(struct wire_rd m, struct clienthello *ret)
{
    struct clienthello hello = {.has_alpn = false};
    struct wire_rd session, ciphers, compression, ext;
    unsigned version = wire_rd_uint(&m, 2);

    (void)wire_rd_sub(&m, 32); /* random */
    session = wire_rd_sub(&m, wire_rd_uint(&m, 1));
    ciphers = wire_rd_sub(&m, wire_rd_uint(&m, 2));
    compression = wire_rd_sub(&m, wire_rd_uint(&m, 1));
    if (m.bad || version >> 8 != 3 || wire_rd_left(&session) > 32 ||
        wire_rd_left(&ciphers) < 2 || wire_rd_left(&ciphers) % 2 != 0 ||
        wire_rd_left(&compression) < 1)
        return CLIENTHELLO_BAD;
    if (wire_rd_left(&m) > 0) {
        ext = wire_rd_sub(&m, wire_rd_uint(&m, 2));
        if (!is_used_up(&m) || extensions(ext, &hello) < 0)
            return CLIENTHELLO_BAD;
    }
    *ret = hello;
    return CLIENTHELLO_OK;
}

/* What the handshake bytes so far say about the message they begin. @promised  bytes that
 * the records so far will bring in all. */
static enum clienthello_result message_check(const uint8_t *p, size_t len,
                                             size_t promised, size_t *ret_len)
{
    if (len >= 1 && p[0] != MESSAGE_HELLO)
        return CLIENTHELLO_BAD;
    if (len < MESSAGE_HEAD)
        return CLIENTHELLO_MORE;
    *ret_len = MESSAGE_HEAD + ((size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
    if (*ret_len > CLIENTHELLO_MAX - RECORD_HEAD)
        return CLIENTHELLO_TOO_BIG;
    if (promised > *ret_len) /* no client may say more before it is answered */
        return CLIENTHELLO_BAD;
    return len == *ret_len ? CLIENTHELLO_OK : CLIENTHELLO_MORE;
}

/* The head of the record at p; *ret_len its content's length. */
static enum clienthello_result record_check(const uint8_t *p, size_t len, bool is_first,
                                            size_t *ret_len)
{
    enum clienthello_result no = is_first ? CLIENTHELLO_NOT_TLS : CLIENTHELLO_BAD;

    if (len >= 1 && p[0] != RECORD_HANDSHAKE)
        return no;
    if (len >= 2 && p[1] != 3)
        return no;
    if (len < RECORD_HEAD)
        return CLIENTHELLO_MORE;
    *ret_len = (size_t)p[3] << 8 | p[4];
    /* Empty handshake records are forbidden, and would be a way to never end. */
    return *ret_len >= 1 && *ret_len <= RECORD_MAX ? CLIENTHELLO_OK : CLIENTHELLO_BAD;
}

enum clienthello_result clienthello_parse(struct span bytes, struct clienthello *ret)
{
    uint8_t gathered[CLIENTHELLO_MAX];
    size_t n = 0, message_len = 0;
    bool is_cut = bytes.len >= CLIENTHELLO_MAX;
    enum clienthello_result r = CLIENTHELLO_MORE;

    if (is_cut)
        bytes.len = CLIENTHELLO_MAX;
    while (bytes.len > 0) {
        size_t len = 0, promised;

        r = record_check(bytes.p, bytes.len, n == 0, &len);
        if (r != CLIENTHELLO_OK)
            break;
        bytes = span_skip(bytes, RECORD_HEAD);
        promised = n + len;
        if (len > bytes.len)
            len = bytes.len;
        memcpy(gathered + n, bytes.p, len);
        n += len;
        bytes = span_skip(bytes, len);
        r = message_check(gathered, n, promised, &message_len);
        if (r == CLIENTHELLO_OK)
            return hello_parse(
                wire_rd_init(gathered + MESSAGE_HEAD, message_len - MESSAGE_HEAD), ret);
        if (r != CLIENTHELLO_MORE)
            break;
    }
    return r == CLIENTHELLO_MORE && is_cut ? CLIENTHELLO_TOO_BIG : r;
}
