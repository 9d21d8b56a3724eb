/* SPDX-License-Identifier: MIT */
/*
 * Theory. A question's way: parsed -> the rate -> is the name allowed -> is the type one
 * that is answered -> names_ask() -> is it still allowed -> pins_add() -> reply. Only a
 * question that comes as far as names_ask() costs memory (struct work), and there are
 * DNS_WAITING_MAX of those. The reply leaves after the kernel has the pins, so the
 * client's first packet finds them.
 *
 * Nothing is asked upstream for a name that is not allowed: the question itself could
 * carry what must not leave. Such a name does not exist (NXDOMAIN), at once, so that
 * resolvers go on with their search list; the extended error says which rule. An allowed
 * name whose addresses are all refused gets an empty answer, not NXDOMAIN: that would
 * speak for the other address family too, whose addresses may be fine.
 */
#include "agentd/egress/guard/dns_server.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "agentd/egress/guard/dns_int.h"
#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins.h"
#include "common/mem.h"

struct work {
    struct work *next, **prev;
    struct dns_server *server; /* borrowed: owner */
    struct dns_client client;
    struct names_ask *ask;
    struct dns_question question;
};

struct dns_server {
    struct ward *ward; /* borrowed */
    struct dns_udp *udp;
    struct dns_tcp *tcp;
    struct work *works;
    unsigned n_works;
    uint64_t refilled_ms, millis; /* the rate: thousandths of questions in the bucket */
};

/* -- replies ------------------------------------------------------------------------- */

static void reply(struct dns_server *d, const struct dns_client *to,
                  const struct dns_question *q, const struct dns_reply *r)
{
    uint8_t out[DNSMSG_REPLY_MAX];
    size_t max = to->conn ? DNSMSG_REPLY_MAX : q->udp_size;
    struct span bytes = span_of(out, dnsmsg_reply(q, r, max, out));

    if (to->conn)
        dns_conn_send(to->conn, bytes);
    else
        dns_udp_send(d->udp, to, bytes);
}

static void reply_code(struct dns_server *d, const struct dns_client *to,
                       const struct dns_question *q, enum dns_rcode rcode,
                       enum dns_ede extended, const char *text)
{
    struct dns_reply r = {.rcode = rcode, .extended = extended, .text = text};

    reply(d, to, q, &r);
}

static enum dns_ede ede_of(const struct verdict *v)
{
    switch (v->stage) {
    case VERDICT_FLOOR:
        return DNS_EDE_FILTERED;
    case VERDICT_DENY:
    case VERDICT_LIMIT:
        return DNS_EDE_BLOCKED;
    default:
        return DNS_EDE_PROHIBITED;
    }
}

static void record(struct dns_server *d, const struct dns_question *q,
                   const struct verdict *v, bool would_refuse)
{
    struct audit_record r = {.kind = AUDIT_NAME,
                             .by = "dns",
                             .uid = UINT32_MAX,
                             .name = q->text,
                             .check = "dns",
                             .would_refuse = would_refuse,
                             .verdict = v};

    ward_record_refusal(d->ward, &r);
}

static void refuse_name(struct dns_server *d, const struct dns_client *to,
                        const struct dns_question *q, const struct verdict *v)
{
    record(d, q, v, false);
    reply_code(d, to, q, DNS_NXDOMAIN, ede_of(v), v->text);
}

/* -- work ---------------------------------------------------------------------------- */

static void work_free(struct work *k)
{
    names_cancel(&k->ask);
    *k->prev = k->next;
    if (k->next)
        k->next->prev = k->prev;
    k->server->n_works--;
    mem_free(k);
}

static void work_end(struct work *k, enum dns_rcode rcode, enum dns_ede extended,
                     const char *text)
{
    reply_code(k->server, &k->client, &k->question, rcode, extended, text);
    work_free(k);
}

static bool decide_name(const struct dns_server *d, const struct dns_question *q,
                        struct verdict *v, bool *would_refuse)
{
    struct target t = {.name = q->text, .protocol = IPPROTO_TCP};

    ward_decide(d->ward, &t, v, would_refuse);
    return v->allowed;
}

/* Only what the kernel has is answered. */
static void pin(struct work *k, const struct names_answer *a)
{
    struct err e = {0};
    struct pins_answer pins = {k->question.text, a->addr, a->n, a->ttl_s};
    struct dns_reply r = {.rcode = DNS_NOERROR,
                          .addr = a->addr,
                          .n = a->n,
                          .ttl_s = a->ttl_s,
                          .extended = DNS_EDE_NONE};

    if (pins_add(k->server->ward->pins, &pins, &e) < 0) {
        work_end(k, DNS_SERVFAIL, DNS_EDE_OTHER, e.msg);
        return;
    }
    reply(k->server, &k->client, &k->question, &r);
    work_free(k);
}

static void on_names(void *arg, const struct names_answer *a)
{
    struct work *k = arg;
    struct verdict v;
    bool would_refuse;

    k->ask = NULL;
    if (!decide_name(k->server, &k->question, &v, &would_refuse)) {
        /* the policy was replaced meanwhile */
        refuse_name(k->server, &k->client, &k->question, &v);
        work_free(k);
        return;
    }
    switch (a->result) {
    case NAMES_OK:
        pin(k, a);
        return;
    case NAMES_EMPTY:
        work_end(k, DNS_NOERROR, DNS_EDE_NONE, NULL);
        return;
    case NAMES_NOT_FOUND:
        work_end(k, DNS_NXDOMAIN, DNS_EDE_NONE, NULL);
        return;
    case NAMES_FLOOR:
        record(k->server, &k->question, a->why, false);
        work_end(k, DNS_NOERROR, DNS_EDE_FILTERED, a->why->text);
        return;
    case NAMES_LIMIT:
        record(k->server, &k->question, a->why, false);
        work_end(k, DNS_NXDOMAIN, DNS_EDE_BLOCKED, a->why->text);
        return;
    case NAMES_FAILED:
        break;
    }
    work_end(k, DNS_SERVFAIL, DNS_EDE_UNREACHABLE, "no usable answer from upstream");
}

