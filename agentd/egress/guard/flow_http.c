/* SPDX-License-Identifier: MIT */
/*
 * HTTP: Host decides, for each request by itself. One connection stays with the host of
 * its first request: what is behind it was chosen for that one. Refusals are said in
 * words that a program, an agent above all, can act on.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/egress/guard/flow.h"
#include "common/mem.h"

/* -- words --------------------------------------------------------------------------- */

static int put_answer(const struct flow *f, const char *status, const char *verdict,
                      const struct buf *body, struct buf *out)
{
    if (buf_addf(out,
                 "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                 "Content-Length: %zu\r\nCache-Control: no-store\r\n"
                 "Connection: close\r\nEgress-Verdict: %s\r\n\r\n",
                 status, body->len, verdict) < 0)
        return -1;
    return f->gate->is_head ? 0 : buf_add(out, body->p, body->len);
}

static const char *target_text(const struct flow *f, char out[HOST_MAX + 16])
{
    char ip[IP_TEXT_MAX];
    const char *host = f->gate->host.name[0] ? f->gate->host.name : f->name;
    bool is_ip6;

    if (!host[0])
        host = ip_print(&f->meant, ip);
    is_ip6 = strchr(host, ':') != NULL;
    (void)snprintf(out, HOST_MAX + 16, "%s%s%s:%u", is_ip6 ? "[" : "", host,
                   is_ip6 ? "]" : "", f->port);
    return out;
}

int flow_words_refused(const struct flow *f, const struct verdict *v, struct buf *out)
{
    AUTO(buf_done)
    struct buf body = BUF_INIT;
    char target[HOST_MAX + 16];
    const char *reason = v->rule && v->rule->reason ? v->rule->reason : NULL;
    const char *policy = policy_name(f->flows->ward->policy);

    if (buf_addf(&body,
                 "Refused by this sandbox's egress policy.\n\n"
                 "  request:  %s %s\n  decided:  %s\n",
                 f->gate->method, target_text(f, target), v->text) < 0 ||
        (policy[0] && buf_addf(&body, "  policy:   %s\n", policy) < 0) ||
        (reason && buf_addf(&body, "  reason:   %s\n", reason) < 0) ||
        buf_addf(
            &body,
            "\nThis is a decision, not an outage: the network works, and the same "
            "request will be refused\nagain. Do not retry, and do not look for another "
            "way there (another address, port, name or proxy):\nthat is refused as "
            "well. Go on without it, or ask the person who runs this sandbox to "
            "allow\n%s. They see which rule decides with\n"
            "  agentd egress explain --policy FILE %s\n",
            target, target) < 0)
        return -1;
    return put_answer(f, "403 Forbidden", "denied", &body, out);
}

int flow_words_other_host(const struct flow *f, struct buf *out)
{
    AUTO(buf_done)
    struct buf body = BUF_INIT;
    char target[HOST_MAX + 16];

    if (buf_addf(
            &body,
            "This connection was opened for %s and carries requests for that host "
            "only.\n\n  request:  %s %s\n\n"
            "Open a connection of its own for another host; the egress policy decides "
            "about it then.\n",
            f->gate->first[0] ? f->gate->first : "an address", f->gate->method,
            target_text(f, target)) < 0)
        return -1;
    return put_answer(f, "421 Misdirected Request", "denied", &body, out);
}

int flow_words_bad(const struct flow *f, const char *rule, struct buf *out)
{
    AUTO(buf_done)
    struct buf body = BUF_INIT;

    if (buf_addf(
            &body,
            "This is no HTTP/1.1 request that the egress guard of this sandbox lets "
            "through: %s.\n\nHTTP on port %u is read, and each request must name its "
            "Host. There is no proxy here: send\nrequests straight to the host they "
            "are for (not \"GET http://...\", not CONNECT).\n",
            rule, f->port) < 0)
        return -1;
    return put_answer(f, "400 Bad Request", "denied", &body, out);
}

int flow_words_unreachable(const struct flow *f, const char *why, struct buf *out)
{
    AUTO(buf_done)
    struct buf body = BUF_INIT;
    char target[HOST_MAX + 16];

    if (buf_addf(
            &body,
            "The egress policy of this sandbox allows %s, but it cannot be reached:\n"
            "%s.\n\n"
            "This is not a refusal. Trying again later may help.\n",
            target_text(f, target), why) < 0)
        return -1;
    return put_answer(f, "502 Bad Gateway", "allowed", &body, out);
}

/* -- saying them --------------------------------------------------------------------- */

bool flow_http_may_say(const struct flow *f)
{
    return f->gate && http_gate_may_speak(f->gate);
}

bool flow_http_say(struct flow *f, struct buf *take_words)
{
    if (f->state == FLOW_RELAY && !http_gate_can_follow(f->gate))
        return false;
    buf_done(&f->words);
    f->words = *take_words;
    *take_words = (struct buf)BUF_INIT;
    /* In the relay there may be answers before ours: settle() waits for their end. */
    if (f->state != FLOW_RELAY)
        flow_reply(f);
    return true;
}

static void refuse_bytes(struct flow *f)
{
    AUTO(buf_done)
    struct buf words = BUF_INIT;
    struct verdict v;

    flow_verdict(&v, VERDICT_GUARD, "no HTTP request that may pass: %.120s",
                 f->gate->rule);
    flow_record_refusal(f, &v, f->name);
    if (f->by == FLOW_BY_NOTHING)
        f->is_recorded = true;
    if (flow_words_bad(f, f->gate->rule, &words) < 0 || !flow_http_say(f, &words))
        flow_end(f, FLOW_GUARD);
}

