/* SPDX-License-Identifier: MIT */
/*
 * Theory. An entry is one address under one name; entries of one address hang together in
 * a bucket, oldest first. Its ports are those the policy gives the name: each is an
 * element of the kernel's set, which several names of an address may share. The kernel is
 * told the latest end among them, and an element is taken out when no name of the address
 * gives it any more.
 *
 * An entry counts from when the kernel has acknowledged it (acked_ms): pins_next() tells
 * no other, and pins_add() answers only then. An entry without ports (what goes to the
 * guard in any case) needs no kernel.
 *
 * A heap orders entries by when they need care: one that is held by a connection is
 * renewed PIN_RENEW_S before its end, any other is forgotten at its end, as the kernel's
 * timeout has done. Renewal asks the policy again, so a rule that expired renews nothing.
 */
#include "agentd/egress/guard/pins.h"

#include <string.h>

#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pin_batch.h"
#include "agentd/egress/guard/pins_int.h"
#include "common/log.h"
#include "common/mem.h"

enum {
    PORTS_MAX = 64,  /* of one name */
    CARE_TURN = 256, /* entries looked after in one turn of the loop */
    HELD_S = NAMES_TTL_MIN_S + NAMES_GRACE_S /* what a renewal gives */
};

struct pins_wait {
    struct pins_wait *next, **prev;
    struct pins *pins;
    pins_fn *fn;
    void *arg;
    struct pin_batch *batch;
    uint64_t end_ms;
    size_t n; /* addresses whose acknowledgement is waited for */
    struct ip_addr addr[NAMES_ADDRS_MAX];
    char name[];
};

/* A batch that nobody waits for. */
struct errand {
    struct errand *next, **prev;
    struct pins *pins;
    struct pin_batch *batch;
};

static uint64_t now_ms(const struct pins *p)
{
    return loop_now(p->ward->guard->loop);
}

static void arm(struct pins *p)
{
    uint64_t now = now_ms(p);

    if (p->table.n == 0)
        loop_timer_stop(&p->care);
    else
        loop_timer_start(&p->care, p->table.heap[0]->due_ms > now
                                       ? p->table.heap[0]->due_ms - now
                                       : 1);
}

static void entry_drop(struct pins *p, struct pin_entry *e)
{
    pin_table_drop(&p->table, e);
    p->ward->counts.pins = (uint32_t)p->table.n;
}

/* -- errands ------------------------------------------------------------------------- */

static void complain(struct pins *p, const char *what)
{
    unsigned dropped;

    if (log_rate_ok(&p->rate, now_ms(p), &dropped))
        log_warn("egress.pins", "sandbox=%s error=%s dropped=%u", p->ward->name,
                 log_q(what), dropped);
}

static void errand_free(struct errand *r)
{
    *r->prev = r->next;
    if (r->next)
        r->next->prev = r->prev;
    pin_batch_cancel(&r->batch);
    mem_free(r);
}

static void on_errand(void *arg, bool ok)
{
    struct errand *r = arg;

    r->batch = NULL;
    if (!ok)
        complain(r->pins, "the kernel did not renew or remove pins");
    errand_free(r);
}

/* NULL: no memory, which is said. What is not told to the kernel stays there until its
 * end: the guard itself decides by its own table. */
static struct errand *errand_new(struct pins *p)
{
    struct errand *r = mem_zalloc(1, sizeof(*r));

    if (r)
        r->batch = pin_batch_new(p->ward, on_errand, r);
    if (!r || !r->batch) {
        mem_free(r);
        complain(p, "no memory to renew or remove pins");
        return NULL;
    }
    r->pins = p;
    r->prev = &p->errands;
    r->next = p->errands;
    if (r->next)
        r->next->prev = &r->next;
    p->errands = r;
    return r;
}

static void errand_send(struct errand *r)
{
    struct err e = {0};

    if (pin_batch_send(r->batch, &e) == 0)
        return;
    complain(r->pins, e.msg);
    errand_free(r);
}

/* Tell the kernel of an entry's ports, each with the latest end. */
static void tell_entry(struct pins *p, struct pin_batch *b, const struct pin_entry *e)
{
    for (size_t i = 0; i < e->n_ports; i++)
        pin_batch_add(b, &e->addr, e->port[i],
                      pin_table_end(&p->table, &e->addr, e->port[i], NULL) - now_ms(p));
}

/* -- adding -------------------------------------------------------------------------- */

/* The one that needs care first goes, in the kernel too. */
static void evict(struct pins *p)
{
    struct pin_entry *e = p->table.heap[0];
    struct errand *r = e->n_ports ? errand_new(p) : NULL;

    for (size_t i = 0; r && i < e->n_ports; i++)
        if (pin_table_end(&p->table, &e->addr, e->port[i], e) == 0)
            pin_batch_add(r->batch, &e->addr, e->port[i], 0);
    if (r)
        errand_send(r);
    entry_drop(p, e);
}

