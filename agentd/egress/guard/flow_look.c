/* SPDX-License-Identifier: MIT */
/*
 * What a connection is for, by what the program says first. The address that it chose is
 * what it wants to be true; only where a rule is about addresses does it decide.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/egress/guard/flow.h"
#include "agentd/egress/guard/pins.h"
#include "common/clienthello.h"

/* -- by the address ------------------------------------------------------------------ */

struct choice {
    struct verdict verdict;
    bool would_refuse;
    enum flow_by by;
    char name[HOST_MAX + 1];
};

static void keep_name(char to[HOST_MAX + 1], const char *name)
{
    (void)snprintf(to, HOST_MAX + 1, "%s", name);
}

/* May a pin of this name stand for the name? Where a check is due, only by a rule that
 * asks for none. */
static bool is_pin_enough(const struct flow *f, const struct verdict *v)
{
    if (!v->allowed || v->stage != VERDICT_ALLOW)
        return false;
    return f->check == POLICY_CHECK_NONE ||
           (v->rule && (v->rule->is_unchecked || v->rule->is_net));
}

/* An address may be pinned for many names (shared by a CDN): one that is allowed is
 * enough, and one that is denied counts before a default. */
static void choose_by_addr(const struct flow *f, struct choice *ret)
{
    struct pins *pins = f->flows->ward->pins;
    struct choice denied = {.by = FLOW_BY_NOTHING};
    const char *name;
    size_t pos = 0;

    ret->name[0] = '\0';
    while (pins_next(pins, &f->meant, &pos, &name)) {
        (void)flow_may(f, name, &f->meant, &ret->verdict, &ret->would_refuse);
        keep_name(ret->name, name);
        ret->by = FLOW_BY_PIN;
        if (is_pin_enough(f, &ret->verdict))
            return;
        if (denied.by == FLOW_BY_NOTHING ||
            (ret->verdict.stage == VERDICT_DENY && denied.verdict.stage != VERDICT_DENY))
            denied = *ret;
    }
    (void)flow_may(f, NULL, &f->meant, &ret->verdict, &ret->would_refuse);
    keep_name(ret->name, denied.by ? denied.name : "");
    ret->by = FLOW_BY_ADDR;
    if (ret->verdict.stage == VERDICT_DEFAULT && denied.by &&
        (denied.verdict.stage == VERDICT_DENY ||
         (!ret->verdict.allowed && f->check == POLICY_CHECK_NONE)))
        *ret = denied;
}

static void adopt(struct flow *f, const struct choice *c)
{
    keep_name(f->name, c->name);
    f->by = c->by;
    if (!flow_adopt(f, &c->verdict, c->would_refuse))
        return;
    if (c->by == FLOW_BY_PIN) {
        pins_hold(f->flows->ward->pins, &f->meant, f->name);
        f->is_holding = true;
    }
    flow_dial(f);
}

void flow_by_addr(struct flow *f, const char *why)
{
    char text[IP_TEXT_MAX];
    struct choice c;

    choose_by_addr(f, &c);
    if (c.verdict.allowed) {
        adopt(f, &c);
        return;
    }
    if (why && c.verdict.stage == VERDICT_DEFAULT)
        flow_verdict(&c.verdict, VERDICT_GUARD,
                     "%.100s, and no rule allows the address %s", why,
                     ip_print(&f->meant, text));
    if (!f->name[0])
        keep_name(f->name, c.name);
    flow_refuse(f, &c.verdict);
}

/* -- by a name ----------------------------------------------------------------------- */

void flow_by_name(struct flow *f, const char *name)
{
    struct choice c = {.by = FLOW_BY_NAME}, at;
    struct verdict here;
    bool would_refuse;

    keep_name(f->name, name);
    keep_name(c.name, name);
    (void)flow_may(f, name, NULL, &c.verdict, &c.would_refuse);
    if (c.verdict.allowed && c.verdict.stage == VERDICT_ALLOW) {
        adopt(f, &c);
        return;
    }
    /* A rule for the network is about where, whatever the name. */
    if (flow_may(f, name, &f->meant, &here, &would_refuse) &&
        here.stage == VERDICT_ALLOW) {
        c.verdict = here;
        c.would_refuse = would_refuse;
        c.by = FLOW_BY_ADDR;
        adopt(f, &c);
        return;
    }
    if (c.verdict.allowed) {
        f->may_fall_back = here.allowed;
        adopt(f, &c);
        return;
    }
    choose_by_addr(f, &at);
    if (c.verdict.stage == VERDICT_DEFAULT && at.verdict.allowed &&
        at.verdict.stage == VERDICT_ALLOW)
        adopt(f, &at);
    else
        flow_refuse(f, &c.verdict);
}

