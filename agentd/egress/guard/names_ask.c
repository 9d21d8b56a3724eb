/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "agentd/egress/guard/names_int.h"
#include "common/limits.h"
#include "common/mem.h"

void names_half_wait(struct names_half *h, struct name_entry *e)
{
    h->next = e->waiting;
    if (h->next)
        h->next->prev = &h->next;
    h->prev = &e->waiting;
    e->waiting = h;
}

static void half_leave(struct names_half *h)
{
    if (!h->prev)
        return;
    *h->prev = h->next;
    if (h->next)
        h->next->prev = h->prev;
    h->prev = NULL;
    h->next = NULL;
}

void names_ask_free(struct names_ask *a)
{
    for (unsigned i = 0; i < NAMES_FAMILIES; i++)
        half_leave(&a->half[i]);
    loop_job_cancel(&a->end);
    loop_timer_stop(&a->patience);
    *a->prev = a->next;
    if (a->next)
        a->next->prev = a->prev;
    mem_free(a);
}

void names_cancel(struct names_ask **a)
{
    if (*a)
        names_ask_free(*a);
    *a = NULL;
}

static bool half_is_open(const struct names_half *h)
{
    return h->is_wanted && !h->is_done;
}

/* All halves are done, or the first addresses start a short wait for the rest. */
static void ask_look(struct names_ask *a)
{
    if (!half_is_open(&a->half[NAMES_V4]) && !half_is_open(&a->half[NAMES_V6]))
        loop_job_defer(&a->end);
    else if (a->half[NAMES_V4].n || a->half[NAMES_V6].n)
        loop_timer_start(&a->patience, NAME_AAAA_MS);
}

void names_half_fill(struct names_half *h, const struct name_entry *e, uint64_t now)
{
    h->is_done = true;
    h->result = e->result;
    h->n = e->n;
    if (e->n)
        memcpy(h->addr, e->addr, e->n * sizeof(*e->addr));
    h->ttl_s = e->expires_ms > now ? (uint32_t)((e->expires_ms - now + 999) / 1000) : 0;
    if (e->why)
        h->owner->why = *e->why;
}

void names_tell(struct name_entry *e, uint64_t now)
{
    struct names_half *h;

    while ((h = e->waiting) != NULL) {
        half_leave(h);
        names_half_fill(h, e, now);
        ask_look(h->owner);
    }
}

/* Which of two results without addresses says more to the client? */
static enum names_result worse(const struct names_ask *a)
{
    static const enum names_result order[] = {NAMES_LIMIT, NAMES_FLOOR, NAMES_FAILED,
                                              NAMES_EMPTY};

    for (size_t k = 0; k < COUNT_OF(order); k++)
        for (unsigned i = 0; i < NAMES_FAMILIES; i++)
            if (a->half[i].is_done && a->half[i].result == order[k])
                return order[k];
    return NAMES_NOT_FOUND;
}

/* IPv6 first, then in turn (RFC 8305 section 4). */
static void merge(const struct names_ask *a, struct names_answer *ret)
{
    ret->ttl_s = NAMES_TTL_MAX_S;
    for (size_t i = 0; i < NAMES_ADDRS_MAX; i++)
        for (unsigned f = 0; f < NAMES_FAMILIES; f++)
            if (i < a->half[f].n && ret->n < NAMES_ADDRS_MAX)
                ret->addr[ret->n++] = a->half[f].addr[i];
    for (unsigned f = 0; f < NAMES_FAMILIES; f++)
        if (a->half[f].n && a->half[f].ttl_s < ret->ttl_s)
            ret->ttl_s = a->half[f].ttl_s;
    ret->result = NAMES_OK;
    if (ret->n > 0)
        return;
    ret->ttl_s = 0;
    ret->result = worse(a);
}

static void on_end(void *arg)
{
    struct names_ask *a = arg;
    struct names_answer answer = {.n = 0};
    struct verdict why = a->why;
    names_fn *fn = a->fn;
    void *fn_arg = a->arg;

    merge(a, &answer);
    if (answer.result == NAMES_FLOOR || answer.result == NAMES_LIMIT)
        answer.why = &why;
    names_ask_free(a);
    fn(fn_arg, &answer);
}

static void on_patience(void *arg)
{
    struct names_ask *a = arg;

    loop_job_defer(&a->end);
}

struct names_ask *names_ask(struct names *n, const char *name, int family, names_fn *fn,
                            void *arg, struct err *e)
{
    struct names_ask *a = mem_zalloc(1, sizeof(*a));

    if (!a) {
        (void)err_set(e, ERR_NOMEM, "asking for \"%s\": no memory", name);
        return NULL;
    }
    a->names = n;
    a->fn = fn;
    a->arg = arg;
    a->prev = &n->asks;
    a->next = n->asks;
    if (a->next)
        a->next->prev = &a->next;
    n->asks = a;
    loop_job_init(&a->end, n->ward->guard->loop, on_end, a);
    loop_timer_init(&a->patience, n->ward->guard->loop, on_patience, a);
    a->half[NAMES_V4].owner = a->half[NAMES_V6].owner = a;
    if ((family != AF_INET &&
         names_half_start(&a->half[NAMES_V6], name, AF_INET6, e) < 0) ||
        (family != AF_INET6 &&
         names_half_start(&a->half[NAMES_V4], name, AF_INET, e) < 0)) {
        names_ask_free(a);
        return NULL;
    }
    ask_look(a);
    return a;
}