static struct pin_entry *entry_new(struct pins *p, const struct ip_addr *a,
                                   const char *name, uint64_t end_ms)
{
    struct pin_entry *e;

    if (p->table.n == PINS_MAX)
        evict(p);
    e = pin_table_add(&p->table, a, name, end_ms);
    p->ward->counts.pins = (uint32_t)p->table.n;
    return e;
}

/* The ports of a name, looked up when the first address needs them. */
struct ports {
    bool are_known;
    size_t n;
    uint16_t port[PORTS_MAX];
};

static void need_ports(const struct pins *p, const char *name, struct ports *ports)
{
    if (ports->are_known)
        return;
    ports->n =
        decide_ports(p->ward->policy, name, clock_wall_s(), ports->port, PORTS_MAX);
    ports->are_known = true;
}

/* 0, or -1: no memory. */
static int add_one(struct pins_wait *w, const struct ip_addr *a, struct ports *ports)
{
    struct pins *p = w->pins;
    struct pin_entry *e = pin_table_find(&p->table, a, w->name);

    if (!e)
        e = entry_new(p, a, w->name, w->end_ms);
    if (!e)
        return -1;
    if (w->end_ms > e->end_ms) {
        e->end_ms = w->end_ms;
        pin_table_set_due(&p->table, e);
    }
    /* An answer from the table comes again and again with the same end, or so: the
     * kernel need not hear of it while the pin outlives the answer by a good part
     * of the grace. */
    if (e->acked_ms && e->acked_ms + NAMES_GRACE_S * UINT64_C(500) >= w->end_ms)
        return 0;
    need_ports(p, w->name, ports);
    if (!pin_ports_are(e, ports->port, ports->n)) {
        e->acked_ms = 0;
        if (pin_ports_set(e, ports->port, ports->n) < 0)
            return -1;
    }
    w->addr[w->n++] = *a;
    tell_entry(p, w->batch, e);
    return 0;
}

static void wait_free(struct pins_wait *w)
{
    pin_batch_cancel(&w->batch);
    *w->prev = w->next;
    if (w->next)
        w->next->prev = w->prev;
    mem_free(w);
}

void pins_cancel(struct pins_wait **w)
{
    if (*w)
        wait_free(*w);
    *w = NULL;
}

static void on_told(void *arg, bool ok)
{
    struct pins_wait *w = arg;
    pins_fn *fn = w->fn;
    void *fn_arg = w->arg;

    w->batch = NULL;
    for (size_t i = 0; i < w->n && ok; i++) {
        struct pin_entry *e = pin_table_find(&w->pins->table, &w->addr[i], w->name);

        if (!e)
            ok = false; /* a new policy took it out meanwhile */
        else if (w->end_ms > e->acked_ms)
            e->acked_ms = w->end_ms;
    }
    wait_free(w);
    fn(fn_arg, ok);
}

static struct pins_wait *wait_new(struct pins *p, const char *name, uint32_t ttl_s)
{
    size_t len = strlen(name) + 1;
    struct pins_wait *w = mem_zalloc(1, sizeof(*w) + len);
    uint64_t life_s = (uint64_t)ttl_s + NAMES_GRACE_S;

    if (!w)
        return NULL;
    w->batch = pin_batch_new(p->ward, on_told, w);
    if (!w->batch) {
        mem_free(w);
        return NULL;
    }
    memcpy(w->name, name, len);
    w->pins = p;
    w->end_ms = now_ms(p) + (life_s < NAMES_TTL_MAX_S ? life_s : NAMES_TTL_MAX_S) * 1000;
    w->prev = &p->waits;
    w->next = p->waits;
    if (w->next)
        w->next->prev = &w->next;
    p->waits = w;
    return w;
}

struct pins_wait *pins_add(struct pins *p, const struct pins_answer *a, pins_fn *fn,
                           void *arg, struct err *e)
{
    struct ports ports = {.are_known = false};
    struct pins_wait *w = a->n <= NAMES_ADDRS_MAX ? wait_new(p, a->name, a->ttl_s) : NULL;
    int rc = 0;

    if (!w) {
        (void)err_set(e, a->n > NAMES_ADDRS_MAX ? ERR_LIMIT : ERR_NOMEM,
                      "pins of \"%s\": no memory, or too many", a->name);
        return NULL;
    }
    w->fn = fn;
    w->arg = arg;
    for (size_t i = 0; i < a->n && rc == 0; i++)
        rc = add_one(w, &a->addr[i], &ports);
    arm(p);
    if (rc < 0)
        (void)err_set(e, ERR_NOMEM, "pins of \"%s\": no memory", a->name);
    else
        rc = pin_batch_send(w->batch, e);
    if (rc < 0) {
        wait_free(w);
        return NULL;
    }
    return w;
}

/* -- reading and holding ------------------------------------------------------------- */

bool pins_next(struct pins *p, const struct ip_addr *a, size_t *pos,
               const char **ret_name)
{
    uint64_t now = now_ms(p);
    size_t i = 0;

    for (const struct pin_entry *e = pin_table_first(&p->table, a); e; e = e->next) {
        if (!e->acked_ms || e->end_ms <= now || !ip_eq(&e->addr, a) || i++ < *pos)
            continue;
        (*pos)++;
        *ret_name = e->name;
        return true;
    }
    return false;
}

