/* SPDX-License-Identifier: MIT */
/*
 * Theory. An entry is one address under one name; entries of one address hang together in
 * a bucket, oldest first. Its ports are those the policy gives the name: each is an
 * element of the kernel's set, which several names of an address may share. The kernel is
 * told the latest end among them, and an element is taken out when no name of the address
 * gives it any more; the times that it can be told are coarse (pin.h), so it is told the
 * end, too.
 *
 * An entry counts from when the kernel has it (told_ms): pins_next() tells no other. An
 * entry without ports (what goes to the guard in any case) needs no kernel.
 *
 * A heap orders entries by when they need care: one that is held by a connection is
 * renewed PIN_RENEW_S before its end, any other is forgotten at its end. Renewal asks the
 * policy again, so a rule that expired renews nothing.
 */
#include "agentd/egress/guard/pins.h"

#include <errno.h>
#include <string.h>

#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins_int.h"
#include "agentd/egress/kernel/pin.h"
#include "common/log.h"
#include "common/mem.h"

enum {
    PORTS_MAX = 64,  /* of one name */
    CARE_TURN = 256, /* entries looked after in one turn of the loop */
    HELD_S = NAMES_TTL_MIN_S + NAMES_GRACE_S /* what a renewal gives */
};

_Static_assert(NAMES_TTL_MAX_S <= PIN_LIFE_MAX_S && HELD_S <= PIN_LIFE_MAX_S,
               "the kernel can be told each life");

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

/* -- the kernel ---------------------------------------------------------------------- */

/* @left_ms  until it ends; 0: take it out.  0, or errno. */
static int put(struct pins *p, const struct ip_addr *a, uint16_t port, uint64_t left_ms)
{
    const struct ward *w = p->ward;
    struct pin pin = {*a, port, (uint32_t)((left_ms + 999) / 1000)};

    return w->pin_fd < 0 || w->tag == 0 ? ENOTCONN : pin_put(w->pin_fd, w->tag, &pin);
}

/* What is not told to the kernel stays there until its end: the guard itself decides by
 * its own table. */
static void complain(struct pins *p, int error)
{
    const char *why = error == EPERM      ? "the kernel's set is full"
                      : error == ENOTCONN ? "the kernel has no rules of this sandbox"
                                          : strerror(error);
    unsigned dropped;

    if (log_rate_ok(&p->rate, now_ms(p), &dropped))
        log_warn("egress.pins", "sandbox=%s error=%s dropped=%u", p->ward->name,
                 log_q(why), dropped);
}

/* Other ports; those of before are `old` until take_out_old(). -1: no memory, and nothing
 * changed. */
static int set_ports(struct pin_entry *e, const uint16_t *port, size_t n)
{
    uint16_t *old = e->port;
    size_t n_old = e->n_ports;

    e->port = NULL;
    e->n_ports = 0;
    if (pin_ports_set(e, port, n) < 0) {
        e->port = old;
        e->n_ports = n_old;
        return -1;
    }
    e->old = old;
    e->n_old = n_old;
    return 0;
}

/* Those ports that no name of the address gives; @but  not counted. 0, or errno. */
static int take_out(struct pins *p, const struct ip_addr *a, const uint16_t *port,
                    size_t n, const struct pin_entry *but)
{
    int error = 0;

    for (size_t i = 0; i < n && error == 0; i++)
        if (pin_table_end(&p->table, a, port[i], but) == 0)
            error = put(p, a, port[i], 0);
    return error;
}

/* 0, or errno. */
static int take_out_old(struct pins *p, struct pin_entry *e)
{
    int error = take_out(p, &e->addr, e->old, e->n_old, NULL);

    mem_free(e->old);
    e->old = NULL;
    e->n_old = 0;
    return error;
}

/* An entry's ports, each with the latest end; those that it had are gone. 0, or errno. */
static int tell(struct pins *p, struct pin_entry *e)
{
    uint64_t now = now_ms(p);
    int error = take_out_old(p, e);

    for (size_t i = 0; i < e->n_ports && error == 0; i++)
        error = put(p, &e->addr, e->port[i],
                    pin_table_end(&p->table, &e->addr, e->port[i], NULL) - now);
    if (error == 0)
        e->told_ms = e->end_ms;
    return error;
}

static void entry_end(struct pins *p, struct pin_entry *e)
{
    int error = take_out(p, &e->addr, e->port, e->n_ports, e);

    if (error != 0)
        complain(p, error);
    entry_drop(p, e);
}

/* -- adding -------------------------------------------------------------------------- */

