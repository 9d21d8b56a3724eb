/* SPDX-License-Identifier: MIT */
/* One record as one line. Every kind has its own members, always the same ones, in one
 * order: what is not known is null. docs/egress-audit.schema.json says which. */
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <time.h>

#include "agentd/egress/audit.h"
#include "common/json.h"

static const char *const KINDS[] = {"connection", "refused", "name", "event"};
static const char *const STAGES[] = {"floor",   "deny",  "allow",
                                     "default", "limit", "guard"};

/* ,"key": and then a string, or null */
static int put_str(struct buf *out, const char *key, const char *value)
{
    if (buf_addf(out, ",\"%s\":", key) < 0)
        return -1;
    return value == NULL ? buf_adds(out, "null") : json_put_str(out, span_str(value));
}

static int put_time(struct buf *out, const char *key, uint64_t ms)
{
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];

    if (gmtime_r(&s, &tm) == NULL ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        return -1;
    return buf_addf(out, "\"%s\":\"%s.%03uZ\"", key, text, (unsigned)(ms % 1000));
}

static int put_addr(struct buf *out, const char *key, const struct ip_addr *a)
{
    char text[IP_TEXT_MAX];

    return put_str(out, key, a->family != 0 ? ip_print(a, text) : NULL);
}

static int put_process(struct buf *out, const struct audit_record *r)
{
    int rc = r->pid > 0 ? buf_addf(out, ",\"pid\":%" PRId32, r->pid)
                        : buf_adds(out, ",\"pid\":null");

    if (rc < 0 || put_str(out, "comm", r->comm) < 0)
        return -1;
    return r->uid != UINT32_MAX ? buf_addf(out, ",\"uid\":%" PRIu32, r->uid)
                                : buf_adds(out, ",\"uid\":null");
}

static int put_protocol(struct buf *out, uint8_t protocol)
{
    char number[16];

    switch (protocol) {
    case 0:
        return put_str(out, "protocol", NULL);
    case IPPROTO_TCP:
        return put_str(out, "protocol", "tcp");
    case IPPROTO_UDP:
        return put_str(out, "protocol", "udp");
    case IPPROTO_ICMP:
        return put_str(out, "protocol", "icmp");
    case IPPROTO_ICMPV6:
        return put_str(out, "protocol", "icmpv6");
    case IPPROTO_SCTP:
        return put_str(out, "protocol", "sctp");
    default:
        (void)snprintf(number, sizeof(number), "ip-%u", protocol); /* fits */
        return put_str(out, "protocol", number);
    }
}

static int put_target(struct buf *out, const struct audit_record *r)
{
    int rc;

    if (put_str(out, "name", r->name) < 0 || put_addr(out, "address", &r->addr) < 0)
        return -1;
    rc = r->port != 0 ? buf_addf(out, ",\"port\":%u", r->port)
                      : buf_adds(out, ",\"port\":null");
    if (rc < 0 || put_protocol(out, r->protocol) < 0)
        return -1;
    return put_str(out, "check", r->check);
}

static int put_rule(struct buf *out, const struct policy_rule *rule)
{
    if (put_str(out, "rule", rule != NULL ? rule->text : NULL) < 0 ||
        put_str(out, "rule_list",
                rule == NULL                ? NULL
                : rule->list == POLICY_DENY ? "deny"
                                            : "allow") < 0)
        return -1;
    return rule != NULL ? buf_addf(out, ",\"rule_number\":%" PRIu32, rule->number + 1)
                        : buf_adds(out, ",\"rule_number\":null");
}

static int put_verdict(struct buf *out, const struct audit_record *r)
{
    const struct verdict *v = r->verdict;
    bool is_allowed = v != NULL ? v->allowed : r->kind == AUDIT_CONNECTION;

    if (put_str(out, "verdict", is_allowed ? "allowed" : "refused") < 0 ||
        buf_addf(out, ",\"would_refuse\":%s", r->would_refuse ? "true" : "false") < 0 ||
        put_str(out, "stage", v != NULL ? STAGES[v->stage] : NULL) < 0 ||
        put_str(out, "reason", v != NULL ? v->text : NULL) < 0)
        return -1;
    return put_rule(out, v != NULL ? v->rule : NULL);
}

static int put_connection(struct buf *out, const struct audit_record *r)
{
    if (buf_adds(out, ",") < 0 || put_time(out, "started", r->started_ms) < 0 ||
        put_addr(out, "dialed", &r->dialed) < 0 || put_str(out, "via", r->via) < 0)
        return -1;
    if (buf_addf(out, ",\"bytes_up\":%" PRIu64 ",\"bytes_down\":%" PRIu64, r->bytes_up,
                 r->bytes_down) < 0)
        return -1;
    return put_str(out, "end", r->end);
}

static int put_all(struct buf *out, const struct audit_record *r)
{
    if (buf_adds(out, "{") < 0 || put_time(out, "time", r->ended_ms) < 0 ||
        put_str(out, "kind", KINDS[r->kind]) < 0 ||
        put_str(out, "sandbox", r->sandbox) < 0 || put_str(out, "by", r->by) < 0)
        return -1;
    if (r->kind == AUDIT_EVENT) {
        if (put_str(out, "event", r->event) < 0 || put_str(out, "text", r->text) < 0)
            return -1;
    } else if (put_process(out, r) < 0 || put_target(out, r) < 0 ||
               put_verdict(out, r) < 0) {
        return -1;
    }
    if (r->kind == AUDIT_CONNECTION && put_connection(out, r) < 0)
        return -1;
    if (put_str(out, "policy", r->hash) < 0)
        return -1;
    return buf_addf(out, ",\"repeated\":%" PRIu32 "}\n", r->repeated);
}

int audit_print(const struct audit_record *r, struct buf *out)
{
    size_t start = out->len;

    if (put_all(out, r) == 0)
        return 0;
    out->len = start; /* never half a line */
    return -1;
}
