/* SPDX-License-Identifier: MIT */
/* The canonical JSON of a policy: keys sorted, rules flattened, one line a rule. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agentd/egress/policy/policy_int.h"

/* -- times --------------------------------------------------------------------------- */

static int digits(const char **p, int n)
{
    int v = 0;

    for (; n > 0; n--, (*p)++) {
        if (**p < '0' || **p > '9')
            return -1;
        v = v * 10 + (**p - '0');
    }
    return v;
}

static bool take(const char **p, const char *any)
{
    if (**p == '\0' || !strchr(any, **p))
        return false;
    (*p)++;
    return true;
}

/* "Z" or "+02:00", as seconds east; -1 with *p unchanged where there is none. */
static bool take_zone(const char **p, int *ret_s)
{
    int sign = **p == '-' ? -1 : 1, h, m;

    *ret_s = 0;
    if (take(p, "Zz"))
        return true;
    if (!take(p, "+-") || (h = digits(p, 2)) < 0 || h > 23 || !take(p, ":") ||
        (m = digits(p, 2)) < 0 || m > 59)
        return false;
    *ret_s = sign * (h * 3600 + m * 60);
    return true;
}

int64_t policy_time_parse(const char *p)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct tm t = {.tm_year = 0};
    int64_t at;
    int zone;

    if ((t.tm_year = digits(&p, 4)) < 1970 || !take(&p, "-") ||
        (t.tm_mon = digits(&p, 2)) < 1 || t.tm_mon > 12 || !take(&p, "-") ||
        (t.tm_mday = digits(&p, 2)) < 1 || !take(&p, "Tt") ||
        (t.tm_hour = digits(&p, 2)) < 0 || t.tm_hour > 23 || !take(&p, ":") ||
        (t.tm_min = digits(&p, 2)) < 0 || t.tm_min > 59 || !take(&p, ":") ||
        (t.tm_sec = digits(&p, 2)) < 0 || t.tm_sec > 60)
        return -1;
    if (take(&p, ".")) {
        if (digits(&p, 1) < 0)
            return -1;
        p += strspn(p, "0123456789");
    }
    if (!take_zone(&p, &zone) || *p)
        return -1;
    if (t.tm_mday > days[t.tm_mon - 1] + (t.tm_mon == 2 && t.tm_year % 4 == 0 &&
                                          (t.tm_year % 100 != 0 || t.tm_year % 400 == 0)))
        return -1;
    t.tm_year -= 1900;
    t.tm_mon--;
    at = timegm(&t) - zone;
    return at > 0 ? at : -1;
}

const char *policy_time_print(int64_t s, char out[POLICY_TIME_MAX])
{
    time_t at = (time_t)s;
    struct tm t;

    if (!gmtime_r(&at, &t) ||
        strftime(out, POLICY_TIME_MAX, "%Y-%m-%dT%H:%M:%SZ", &t) == 0)
        (void)snprintf(out, POLICY_TIME_MAX, "?");
    return out;
}

/* -- parts --------------------------------------------------------------------------- */

static int put_key(struct buf *out, const char *key, bool *is_first)
{
    int rc = buf_addf(out, "%s\"%s\": ", *is_first ? "" : ", ", key);

    *is_first = false;
    return rc;
}

static int put_number(struct buf *out, const char *key, uint64_t v, bool *is_first)
{
    if (v == 0)
        return 0;
    if (put_key(out, key, is_first) < 0)
        return -1;
    return buf_addf(out, "%llu", (unsigned long long)v);
}

static int put_text(struct buf *out, const char *key, const char *v, bool *is_first)
{
    if (!v)
        return 0;
    if (put_key(out, key, is_first) < 0)
        return -1;
    return json_put_str(out, span_str(v));
}

static int put_limits(struct buf *out, const struct policy_limits *l)
{
    bool is_first = true;

    if (buf_adds(out, "{") < 0 || put_number(out, "bytes", l->bytes, &is_first) < 0 ||
        put_number(out, "bytes_per_s", l->bytes_per_s, &is_first) < 0 ||
        put_number(out, "connections", l->connections, &is_first) < 0 ||
        put_number(out, "connects_per_s", l->connects_per_s, &is_first) < 0 ||
        put_number(out, "labels", l->labels, &is_first) < 0 ||
        put_number(out, "names", l->names, &is_first) < 0 ||
        put_number(out, "questions_per_s", l->questions_per_s, &is_first) < 0)
        return -1;
    return buf_adds(out, "}");
}

