/* SPDX-License-Identifier: MIT */
/*
 * Theory. One c-ares channel per question, made when asked and destroyed with it, as in
 * link/resolve.c: each question leaves from a socket, and so from a port, of its own, and
 * cancelling is one call. The message is ours (dnsmsg_ask()) with an id from the kernel's
 * random numbers: c-ares 1.18 takes its ids from /dev/urandom and, where that cannot be
 * opened (the guard opens nothing), silently from an unseeded rand() (CVE-2023-31147).
 *
 * ares_init_options() reads resolv.conf and asks for the host's name unless every one of
 * lookups, sort list, servers, domains, ndots, timeout and tries is set
 * (ARES_CONFIG_CHECK in ares_init.c), so they are. ARES_FLAG_EDNS makes it take answers
 * of DNSMSG_UDP_MAX bytes without calling them truncated, and ask again without the OPT
 * record, which it cuts off as the last 11 bytes, when a server answers FORMERR.
 *
 * A channel must not be destroyed inside one of its own callbacks, so the end comes
 * from a deferred job.
 */
#include "agentd/egress/guard/dns_ask.h"

#include <ares.h>
#include <string.h>

#include "agentd/link/cares.h"
#include "common/crypto.h"
#include "common/host.h"
#include "common/limits.h"
#include "common/mem.h"

enum {
    TRY_MS = 1200, /* per server, doubled in each round; NAME_MS ends it all */
    TRIES = 3
};

struct dns_ask {
    dns_ask_fn *fn;
    void *arg;
    struct cares cares;
    struct loop_timer deadline;
    struct loop_job end;
    bool timed_out, has_answer;
    int status; /* ARES_*; of the query */
    uint16_t type;
    char name[HOST_MAX + 1];
    struct dns_answer answer;
};

static void destroy(struct dns_ask *a)
{
    loop_timer_stop(&a->deadline);
    loop_job_cancel(&a->end);
    a->fn = NULL; /* the query's callback comes once more, from cares_done() */
    cares_done(&a->cares);
    mem_free(a);
}

void dns_ask_cancel(struct dns_ask **a)
{
    if (*a)
        destroy(*a);
    *a = NULL;
}

static void explain(const struct dns_ask *a, struct err *e)
{
    if (a->timed_out || a->status == ARES_ETIMEOUT)
        (void)err_set(e, ERR_TIMEOUT, "no name server answered for \"%s\"", a->name);
    else if (a->status == ARES_ENOMEM)
        (void)err_set(e, ERR_NOMEM, "asking for \"%s\": no memory", a->name);
    else if (a->status == ARES_SUCCESS)
        (void)err_set(e, ERR_PROTO, "a name server's answer for \"%s\" is broken",
                      a->name);
    else
        (void)err_set(e, ERR_NOTFOUND, "the name servers refused or failed for \"%s\"",
                      a->name);
}

static void on_end(void *arg)
{
    struct dns_ask *a = arg;
    struct dns_answer answer = a->answer;
    bool has_answer = a->has_answer;
    dns_ask_fn *fn = a->fn;
    void *fn_arg = a->arg;
    struct err e = {0};

    if (!has_answer)
        explain(a, &e);
    destroy(a);
    fn(fn_arg, has_answer ? &answer : NULL, &e);
}

static void on_deadline(void *arg)
{
    struct dns_ask *a = arg;

    a->timed_out = true;
    loop_job_defer(&a->end);
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *msg, int len)
{
    struct dns_ask *a = arg;

    UNUSED_ARG(timeouts);
    if (!a->fn)
        return;
    a->status = status;
    /* c-ares compared the id with that of the question. */
    if (status == ARES_SUCCESS && msg && len > 0)
        a->has_answer = dnsmsg_parse_answer(span_of(msg, (size_t)len), -1, a->name,
                                            a->type, &a->answer) == 0;
    if (a->has_answer && a->answer.rcode != DNS_NOERROR &&
        a->answer.rcode != DNS_NXDOMAIN) {
        a->has_answer = false;
        a->status = ARES_EREFUSED;
    }
    loop_job_defer(&a->end);
}

static int open_channel(struct dns_ask *a, const char *servers, struct err *e)
{
    struct ares_options opt = {0};
    char lookups[] = "b"; /* name servers only */

    opt.flags = ARES_FLAG_EDNS;
    opt.ednspsz = DNSMSG_UDP_MAX;
    opt.timeout = TRY_MS;
    opt.tries = TRIES;
    opt.ndots = 1;
    opt.lookups = lookups;
    if (!*servers) /* would be the system's */
        return err_set(e, ERR_CONFIG, "no name servers to ask");
    return cares_open(&a->cares, &opt,
                      ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS |
                          ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_LOOKUPS |
                          ARES_OPT_SERVERS | ARES_OPT_DOMAINS | ARES_OPT_SORTLIST,
                      servers, e);
}

static int ask(struct dns_ask *a, const char *servers, struct err *e)
{
    uint8_t msg[DNSMSG_UDP_MIN];
    uint16_t id;
    size_t len;

    crypto_random(&id, sizeof(id));
    len = dnsmsg_ask(a->name, a->type, id, msg);
    if (len == 0)
        return err_set(e, ERR_CONFIG, "\"%s\" is no name to ask for", a->name);
    if (open_channel(a, servers, e) < 0)
        return -1;
    ares_send(a->cares.channel, msg, (int)len, on_answer, a);
    cares_arm(&a->cares);
    return 0;
}

struct dns_ask *dns_ask_start(struct loop *l, const struct dns_ask_what *what,
                              dns_ask_fn *fn, void *arg, struct err *e)
{
    struct dns_ask *a;

    if (strlen(what->name) > HOST_MAX) {
        (void)err_set(e, ERR_CONFIG, "a host name ends at %d bytes", HOST_MAX);
        return NULL;
    }
    a = mem_zalloc(1, sizeof(*a));
    if (!a) {
        (void)err_set(e, ERR_NOMEM, "asking for \"%s\": no memory", what->name);
        return NULL;
    }
    cares_init(&a->cares, l);
    a->fn = fn;
    a->arg = arg;
    a->type = what->type;
    memcpy(a->name, what->name, strlen(what->name) + 1);
    loop_timer_init(&a->deadline, l, on_deadline, a);
    loop_job_init(&a->end, l, on_end, a);
    loop_timer_start(&a->deadline, NAME_MS);
    if (ask(a, what->servers, e) < 0) {
        destroy(a);
        return NULL;
    }
    return a;
}
