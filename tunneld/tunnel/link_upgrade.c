/* SPDX-License-Identifier: MIT */
#include "tunneld/tunnel/link_upgrade.h"

#include <libwebsockets.h>
#include <string.h>

#include "common/buf.h"
#include "common/http1.h"
#include "common/log.h"

int link_upgrade_refuse(struct lws *wsi, const struct sock_addr *client,
                        const struct link_refusal *no)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    char pad[LWS_PRE] = {0};

    log_info("link.refused", "client=%s status=%u why=%s",
             sock_print(client, (char[SOCK_TEXT_MAX]){0}), no->status, log_q(no->why));
    if (buf_add(&b, pad, sizeof pad) < 0 ||
        buf_addf(&b,
                 "HTTP/1.1 %u %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                 "Content-Length: %zu\r\nCache-Control: no-store\r\n"
                 "Connection: close\r\nTunnel-Error: %s\r\n",
                 no->status, http1_reason(no->status), strlen(no->why) + 1,
                 no->code) < 0 ||
        (no->status == 426 && buf_adds(&b, "Upgrade: websocket\r\n") < 0) ||
        (no->retry_after_s &&
         buf_addf(&b, "Retry-After: %u\r\n", no->retry_after_s) < 0) ||
        buf_addf(&b, "\r\n%s\n", no->why) < 0)
        return -1;
    /* We hang up in any case, so a failed write changes nothing. */
    (void)lws_write(wsi, b.p + LWS_PRE, b.len - LWS_PRE, LWS_WRITE_HTTP_HEADERS);
    return -1;
}

/* A header's value, or "": libwebsockets joins repeated ones with a comma or semicolon,
 * which no value that we accept has. Returns -1 when it does not fit. */
static int header(struct lws *wsi, enum lws_token_indexes id, char *out, size_t cap)
{
    int n;

    out[0] = '\0';
    if (lws_hdr_total_length(wsi, id) == 0)
        return 0;
    n = lws_hdr_copy(wsi, out, (int)cap, id);
    return n < 0 ? -1 : 0;
}

static const char *tls_name(struct lws *wsi)
{
    const char *name = SSL_get_servername(lws_get_ssl(wsi), TLSEXT_NAMETYPE_host_name);

    return name ? name : "";
}

static int check_form(struct lws *wsi, const char *upgrade, struct link_refusal *no)
{
    char text[256];

    if (header(wsi, WSI_TOKEN_GET_URI, text, sizeof text) < 0 ||
        strcmp(text, LINK_PATH) != 0) {
        *no = (struct link_refusal){404, "no-such-preview", 0,
                                    "there is nothing but the link here"};
        return -1;
    }
    if (!upgrade || strcasecmp(upgrade, "websocket") != 0) {
        *no = (struct link_refusal){426, "bad-request", 0, "the link is a WebSocket"};
        return -1;
    }
    return 0;
}

/* Is our subprotocol in the list? */
static bool offers_protocol(struct lws *wsi)
{
    char text[256], *save = NULL;

    if (header(wsi, WSI_TOKEN_PROTOCOL, text, sizeof text) < 0)
        return false;
    for (char *p = strtok_r(text, ", \t", &save); p; p = strtok_r(NULL, ", \t", &save))
        if (strcmp(p, LINK_PROTOCOL) == 0)
            return true;
    return false;
}

int link_upgrade_read(struct lws *wsi, bool has_tls, const char *upgrade,
                      struct link_upgrade *ret, struct link_refusal *ret_no)
{
    if (check_form(wsi, upgrade, ret_no) < 0)
        return -1;
    if (header(wsi, WSI_TOKEN_HOST, ret->host, sizeof ret->host) < 0 ||
        header(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, ret->auth, sizeof ret->auth) < 0) {
        *ret_no =
            (struct link_refusal){431, "too-large", 0, "a header field is too long"};
        return -1;
    }
    ret->rq = (struct link_request){
        .server_name = has_tls ? tls_name(wsi) : NULL,
        .host = span_str(ret->host),
        .authorization = span_str(ret->auth),
        .has_protocol = offers_protocol(wsi),
    };
    return 0;
}