/* -- looking ------------------------------------------------------------------------- */

static void look_tls(struct flow *f)
{
    struct clienthello hello;
    char name[HOST_MAX + 1];

    switch (clienthello_parse(buf_span(&f->in), &hello)) {
    case CLIENTHELLO_MORE:
        return;
    case CLIENTHELLO_OK:
        loop_timer_stop(&f->deadline);
        if (!hello.server_name[0])
            flow_by_addr(f, "TLS without a server name");
        else if (host_name_parse(span_str(hello.server_name), name) < 0)
            flow_by_addr(f, "a server name that is no host name");
        else
            flow_by_name(f, name);
        return;
    case CLIENTHELLO_NOT_TLS:
        flow_by_addr(f, "bytes that are no TLS");
        return;
    case CLIENTHELLO_BAD:
        flow_by_addr(f, "a broken ClientHello");
        return;
    case CLIENTHELLO_TOO_BIG:
        flow_by_addr(f, "a ClientHello over 16 KiB");
        return;
    }
}

bool flow_may_by_addr(const struct flow *f)
{
    struct choice c;

    choose_by_addr(f, &c);
    return c.verdict.allowed;
}

void flow_look_deadline(struct flow *f)
{
    uint64_t now_ms = loop_now(flows_loop(f->flows));
    struct verdict v;

    if (f->in.len == 0 && flow_may_by_addr(f)) {
        flow_by_addr(
            f, "nothing was said"); /* a protocol in which the server speaks first */
        return;
    }
    if (f->in.len > 0 && now_ms < f->look_until_ms) {
        loop_timer_start(&f->deadline, f->look_until_ms - now_ms);
        return;
    }
    flow_verdict(&v, VERDICT_GUARD, "no whole %s within %d s",
                 f->check == POLICY_CHECK_HTTP ? "HTTP request" : "ClientHello",
                 FLOW_LOOK_MS / 1000);
    flow_refuse(f, &v);
}

void flow_look(struct flow *f)
{
    size_t max = f->check == POLICY_CHECK_TLS ? CLIENTHELLO_MAX : HTTP1_HEAD_MAX, n = 0;
    uint8_t bytes[CLIENTHELLO_MAX];
    struct verdict v;
    size_t room = max - f->in.len < sizeof(bytes) ? max - f->in.len : sizeof(bytes);

    switch (conn_read(f->inner, bytes, room, &n)) {
    case CONN_AGAIN:
        return;
    case CONN_EOF:
        flow_end(f, FLOW_CLOSED);
        return;
    case CONN_ERROR:
        flow_end(f, FLOW_RESET);
        return;
    case CONN_OK:
        break;
    }
    flow_count(f, FLOW_UP, n);
    if (buf_add(&f->in, bytes, n) < 0) {
        flow_end(f, FLOW_NO_MEMORY);
        return;
    }
    flow_count_in(f);
    if (flows_hold_much(f->flows)) {
        flow_verdict(&v, VERDICT_LIMIT, "limit of the guard: %d bytes in hand",
                     FLOW_HELD_MAX);
        flow_refuse(f, &v);
    } else if (f->check == POLICY_CHECK_TLS) {
        look_tls(f);
    } else {
        flow_http_look(f);
    }
}

void flow_begin(struct flow *f)
{
    if (f->check == POLICY_CHECK_NONE) {
        flow_by_addr(f, NULL);
        return;
    }
    f->look_until_ms = loop_now(flows_loop(f->flows)) + FLOW_LOOK_MS;
    loop_timer_start(&f->deadline,
                     flow_may_by_addr(f) ? FLOW_LOOK_PLAIN_MS : FLOW_LOOK_MS);
    conn_want(f->inner, LOOP_READ);
    flow_look(f); /* it is often there already */
}