static struct pin_entry *entry_new(struct pins *p, const struct ip_addr *a,
                                   const char *name, uint64_t end_ms)
{
    struct pin_entry *e;

    if (p->table.n == PINS_MAX)
        entry_end(p, p->table.heap[0]); /* the one that needs care first goes */
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

/* 0, or errno. */
static int add_one(struct pins *p, const struct ip_addr *a, const char *name,
                   uint64_t end_ms, struct ports *ports)
{
    struct pin_entry *e = pin_table_find(&p->table, a, name);

    if (!e)
        e = entry_new(p, a, name, end_ms);
    if (!e)
        return ENOMEM;
    if (end_ms > e->end_ms) {
        e->end_ms = end_ms;
        pin_table_set_due(&p->table, e);
    }
    /* An answer from the table comes again and again with the same end, or so: the
     * kernel need not hear of it while the pin outlives the answer by a good part
     * of the grace. */
    if (e->told_ms && e->told_ms + NAMES_GRACE_S * UINT64_C(500) >= end_ms)
        return 0;
    need_ports(p, name, ports);
    if (!pin_ports_are(e, ports->port, ports->n)) {
        e->told_ms = 0;
        if (set_ports(e, ports->port, ports->n) < 0)
            return ENOMEM;
    }
    return tell(p, e);
}

int pins_add(struct pins *p, const struct pins_answer *a, struct err *e)
{
    uint64_t life_s = (uint64_t)a->ttl_s + NAMES_GRACE_S;
    uint64_t end_ms =
        now_ms(p) + (life_s < NAMES_TTL_MAX_S ? life_s : NAMES_TTL_MAX_S) * 1000;
    struct ports ports = {.are_known = false};
    int error = 0;

    if (a->n > NAMES_ADDRS_MAX)
        return err_set(e, ERR_LIMIT, "pins of \"%s\": %zu addresses", a->name, a->n);
    for (size_t i = 0; i < a->n && error == 0; i++)
        error = add_one(p, &a->addr[i], a->name, end_ms, &ports);
    arm(p);
    if (error == 0)
        return 0;
    complain(p, error);
    return err_set_at(e, ERR_SYS, error, ERR_WHERE, "the addresses could not be pinned");
}

/* -- reading and holding ------------------------------------------------------------- */

bool pins_next(struct pins *p, const struct ip_addr *a, size_t *pos,
               const char **ret_name)
{
    uint64_t now = now_ms(p);
    size_t i = 0;

    for (const struct pin_entry *e = pin_table_first(&p->table, a); e; e = e->next) {
        if (!e->told_ms || e->end_ms <= now || !ip_eq(&e->addr, a) || i++ < *pos)
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

static void renew(struct pins *p, struct pin_entry *e)
{
    uint16_t port[PORTS_MAX];
    size_t n;
    int error;

    n = decide_ports(p->ward->policy, e->name, clock_wall_s(), port, PORTS_MAX);
    if (!is_allowed(p, e) || (!pin_ports_are(e, port, n) && set_ports(e, port, n) < 0)) {
        e->held = 0; /* its end stands */
    } else {
        e->end_ms = now_ms(p) + HELD_S * UINT64_C(1000);
        error = tell(p, e);
        if (error != 0)
            complain(p, error);
    }
    pin_table_set_due(&p->table, e);
}

static void on_care(void *arg)
{
    struct pins *p = arg;
    uint64_t now = now_ms(p);

    for (int i = 0; i < CARE_TURN && p->table.n > 0 && p->table.heap[0]->due_ms <= now;
         i++) {
        struct pin_entry *e = p->table.heap[0];

        if (e->held)
            renew(p, e);
        else
            entry_end(p, e);
    }
    arm(p);
}

/* -- another policy ------------------------------------------------------------------ */

/* What the kernel has is not known until it is told: its sets may be new. */
static void reload_ports(const struct pins *p, struct pin_entry *e)
{
    uint16_t port[PORTS_MAX];
    size_t n = 0;

    e->told_ms = 0;
    e->is_dead = !is_allowed(p, e);
    if (!e->is_dead)
        n = decide_ports(p->ward->policy, e->name, clock_wall_s(), port, PORTS_MAX);
    if (set_ports(e, port, n) < 0) {
        e->is_dead = true;
        (void)set_ports(e, NULL, 0); /* needs none */
    }
}

/* All that live, not only new ones: after another program's flush the keeper makes the
 * kernel's sets anew and gives the policy again. */
static int reload_tell(struct pins *p, struct pin_entry *e)
{
    return e->end_ms > now_ms(p) ? tell(p, e) : take_out_old(p, e);
}

void pins_reload(struct pins *p)
{
    for (size_t i = 0; i < p->table.n; i++)
        reload_ports(p, p->table.heap[i]);
    for (size_t i = 0; i < p->table.n; i++) {
        int error = reload_tell(p, p->table.heap[i]);

        if (error != 0)
            complain(p, error);
    }
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
    pin_table_done(&p->table);
    mem_free(p);
}