/* -- the first request --------------------------------------------------------------- */

static void refuse_host(struct flow *f, const char *why)
{
    struct verdict v;

    if (policy_mode(f->flows->ward->policy) != POLICY_ENFORCE) {
        flow_by_addr(f, why);
        return;
    }
    flow_verdict(&v, VERDICT_GUARD, "%s", why);
    flow_refuse(f, &v);
}

static void by_address_host(struct flow *f)
{
    struct ip_addr a;

    if (ip_parse(span_str(f->gate->host.name), &a) < 0 || !ip_eq(&a, &f->meant))
        refuse_host(f, "Host names another address than the connection's");
    else
        flow_by_addr(f, "an HTTP request for an address");
}

static void decide_first(struct flow *f)
{
    const struct host *h = &f->gate->host;
    char name[HOST_MAX + 1];

    if (!h->name[0])
        flow_by_addr(f, "an HTTP request without Host");
    else if (h->port && h->port != f->port)
        refuse_host(f, "Host names another port than the connection's");
    else if (h->is_ip)
        by_address_host(f);
    else if (host_name_parse(span_str(h->name), name) < 0)
        refuse_host(f, "Host is no host name");
    else
        flow_by_name(f, name);
}

static int have_gate(struct flow *f)
{
    if (f->gate)
        return 0;
    f->gate = mem_alloc(sizeof(*f->gate));
    if (!f->gate)
        return -1;
    http_gate_init(f->gate);
    return 0;
}

/* No HTTP as we know it. Where the address alone is allowed, that is what counts. */
static void not_http(struct flow *f)
{
    const char *rule = f->gate->rule;

    if (!flow_may_by_addr(f)) {
        refuse_bytes(f);
        return;
    }
    http_gate_done(f->gate);
    mem_free(f->gate);
    f->gate = NULL;
    flow_by_addr(f, rule);
}

void flow_http_look(struct flow *f)
{
    size_t used = 0;
    struct buf none = BUF_INIT;

    if (have_gate(f) < 0) {
        flow_end(f, FLOW_NO_MEMORY);
        return;
    }
    switch (http_gate_request(f->gate, buf_span(&f->in), &used, &none)) {
    case HTTP_GATE_REQUEST:
        buf_drop(&f->in, used);
        loop_timer_stop(&f->deadline);
        decide_first(f);
        return;
    case HTTP_GATE_ERROR:
        not_http(f);
        return;
    default:
        return;
    }
}

/* -- the others ---------------------------------------------------------------------- */

static void refuse_other(struct flow *f)
{
    AUTO(buf_done)
    struct buf words = BUF_INIT;
    struct verdict v;

    flow_verdict(&v, VERDICT_GUARD,
                 "another Host than the first request's on one connection");
    flow_record_refusal(f, &v, f->gate->host.name);
    if (flow_words_other_host(f, &words) < 0 || !flow_http_say(f, &words))
        flow_end(f, FLOW_GUARD);
}

static void refuse_now(struct flow *f, const struct verdict *v)
{
    AUTO(buf_done)
    struct buf words = BUF_INIT;

    flow_record_refusal(f, v, f->name);
    if (flow_words_refused(f, v, &words) < 0 || !flow_http_say(f, &words))
        flow_end(f, FLOW_POLICY);
}

/* A head was understood. True: it may pass. */
static bool judge(struct flow *f)
{
    const struct http_gate *g = f->gate;
    struct verdict v;
    bool would_refuse;

    if (policy_mode(f->flows->ward->policy) == POLICY_ENFORCE &&
        (g->is_other_host || (g->host.port && g->host.port != f->port))) {
        refuse_other(f);
        return false;
    }
    if (!flow_may_still(f, &v, &would_refuse)) {
        refuse_now(f, &v);
        return false;
    }
    return true;
}

bool flow_http_wants(const struct flow *f)
{
    return f->words.len == 0 && !http_gate_is_waiting(f->gate) &&
           f->in.len < HTTP1_HEAD_MAX;
}

static bool step(struct flow *f, struct buf *out)
{
    size_t used = 0;

    switch (http_gate_request(f->gate, buf_span(&f->in), &used, out)) {
    case HTTP_GATE_REQUEST:
        buf_drop(&f->in, used);
        if (!judge(f))
            return false;
        if (http_gate_pass(f->gate, out) < 0)
            flow_end(f, FLOW_NO_MEMORY);
        return f->state == FLOW_RELAY;
    case HTTP_GATE_ERROR:
        refuse_bytes(f);
        return false;
    default:
        buf_drop(&f->in, used);
        if (f->in.len == 0)
            buf_done(&f->in);
        return false;
    }
}

bool flow_http_up(struct flow *f, struct buf *out)
{
    bool goes_on = f->words.len == 0;

    /* The first was judged before there was a connection. */
    if (goes_on && http_gate_is_judging(f->gate)) {
        if (http_gate_pass(f->gate, out) < 0)
            flow_end(f, FLOW_NO_MEMORY);
        goes_on = f->state == FLOW_RELAY;
    }
    while (goes_on)
        goes_on = step(f, out);
    return f->state == FLOW_RELAY;
}

bool flow_http_down(struct flow *f, struct span bytes)
{
    if (http_gate_response(f->gate, bytes))
        return true;
    flow_end(f, FLOW_GUARD);
    return false;
}
