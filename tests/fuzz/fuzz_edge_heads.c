/* SPDX-License-Identifier: MIT */
/* Heads rewritten both ways: what goes out is a head that our own strict parser takes,
 * with the same framing, and without anything that only we may say or only we may see.
 * The first byte chooses direction and mode. */
#include <stdlib.h>

#include "tests/support/edge_site.h"
#include "tunneld/edge/access.h"
#include "tunneld/edge/request.h"
#include "tunneld/edge/response.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static struct http1_head in, out_head;

#define NEED(what)                                                                       \
    do {                                                                                 \
        if (!(what))                                                                     \
            abort();                                                                     \
    } while (0)

static void check_cookies(const struct http1_head *h)
{
    struct buf left = BUF_INIT;
    size_t n;

    for (unsigned i = 0; i < h->n_fields; i++) {
        const struct http1_field *f = &h->field[i];

        NEED(f->id != HTTP1_TUNNEL_ERROR);
        NEED(f->id != HTTP1_X_TUNNEL_TOKEN || !h->is_request);
        if (f->id == HTTP1_SET_COOKIE && !h->is_request)
            NEED(!access_is_our_cookie(f->value));
        if (f->id != HTTP1_COOKIE || !h->is_request)
            continue;
        left.len = 0;
        NEED(access_put_cookies(f->value, &left, &n) == 0);
        NEED(span_eq(buf_span(&left), f->value));
    }
    buf_done(&left);
}

static void request(const struct site *site, uint8_t how, struct buf *out)
{
    struct sock_addr from;
    struct request_args a = {.site = site,
                             .mode = how & 2 ? CONTROL_PRESERVE : CONTROL_LOCALHOST,
                             .from = &from,
                             .is_trusted = how & 4};

    (void)sock_parse("10.0.0.1:1", &from, NULL);
    NEED(request_write(&in, &a, out) == 0);
    /* Fields of ours come on top: a head at its bound may go over it. */
    if (out->len > HTTP1_HEAD_MAX || in.n_fields > HTTP1_FIELDS_MAX - 10)
        return;
    NEED(http1_parse_request(buf_span(out), &out_head) == HTTP1_OK);
    NEED(!access_target_has_token(out_head.target));
    NEED(out_head.is_chunked == in.is_chunked && out_head.has_length == in.has_length &&
         out_head.length == in.length && out_head.keep_alive);
    NEED(out_head.wants_upgrade == in.wants_upgrade);
    check_cookies(&out_head);
}

static void response(const struct site *site, uint8_t how, struct buf *out)
{
    enum http1_framing framing = http1_response_framing(&in, false);
    struct response_args a = {.site = site,
                              .mode = how & 2 ? CONTROL_PRESERVE : CONTROL_LOCALHOST,
                              .framing = framing,
                              .client_minor = 1,
                              .keep_alive = true};

    if (framing == HTTP1_UNTIL_CLOSE)
        a.framing = HTTP1_CHUNKED;
    NEED(response_write(&in, &a, out) == 0);
    if (out->len > HTTP1_HEAD_MAX)
        return;
    if (http1_parse_response(buf_span(out), &out_head) != HTTP1_OK)
        NEED(in.n_fields > HTTP1_FIELDS_MAX - 4);
    else
        NEED(http1_response_framing(&out_head, false) == a.framing);
    check_cookies(&out_head);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct buf out = BUF_INIT;
    struct config conf;
    struct site site;
    struct span head;

    if (len < 2)
        return 0;
    edge_site_init(&site, &conf, "3000-demo.preview.test");
    head = span_of(bytes + 1, len - 1);
    if ((bytes[0] & 1) == 0 && http1_parse_request(head, &in) == HTTP1_OK)
        request(&site, bytes[0], &out);
    else if ((bytes[0] & 1) != 0 && http1_parse_response(head, &in) == HTTP1_OK)
        response(&site, bytes[0], &out);
    buf_done(&out);
    return 0;
}