static void start_work(struct dns_server *d, const struct dns_client *from,
                       const struct dns_question *q)
{
    struct work *k = d->n_works < DNS_WAITING_MAX ? mem_zalloc(1, sizeof(*k)) : NULL;
    struct err e = {0};

    if (!k) {
        reply_code(d, from, q, DNS_SERVFAIL, DNS_EDE_OTHER, "too many questions in work");
        return;
    }
    k->server = d;
    k->client = *from;
    k->question = *q;
    k->prev = &d->works;
    k->next = d->works;
    if (k->next)
        k->next->prev = &k->next;
    d->works = k;
    d->n_works++;
    k->ask = names_ask(d->ward->names, q->text, q->type == DNS_A ? AF_INET : AF_INET6,
                       on_names, k, &e);
    if (!k->ask)
        work_end(k, DNS_SERVFAIL, DNS_EDE_OTHER, e.msg);
}

/* -- questions ----------------------------------------------------------------------- */

/* The bucket holds one second's questions. */
static bool rate_ok(struct dns_server *d)
{
    uint64_t per_s = policy_limits(d->ward->policy)->questions_per_s;
    uint64_t now = loop_now(d->ward->guard->loop);
    uint64_t past = now - d->refilled_ms;

    if (per_s == 0)
        return true;
    d->refilled_ms = now;
    d->millis = past >= 1000 ? per_s * 1000 : d->millis + past * per_s;
    if (d->millis > per_s * 1000)
        d->millis = per_s * 1000;
    if (d->millis < 1000)
        return false;
    d->millis -= 1000;
    return true;
}

static void look_at_name(struct dns_server *d, const struct dns_client *from,
                         const struct dns_question *q)
{
    struct verdict v = {.stage = VERDICT_GUARD};
    bool would_refuse = false;

    if (!q->is_host) {
        (void)snprintf(v.text, sizeof(v.text),
                       "\"%.150s\" is no host name that a rule could allow", q->text);
        refuse_name(d, from, q, &v);
        return;
    }
    if (!decide_name(d, q, &v, &would_refuse)) {
        refuse_name(d, from, q, &v);
        return;
    }
    if (would_refuse)
        record(d, q, &v, true);
    if (q->type != DNS_A && q->type != DNS_AAAA)
        reply_code(d, from, q, DNS_NOERROR, DNS_EDE_FILTERED,
                   "only A and AAAA are answered here");
    else
        start_work(d, from, q);
}

void dns_server_question(struct dns_server *d, struct span msg,
                         const struct dns_client *from)
{
    static const enum dns_rcode rcode[DNSMSG_RESULT_COUNT] = {
        [DNSMSG_FORMERR] = DNS_FORMERR,
        [DNSMSG_NOTIMP] = DNS_NOTIMP,
        [DNSMSG_REFUSED] = DNS_REFUSED,
        [DNSMSG_BADVERS] = DNS_BADVERS,
    };
    struct dns_question q;
    enum dnsmsg_result rc = dnsmsg_parse_question(msg, &q);
    char text[80];

    d->ward->counts.questions++;
    if (rc == DNSMSG_SILENT) {
        if (from->conn)
            dns_conn_send(from->conn, span_of(NULL, 0));
        return;
    }
    if (!rate_ok(d)) {
        (void)snprintf(text, sizeof(text), "limit: over %u questions a second",
                       policy_limits(d->ward->policy)->questions_per_s);
        reply_code(d, from, &q, DNS_REFUSED, DNS_EDE_PROHIBITED, text);
    } else if (rc != DNSMSG_OK) {
        reply_code(d, from, &q, rcode[rc], DNS_EDE_NONE, NULL);
    } else {
        look_at_name(d, from, &q);
    }
}

void dns_server_forget(struct dns_server *d, const struct dns_conn *c)
{
    struct work *k = d->works, *next;

    for (; k; k = next) {
        next = k->next;
        if (k->client.conn == c)
            work_free(k);
    }
}

/* -- the whole ----------------------------------------------------------------------- */

struct dns_server *dns_server_new(struct ward *w, int take_udp[2], struct err *e)
{
    struct dns_server *d = mem_zalloc(1, sizeof(*d));

    if (!d) {
        (void)err_set(e, ERR_NOMEM, "the name server of \"%s\": no memory", w->name);
        sock_close(&take_udp[0]);
        sock_close(&take_udp[1]);
        return NULL;
    }
    d->ward = w;
    d->udp = dns_udp_new(w, d, take_udp, e);
    d->tcp = d->udp ? dns_tcp_new(w, d, e) : NULL;
    if (!d->tcp) {
        dns_server_free(d);
        return NULL;
    }
    return d;
}

void dns_server_free(struct dns_server *d)
{
    if (!d)
        return;
    dns_tcp_free(d->tcp);
    while (d->works)
        work_free(d->works);
    dns_udp_free(d->udp);
    mem_free(d);
}

void dns_server_take_tcp(struct dns_server *d, int *take_fd)
{
    dns_tcp_take(d->tcp, take_fd);
}