void pins_hold(struct pins *p, const struct ip_addr *a, const char *name)
{
    struct pin_entry *e = pin_table_find(&p->table, a, name);

    if (!e)
        return;
    e->held++;
    pin_table_set_due(&p->table, e);
    arm(p);
}

void pins_release(struct pins *p, const struct ip_addr *a, const char *name)
{
    struct pin_entry *e = pin_table_find(&p->table, a, name);

    if (!e || e->held == 0)
        return; /* it had to make room meanwhile */
    e->held--;
    pin_table_set_due(&p->table, e);
    arm(p);
}

size_t pins_count(const struct pins *p)
{
    return p->table.n;
}

/* -- renewal and end ----------------------------------------------------------------- */

static bool is_allowed(const struct pins *p, const struct pin_entry *e)
{
    struct target t = {.name = e->name, .addr = e->addr, .protocol = IPPROTO_TCP};
    struct verdict v;
    bool would_refuse;

    ward_decide(p->ward, &t, &v, &would_refuse);
    return v.allowed;
}

static void renew(struct pins *p, struct errand *r, struct pin_entry *e)
{
    uint16_t port[PORTS_MAX];
    size_t n;

    n = decide_ports(p->ward->policy, e->name, clock_wall_s(), port, PORTS_MAX);
    if (!is_allowed(p, e) ||
        (!pin_ports_are(e, port, n) && pin_ports_set(e, port, n) < 0)) {
        e->held = 0; /* its end stands */
    } else {
        e->end_ms = now_ms(p) + HELD_S * UINT64_C(1000);
        tell_entry(p, r->batch, e);
    }
    pin_table_set_due(&p->table, e);
}

static void on_care(void *arg)
{
    struct pins *p = arg;
    struct errand *r = NULL;
    uint64_t now = now_ms(p);

    for (int i = 0; i < CARE_TURN && p->table.n > 0 && p->table.heap[0]->due_ms <= now;
         i++) {
        struct pin_entry *e = p->table.heap[0];

        if (!r && e->held)
            r = errand_new(p);
        if (r && e->held)
            renew(p, r, e);
        else
            entry_drop(p, e);
    }
    if (r)
        errand_send(r);
    arm(p);
}

/* -- another policy ------------------------------------------------------------------ */

/* Moves the ports to `old` and puts in those of the policy now. */
static void reload_ports(const struct pins *p, struct pin_entry *e)
{
    uint16_t port[PORTS_MAX];
    size_t n = 0;

    e->old = e->port;
    e->n_old = e->n_ports;
    e->port = NULL;
    e->n_ports = 0;
    e->is_dead = !is_allowed(p, e);
    if (!e->is_dead)
        n = decide_ports(p->ward->policy, e->name, clock_wall_s(), port, PORTS_MAX);
    if (pin_ports_set(e, port, n) < 0)
        e->is_dead = true;
}

/* All that live, not only new ones: after another program's flush the keeper makes the
 * kernel's sets anew and gives the policy again. */
static void reload_tell(struct pins *p, struct pin_batch *b, struct pin_entry *e)
{
    uint64_t now = now_ms(p);

    for (size_t i = 0; i < e->n_old; i++)
        if (pin_table_end(&p->table, &e->addr, e->old[i], NULL) == 0)
            pin_batch_add(b, &e->addr, e->old[i], 0);
    for (size_t i = 0; i < e->n_ports; i++)
        if (e->end_ms > now)
            pin_batch_add(b, &e->addr, e->port[i],
                          pin_table_end(&p->table, &e->addr, e->port[i], NULL) - now);
}

void pins_reload(struct pins *p)
{
    struct errand *r = errand_new(p);

    for (size_t i = 0; i < p->table.n; i++)
        reload_ports(p, p->table.heap[i]);
    for (size_t i = 0; i < p->table.n; i++) {
        struct pin_entry *e = p->table.heap[i];

        if (r)
            reload_tell(p, r->batch, e);
        mem_free(e->old);
        e->old = NULL;
        e->n_old = 0;
    }
    if (r)
        errand_send(r);
    for (size_t i = p->table.n;
         i-- > 0;) /* dropping moves entries from behind, already seen */
        while (i < p->table.n && p->table.heap[i]->is_dead)
            entry_drop(p, p->table.heap[i]);
    arm(p);
}

/* -- the whole ----------------------------------------------------------------------- */

struct pins *pins_new(struct ward *w, struct err *e)
{
    struct pins *p = mem_zalloc(1, sizeof(*p));

    if (!p) {
        (void)err_set(e, ERR_NOMEM, "pins of \"%s\": no memory", w->name);
        return NULL;
    }
    p->ward = w;
    pin_table_init(&p->table);
    loop_timer_init(&p->care, w->guard->loop, on_care, p);
    return p;
}

void pins_free(struct pins *p)
{
    if (!p)
        return;
    loop_timer_stop(&p->care);
    while (p->waits)
        wait_free(p->waits);
    while (p->errands)
        errand_free(p->errands);
    pin_table_done(&p->table);
    mem_free(p);
}
