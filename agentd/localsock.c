/* SPDX-License-Identifier: MIT */
#include "agentd/localsock.h"

#include "agentd/line_server.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

struct localsock {
    const struct localsock_ops *ops; /* borrowed, as the owner */
    void *owner;
    struct line_server *lines;
};

void localsock_answer(struct localsock *s, uint64_t ticket, struct span json)
{
    if (line_server_answer(s->lines, ticket, json) < 0)
        log_warn("local.answer", "why=no-memory");
}

void localsock_refuse(struct localsock *s, uint64_t ticket, const char *code,
                      const char *why)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    /* Without memory the client gets its deadline for an answer. */
    if (buf_adds(&b, "{\"ok\":false,\"code\":") == 0 &&
        json_put_str(&b, span_str(code)) == 0 && buf_adds(&b, ",\"error\":") == 0 &&
        json_put_str(&b, span_str(why)) == 0 && buf_adds(&b, "}") == 0)
        localsock_answer(s, ticket, buf_span(&b));
}

static void on_request(void *owner, uint64_t ticket, struct span line)
{
    struct localsock *s = owner;
    struct localsock_request r;
    struct err e;

    if (localsock_parse(line, &r, &e) < 0)
        localsock_refuse(s, ticket, "bad-request", e.msg);
    else
        s->ops->request(s->owner, ticket, &r);
}

/* Whoever is refused before a request is cut off without a word. */
static int on_refused(void *owner, enum line_server_why why, struct buf *out)
{
    UNUSED_ARG(owner);
    UNUSED_ARG(out);
    if (why == LINE_SERVER_OTHER_USER)
        log_warn("local.refused", "why=other-user");
    else if (why == LINE_SERVER_TOO_MANY)
        log_warn("local.refused", "why=limit");
    return 0;
}

static const struct line_server_kind kind = {
    .clients_max = LOCALSOCK_CLIENTS,
    .line_max = LOCALSOCK_LINE_MAX,
    .client_ms = LOCALSOCK_MS,
    .request = on_request,
    .refuse = on_refused,
};

void localsock_free(struct localsock *s)
{
    if (!s)
        return;
    line_server_free(s->lines);
    mem_free(s);
}

struct localsock *localsock_new(struct loop *l, const char *path,
                                const struct localsock_ops *ops, void *owner,
                                struct err *e)
{
    struct localsock *s = mem_zalloc(1, sizeof *s);

    if (!s) {
        (void)err_set(e, ERR_NOMEM, "no memory for the local socket");
        return NULL;
    }
    s->ops = ops;
    s->owner = owner;
    s->lines = line_server_new(l, path, &kind, s, e);
    if (!s->lines) {
        localsock_free(s);
        return NULL;
    }
    return s;
}