static int put_rule(struct buf *out, const struct policy_rule *r)
{
    char when[POLICY_TIME_MAX];
    bool is_first = true;

    if (!r->expires_s && !r->from && !r->has_limits && !r->reason && !r->is_unchecked)
        return json_put_str(out, span_str(r->text));
    if (buf_adds(out, "{") < 0 ||
        put_text(out, "expires",
                 r->expires_s ? policy_time_print(r->expires_s, when) : NULL,
                 &is_first) < 0 ||
        put_text(out, "from", r->from, &is_first) < 0)
        return -1;
    if (r->has_limits &&
        (put_key(out, "limits", &is_first) < 0 || put_limits(out, &r->limits) < 0))
        return -1;
    if (put_text(out, "reason", r->reason, &is_first) < 0 ||
        (r->is_unchecked &&
         (put_key(out, "tls", &is_first) < 0 || buf_adds(out, "false") < 0)) ||
        put_text(out, "to", r->text, &is_first) < 0)
        return -1;
    return buf_adds(out, "}");
}

static int put_rules(struct buf *out, const char *key, const struct policy_rule *rule,
                     size_t n)
{
    if (buf_addf(out, "  \"%s\": [", key) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (buf_adds(out, i ? ",\n    " : "\n    ") < 0 || put_rule(out, &rule[i]) < 0)
            return -1;
    return buf_adds(out, n ? "\n  ],\n" : "],\n");
}

/* "192.0.2.53:53,[2001:db8::53]:53" as a list. */
static int put_resolvers(struct buf *out, const char *list)
{
    if (!list)
        return buf_adds(out, "  \"dns\": {\"upstream\": \"system\"},\n");
    if (buf_adds(out, "  \"dns\": {\"upstream\": [") < 0)
        return -1;
    for (const char *p = list; *p;) {
        size_t len = strcspn(p, ",");

        if (buf_adds(out, p > list ? ", " : "") < 0 ||
            json_put_str(out, span_of(p, len)) < 0)
            return -1;
        p += len + (p[len] == ',');
    }
    return buf_adds(out, "]},\n");
}

static int put_protocols(struct buf *out, const struct policy *p)
{
    static const char *const name[] = {"none", "http", "tls"};

    if (buf_adds(out, "  \"protocols\": {") < 0)
        return -1;
    for (size_t i = 0; i < p->n_checks; i++)
        if (buf_addf(out, "%s\"%u\": \"%s\"", i ? ", " : "", p->checks[i].port,
                     name[p->checks[i].check]) < 0)
            return -1;
    return buf_adds(out, "},\n");
}

static int put_proxy(struct buf *out, const struct policy_proxy *x, bool is_masked)
{
    AUTO(buf_done)
    struct buf masked = BUF_INIT;
    const char *url = x->url, *at = url ? strrchr(url, '@') : NULL;
    bool is_first = true;

    if (!url)
        return 0;
    if (at && is_masked) {
        if (buf_addf(&masked, "%.*s***%s", (int)(strstr(url, "://") + 3 - url), url, at) <
                0 ||
            buf_add(&masked, "", 1) < 0)
            return -1;
        url = (const char *)masked.p;
    }
    if (buf_adds(out, "  \"proxy\": {") < 0 ||
        put_text(out, "by", x->by_name ? "name" : "address", &is_first) < 0 ||
        put_text(out, "no_proxy", x->no_proxy, &is_first) < 0 ||
        put_key(out, "required", &is_first) < 0 ||
        buf_adds(out, x->required ? "true" : "false") < 0 ||
        put_text(out, "url", url, &is_first) < 0)
        return -1;
    return buf_adds(out, "},\n");
}

static int put_policy(const struct policy *p, struct buf *out, bool is_masked)
{
    static const char *const mode[] = {"enforce", "audit", "learn"};
    size_t n_allow = p->n_rules - p->n_deny;

    if (buf_adds(out, "{\n") < 0 ||
        put_rules(out, "allow", p->rule + p->n_deny, n_allow) < 0 ||
        buf_addf(out, "  \"default\": \"%s\",\n", p->default_allows ? "allow" : "deny") <
            0 ||
        put_rules(out, "deny", p->rule, p->n_deny) < 0 ||
        put_resolvers(out, p->resolvers) < 0 || buf_adds(out, "  \"limits\": ") < 0 ||
        put_limits(out, &p->limits) < 0 ||
        buf_addf(out, ",\n  \"mode\": \"%s\",\n", mode[p->mode]) < 0)
        return -1;
    if (*p->name &&
        (buf_adds(out, "  \"name\": ") < 0 || json_put_str(out, span_str(p->name)) < 0 ||
         buf_adds(out, ",\n") < 0))
        return -1;
    if (put_protocols(out, p) < 0 || put_proxy(out, &p->proxy, is_masked) < 0)
        return -1;
    return buf_adds(out, "  \"version\": 1\n}\n");
}

int policy_print(const struct policy *p, struct buf *out)
{
    return put_policy(p, out, false);
}

int policy_show(const struct policy *p, struct buf *out)
{
    return put_policy(p, out, true);
}
