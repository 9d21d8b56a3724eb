/* SPDX-License-Identifier: MIT */
#include "agentd/link/upgrade.h"

#include <stdio.h>
#include <string.h>

#include "common/base64.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/ws.h"

static bool is_token_text(struct span t)
{
    size_t i;

    for (i = 0; i < t.len; i++) {
        uint8_t c = t.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.'))
            return false;
    }
    return t.len > 0;
}

static int make_key(char ret[UPGRADE_KEY_LEN + 1])
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    uint8_t nonce[16];

    crypto_random(nonce, sizeof(nonce));
    if (b64_encode(&text, span_of(nonce, sizeof(nonce))) < 0)
        return -1;
    memcpy(ret, text.p, UPGRADE_KEY_LEN);
    ret[UPGRADE_KEY_LEN] = '\0';
    return 0;
}

int upgrade_print(const struct upgrade_request *r, struct buf *out,
                  char ret_key[UPGRADE_KEY_LEN + 1], struct err *e)
{
    if (!is_token_text(r->token))
        return err_set(e, ERR_CONFIG,
                       "the token is empty or has a byte that no token has");
    if (make_key(ret_key) < 0 || buf_reserve(out, r->token.len + 1024, SIZE_MAX) < 0 ||
        buf_addf(out,
                 "GET /.tunnel/v1/link HTTP/1.1\r\n"
                 "Host: %s\r\n"
                 "Upgrade: websocket\r\n"
                 "Connection: Upgrade\r\n"
                 "Sec-WebSocket-Key: %s\r\n"
                 "Sec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Protocol: tunnel.v1\r\n"
                 "Authorization: Bearer ",
                 r->host, ret_key) < 0 ||
        buf_add(out, r->token.p, r->token.len) < 0 || buf_adds(out, "\r\n\r\n") < 0)
        return err_set(e, ERR_NOMEM, "the upgrade request: no memory");
    return 0;
}

/* Retry-After in seconds; the date form is not worth its parser: our own wait serves. */
static uint32_t retry_after(const struct http1_head *h)
{
    const struct http1_field *f = http1_find(h, HTTP1_RETRY_AFTER);
    uint64_t s = 0;
    size_t i;

    if (!f)
        return 0;
    for (i = 0; i < f->value.len; i++) {
        if (f->value.p[i] < '0' || f->value.p[i] > '9')
            return 0;
        s = s * 10 + (uint64_t)(f->value.p[i] - '0');
        if (s > RETRY_AFTER_MAX_MS / 1000)
            s = RETRY_AFTER_MAX_MS / 1000;
    }
    return (uint32_t)s * 1000;
}

/* The server's own word for its refusal, ": port-closed", or "". A table's word: letters
 * and dashes, or it is not shown. */
static const char *reason_of(const struct http1_head *h, char out[40])
{
    const struct http1_field *f = http1_find(h, HTTP1_TUNNEL_ERROR);
    size_t i;

    out[0] = '\0';
    if (!f || f->value.len == 0 || f->value.len > 32)
        return out;
    for (i = 0; i < f->value.len; i++)
        if (f->value.p[i] != '-' && (f->value.p[i] < 'a' || f->value.p[i] > 'z'))
            return out;
    (void)snprintf(out, 40, ": %.*s", SPAN_FMT(f->value));
    return out;
}

static int judge_refusal(const struct http1_head *h, struct upgrade_answer *ret,
                         struct err *e)
{
    char reason[40];

    (void)reason_of(h, reason);
    if (h->status == 401 || h->status == 403) {
        ret->is_refused = true;
        return err_set(e, ERR_DENIED, "the server refused the token (%u%s)", h->status,
                       reason);
    }
    if (h->status == 429 || h->status == 503)
        ret->retry_after_ms = retry_after(h);
    if (h->status == 429)
        return err_set(e, ERR_LIMIT, "the server wants fewer attempts (429%s)", reason);
    if (h->status >= 500)
        return err_set(e, ERR_NOTFOUND, "the server cannot take the link now (%u%s)",
                       h->status, reason);
    return err_set(e, ERR_PROTO,
                   "the answer to the upgrade is %u%s instead of 101: is this a tunneld, "
                   "and does nothing in between refuse WebSockets?",
                   h->status, reason);
}

int upgrade_judge(const struct http1_head *h, const char key[UPGRADE_KEY_LEN + 1],
                  struct upgrade_answer *ret, struct err *e)
{
    const struct http1_field *accept = http1_find(h, HTTP1_SEC_WEBSOCKET_ACCEPT);
    const struct http1_field *protocol = http1_find(h, HTTP1_SEC_WEBSOCKET_PROTOCOL);
    char want[29];
    size_t i;

    memset(ret, 0, sizeof(*ret));
    if (h->status != 101)
        return judge_refusal(h, ret, e);
    ws_accept_key(span_of(key, UPGRADE_KEY_LEN), want);
    if (!http1_has_token(h, HTTP1_UPGRADE, "websocket") ||
        !http1_has_token(h, HTTP1_CONNECTION, "upgrade"))
        return err_set(e, ERR_PROTO,
                       "the server switched to something that is no "
                       "WebSocket (RFC 6455 4.1)");
    if (!accept || !span_eq(accept->value, span_str(want)))
        return err_set(e, ERR_PROTO,
                       "the answer to the upgrade is not to our request: "
                       "wrong Sec-WebSocket-Accept (RFC 6455 4.1)");
    if (!protocol || !span_eq(protocol->value, span_str("tunnel.v1")))
        return err_set(e, ERR_PROTO, "the server does not speak tunnel.v1");
    for (i = 0; i < h->n_fields; i++)
        if (span_is(h->field[i].name, "sec-websocket-extensions"))
            return err_set(e, ERR_PROTO,
                           "the server chose a WebSocket extension that "
                           "was not offered (RFC 6455 4.1)");
    return 0;
}
