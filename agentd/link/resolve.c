/* SPDX-License-Identifier: MIT */
/*
 * Theory. One c-ares channel per request, made when asked and destroyed with it: so the
 * resolver configuration is read anew each time (a laptop that changes networks, a VPN
 * that comes up), nothing is left running between dials, and cancelling is one call.
 *
 * Two queries run on the channel, one a family. Waiting for both would let a resolver
 * that drops AAAA hold up every dial, so the first family with an address starts a short
 * wait for the other one (NAME_AAAA_MS), and the answer is given with what is there then.
 *
 * A channel must not be destroyed inside one of its own callbacks; the end therefore
 * comes from a deferred job, which is also what keeps the promise that nothing calls back
 * inside resolve_start().
 */
#include "agentd/link/resolve.h"

#include <ares.h>
#include <netdb.h>
#include <string.h>
#include <strings.h>

#include "agentd/link/cares.h"
#include "common/host.h"
#include "common/limits.h"
#include "common/mem.h"

enum {
    V6,
    V4,
    FAMILIES
};

struct answer {
    bool done;
    int status; /* ARES_*; of the query */
    size_t n;
    struct sock_addr addr[CONNECT_ADDRS_MAX];
};

struct resolve {
    resolve_fn *fn;
    void *arg;
    struct cares cares; /* not opened where no question was needed */
    struct loop_timer deadline, patience;
    struct loop_job end;
    bool timed_out;
    uint16_t port;
    struct answer answer[FAMILIES];
    char name[HOST_MAX + 1];
};

bool resolve_is_localhost(const char *name)
{
    static const char last[] = "localhost";
    size_t len = strlen(name), want = sizeof(last) - 1;

    if (len < want || strcasecmp(name + len - want, last) != 0)
        return false;
    return len == want || name[len - want - 1] == '.';
}

static void destroy(struct resolve *r)
{
    loop_timer_stop(&r->deadline);
    loop_timer_stop(&r->patience);
    loop_job_cancel(&r->end);
    r->fn = NULL; /* the queries' callbacks come once more, from cares_done() */
    cares_done(&r->cares);
    mem_free(r);
}

void resolve_cancel(struct resolve **r)
{
    if (*r)
        destroy(*r);
    *r = NULL;
}

/* IPv6 first, then in turn (RFC 8305 4). */
static size_t interleave(const struct resolve *r, struct sock_addr *out)
{
    size_t i, n = 0;

    for (i = 0; i < CONNECT_ADDRS_MAX; i++) {
        if (i < r->answer[V6].n && n < CONNECT_ADDRS_MAX)
            out[n++] = r->answer[V6].addr[i];
        if (i < r->answer[V4].n && n < CONNECT_ADDRS_MAX)
            out[n++] = r->answer[V4].addr[i];
    }
    return n;
}

/* Neither family has an address: which of the two reasons says more? */
static void explain(const struct resolve *r, struct err *e)
{
    int v4 = r->answer[V4].status, v6 = r->answer[V6].status;
    int status = v4 == ARES_SUCCESS || v4 == ARES_ENODATA ? v6 : v4;

    if (r->timed_out || status == ARES_ETIMEOUT)
        (void)err_set(e, ERR_TIMEOUT, "the name server did not answer for \"%s\"",
                      r->name);
    else if (status == ARES_ENOTFOUND)
        (void)err_set(e, ERR_NOTFOUND, "there is no name \"%s\"", r->name);
    else if (status == ARES_ENODATA || status == ARES_SUCCESS)
        (void)err_set(e, ERR_NOTFOUND, "the name \"%s\" has no address", r->name);
    else if (status == ARES_ENOMEM)
        (void)err_set(e, ERR_NOMEM, "resolving \"%s\": no memory", r->name);
    else
        (void)err_set(e, ERR_NOTFOUND, "resolving \"%s\": %s", r->name,
                      ares_strerror(status));
}

static void on_end(void *arg)
{
    struct resolve *r = arg;
    struct sock_addr addr[CONNECT_ADDRS_MAX];
    struct err e = {0};
    size_t n = interleave(r, addr);
    resolve_fn *fn = r->fn;
    void *fn_arg = r->arg;

    if (n == 0)
        explain(r, &e);
    destroy(r);
    fn(fn_arg, addr, n, &e);
}

static void on_deadline(void *arg)
{
    struct resolve *r = arg;

    r->timed_out = true;
    loop_job_defer(&r->end);
}

static void on_patience(void *arg)
{
    struct resolve *r = arg;

    loop_job_defer(&r->end);
}

static void take_addresses(const struct resolve *r, struct answer *a,
                           const struct ares_addrinfo *list)
{
    const struct ares_addrinfo_node *n;

    for (n = list->nodes; n && a->n < CONNECT_ADDRS_MAX; n = n->ai_next) {
        struct sock_addr *to = &a->addr[a->n];

        if (n->ai_addrlen > sizeof(to->u))
            continue;
        memset(to, 0, sizeof(*to));
        memcpy(&to->u, n->ai_addr, n->ai_addrlen);
        to->len = n->ai_addrlen;
        if (n->ai_family == AF_INET)
            to->u.in.sin_port = htons(r->port);
        else if (n->ai_family == AF_INET6)
            to->u.in6.sin6_port = htons(r->port);
        else
            continue;
        a->n++;
    }
}

static void on_answer(struct resolve *r, struct answer *a, int status,
                      struct ares_addrinfo *list)
{
    if (list) {
        if (r->fn)
            take_addresses(r, a, list);
        ares_freeaddrinfo(list);
    }
    if (!r->fn)
        return;
    a->done = true;
    a->status = status;
    if (r->answer[V4].done && r->answer[V6].done)
        loop_job_defer(&r->end);
    else if (a->n)
        loop_timer_start(&r->patience, NAME_AAAA_MS);
}

static void on_answer4(void *arg, int status, int timeouts, struct ares_addrinfo *list)
{
    struct resolve *r = arg;

    UNUSED_ARG(timeouts);
    on_answer(r, &r->answer[V4], status, list);
}

static void on_answer6(void *arg, int status, int timeouts, struct ares_addrinfo *list)
{
    struct resolve *r = arg;

    UNUSED_ARG(timeouts);
    on_answer(r, &r->answer[V6], status, list);
}

static int ask(struct resolve *r, const struct resolve_conf *conf, struct err *e)
{
    struct ares_options opt = {0};
    struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_NOSORT | ARES_AI_NUMERICSERV};
    char lookups[] = "fb"; /* /etc/hosts, then the name servers */

    opt.timeout = 1500;
    opt.tries = 3;
    opt.lookups = lookups;
    if (cares_open(&r->cares, &opt,
                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS, conf->servers,
                   e) < 0)
        return -1;
    hints.ai_family = AF_INET6;
    ares_getaddrinfo(r->cares.channel, r->name, NULL, &hints, on_answer6, r);
    hints.ai_family = AF_INET;
    ares_getaddrinfo(r->cares.channel, r->name, NULL, &hints, on_answer4, r);
    cares_arm(&r->cares);
    return 0;
}

/* true: the name is its own answer. */
static bool is_known(struct resolve *r)
{
    struct answer *a6 = &r->answer[V6], *a4 = &r->answer[V4];

    if (resolve_is_localhost(r->name)) {
        a6->n = a4->n = 1;
        return sock_parse_ip(span_str("::1"), r->port, &a6->addr[0]) == 0 &&
               sock_parse_ip(span_str("127.0.0.1"), r->port, &a4->addr[0]) == 0;
    }
    if (sock_parse_ip(span_str(r->name), r->port, &a4->addr[0]) == 0) {
        a4->n = 1; /* whichever family; it is the only one */
        return true;
    }
    return false;
}

struct resolve *resolve_start(struct loop *l, const struct resolve_conf *conf,
                              resolve_fn *fn, void *arg, struct err *e)
{
    struct resolve *r;

    if (strlen(conf->name) > HOST_MAX) {
        (void)err_set(e, ERR_CONFIG, "a host name ends at %d bytes", HOST_MAX);
        return NULL;
    }
    r = mem_zalloc(1, sizeof(*r));
    if (!r) {
        (void)err_set(e, ERR_NOMEM, "resolving \"%s\": no memory", conf->name);
        return NULL;
    }
    cares_init(&r->cares, l);
    r->fn = fn;
    r->arg = arg;
    r->port = conf->port;
    memcpy(r->name, conf->name, strlen(conf->name) + 1);
    loop_timer_init(&r->deadline, l, on_deadline, r);
    loop_timer_init(&r->patience, l, on_patience, r);
    loop_job_init(&r->end, l, on_end, r);
    if (is_known(r)) {
        loop_job_defer(&r->end);
        return r;
    }
    loop_timer_start(&r->deadline, conf->timeout_ms);
    if (ask(r, conf, e) < 0) {
        destroy(r);
        return NULL;
    }
    return r;
}
