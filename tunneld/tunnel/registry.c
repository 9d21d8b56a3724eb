/* SPDX-License-Identifier: MIT */
/*
 * Theory. A sandbox is here while its agent is linked and for known_ms after, with the dials
 * that wait for it. A dial waits for one of: the link, the port, news of the port after a
 * refusal. Whatever may end the waits of a sandbox defers each waiting dial's job, which tries
 * again; so a dial's user is never called inside somebody else's event, and may cancel any
 * other dial. Each dial has its own deadline.
 */
#include "tunneld/tunnel/registry.h"

#include <stdio.h>
#include <string.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "tunneld/tunnel/session.h"

enum {
    TABLE_FIRST = 64,
    SWEEP_MS = 10000
};

struct sandbox {
    struct sandbox *next;    /* in its slot */
    struct session *session; /* borrowed until registry_detach(); NULL: not linked */
    struct dial *waiting;
    uint64_t left_ms; /* when the link ended */
    char id[HOST_ID_MAX + 1];
};

struct registry {
    struct loop *loop;   /* borrowed */
    struct config *conf; /* a reference */
    struct sandbox **slot;
    size_t n_slots, n;
    uint64_t seed;
    unsigned n_links;
    struct loop_timer sweep;
};

struct dial {
    struct registry *r;
    struct dial *next, **prev; /* of the sandbox's waiting; prev NULL: in no list */
    struct sandbox *sandbox;
    struct dial_want want; /* .id is not kept: the sandbox has it */
    bool waits_refused;    /* not before news of the port, or REFUSAL_RETRY_MS */
    uint64_t retry_ms;
    dial_fn *fn;
    void *arg;
    struct loop_timer timer;
    struct loop_job job;
};

/* -- sandboxes ------------------------------------------------------------------------------- */

/* FNV-1a, seeded: where ports are public by default, anybody chooses the ids of holds. */
static size_t hash(const struct registry *r, const char *id)
{
    uint64_t h = 0xcbf29ce484222325u ^ r->seed;

    for (; *id; id++)
        h = (h ^ (uint8_t)*id) * 0x100000001b3u;
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    return (size_t)(h ^ h >> 33);
}

static struct sandbox *find(const struct registry *r, const char *id)
{
    struct sandbox *b = r->slot[hash(r, id) & (r->n_slots - 1)];

    while (b && strcmp(b->id, id) != 0)
        b = b->next;
    return b;
}

static int grow(struct registry *r)
{
    size_t n_slots = r->n_slots ? r->n_slots * 2 : TABLE_FIRST;
    struct sandbox **slot = mem_zalloc(n_slots, sizeof(struct sandbox *));

    if (!slot)
        return -1;
    for (size_t i = 0; i < r->n_slots; i++) {
        struct sandbox *next;

        for (struct sandbox *b = r->slot[i]; b; b = next) {
            size_t to = hash(r, b->id) & (n_slots - 1);

            next = b->next;
            b->next = slot[to];
            slot[to] = b;
        }
    }
    mem_free(r->slot);
    r->slot = slot;
    r->n_slots = n_slots;
    return 0;
}

static struct sandbox *get(struct registry *r, const char *id)
{
    struct sandbox *b = find(r, id), **at;

    if (b || (r->n >= r->n_slots && grow(r) < 0))
        return b;
    b = mem_zalloc(1, sizeof *b);
    if (!b)
        return NULL;
    (void)snprintf(b->id, sizeof b->id, "%s", id); /* ids have this bound */
    at = &r->slot[hash(r, id) & (r->n_slots - 1)];
    b->next = *at;
    *at = b;
    r->n++;
    return b;
}

/* Linked, or lately so: worth remembering. */
static bool is_known(const struct registry *r, const struct sandbox *b)
{
    return b->session ||
           (b->left_ms > 0 &&
            loop_now(r->loop) < b->left_ms + (uint64_t)r->conf->limits.known_ms);
}

static void on_sweep(void *arg)
{
    struct registry *r = arg;

    for (size_t i = 0; i < r->n_slots; i++) {
        struct sandbox **at = &r->slot[i], *b;

        while ((b = *at)) {
            if (b->waiting || is_known(r, b)) {
                at = &b->next;
                continue;
            }
            *at = b->next;
            mem_free(b);
            r->n--;
        }
    }
    loop_timer_start(&r->sweep, SWEEP_MS);
}

struct registry *registry_new(struct loop *l, const struct config *conf, struct err *e)
{
    struct registry *r = mem_zalloc(1, sizeof *r);

    if (!r || grow(r) < 0) {
        mem_free(r);
        (void)err_set(e, ERR_NOMEM, "registry");
        return NULL;
    }
    r->loop = l;
    crypto_random(&r->seed, sizeof r->seed);
    r->conf = config_ref(conf);
    loop_timer_init(&r->sweep, l, on_sweep, r);
    loop_timer_start(&r->sweep, SWEEP_MS);
    return r;
}

void registry_free(struct registry *r)
{
    if (!r)
        return;
    loop_timer_stop(&r->sweep);
    for (size_t i = 0; i < r->n_slots; i++) {
        struct sandbox *next;

        for (struct sandbox *b = r->slot[i]; b; b = next) {
            next = b->next;
            while (b->waiting) {
                struct dial *d = b->waiting;

                dial_cancel(&d);
            }
            mem_free(b);
        }
    }
    mem_free(r->slot);
    config_unref(r->conf);
    mem_free(r);
}

void registry_set_config(struct registry *r, const struct config *conf)
{
    config_unref(r->conf);
    r->conf = config_ref(conf);
}

/* -- sessions -------------------------------------------------------------------------------- */

static void wake(struct sandbox *b)
{
    for (struct dial *d = b->waiting; d; d = d->next) {
        d->waits_refused = false;
        loop_job_defer(&d->job);
    }
}

int registry_attach(struct registry *r, struct session *s)
{
    struct sandbox *b = get(r, session_id(s));
    struct session *old;

    if (!b)
        return -1;
    old = b->session;
    b->session = s;
    if (old)
        session_replaced(old, s);
    else
        r->n_links++;
    wake(b);
    return 0;
}

void registry_detach(struct registry *r, struct session *s)
{
    struct sandbox *b = find(r, session_id(s));

    if (!b || b->session != s)
        return;
    b->session = NULL;
    b->left_ms = loop_now(r->loop);
    r->n_links--;
}

void registry_changed(struct registry *r, struct session *s)
{
    struct sandbox *b = find(r, session_id(s));

    if (b && b->session == s)
        wake(b);
}

void registry_each(struct registry *r, void (*fn)(struct session *s, void *arg),
                   void *arg)
{
    for (size_t i = 0; i < r->n_slots; i++)
        for (struct sandbox *b = r->slot[i]; b; b = b->next)
            if (b->session)
                fn(b->session, arg);
}

unsigned registry_links(const struct registry *r)
{
    return r->n_links;
}

/* -- what the edge asks ------------------------------------------------------------------------ */

void registry_look(struct registry *r, const char *id, uint16_t port,
                   struct registry_port *ret)
{
    const struct sandbox *b = find(r, id);
    const struct publish_port *p;

    memset(ret, 0, sizeof *ret);
    /* Nobody said otherwise yet, so default_visibility holds. */
    ret->is_public = r->conf->default_public;
    if (!b || !b->session)
        return;
    ret->is_linked = true;
    (void)snprintf(ret->tenant, sizeof ret->tenant, "%s", session_tenant(b->session));
    p = session_port(b->session, port);
    if (!p)
        return;
    ret->is_published = true;
    ret->host_mode = p->host_mode;
    if (p->visibility != CONTROL_DEFAULT)
        ret->is_public = p->visibility == CONTROL_PUBLIC;
}

bool registry_publishes(struct registry *r, const char *id, uint16_t port)
{
    const struct sandbox *b = find(r, id);

    return b && b->session && session_port(b->session, port);
}

/* -- dial --------------------------------------------------------------------------------------- */

enum attempt {
    ATTEMPT_DONE,
    ATTEMPT_WAIT
};

/* One look at how things are. DONE with the result, or WAIT with what to say when the time is
 * over. */
static enum attempt attempt(const struct sandbox *b, const struct dial_want *w,
                            bool waits_refused, struct mux_stream **ret_stream,
                            enum dial_result *ret)
{
    enum mux_result why = MUX_OK;

    /* Until there is a store, every well-formed id counts as known: after a restart
     * of ours none was linked yet, and their agents are on the way. */
    *ret = DIAL_OFFLINE;
    if (!b->session)
        return ATTEMPT_WAIT;
    *ret = DIAL_PORT_CLOSED;
    if (session_excludes(b->session, w->open.port))
        return ATTEMPT_DONE;
    if (waits_refused || !session_port(b->session, w->open.port))
        return ATTEMPT_WAIT;
    *ret_stream = session_open(b->session, &w->open, w->ops, w->user, &why);
    if (*ret_stream) {
        *ret = DIAL_OK;
        return ATTEMPT_DONE;
    }
    /* An agent that goes away takes no new streams; its next link will. */
    *ret = why == MUX_E_CLOSED ? DIAL_OFFLINE : DIAL_LIMIT;
    return why == MUX_E_CLOSED ? ATTEMPT_WAIT : ATTEMPT_DONE;
}

static void unlist(struct dial *d)
{
    if (!d->prev)
        return;
    *d->prev = d->next;
    if (d->next)
        d->next->prev = d->prev;
    d->prev = NULL;
    metric_add(METRIC_HOLDS, -1);
    /* When its last wait has ended, a sandbox that was only waited for is forgotten by the
     * sweep. */
}

void dial_cancel(struct dial **take)
{
    struct dial *d = *take;

    *take = NULL;
    if (!d)
        return;
    unlist(d);
    loop_timer_stop(&d->timer);
    loop_job_cancel(&d->job);
    mem_free(d);
}

static void set_timer(struct dial *d)
{
    uint64_t now = loop_now(d->r->loop), due = d->want.until_ms;

    if (d->waits_refused && d->retry_ms < due)
        due = d->retry_ms;
    loop_timer_start(&d->timer, due > now ? due - now : 0);
}

static void on_try(void *arg)
{
    struct dial *d = arg;
    struct mux_stream *s = NULL;
    enum dial_result res;
    dial_fn *fn = d->fn;
    void *fn_arg = d->arg;

    if (d->waits_refused && loop_now(d->r->loop) >= d->retry_ms)
        d->waits_refused = false;
    if (attempt(d->sandbox, &d->want, d->waits_refused, &s, &res) == ATTEMPT_WAIT &&
        loop_now(d->r->loop) < d->want.until_ms) {
        set_timer(d);
        return;
    }
    dial_cancel(&d);
    fn(fn_arg, res, s);
}

/* Takes a place among the process's holds; false: all are taken. */
static bool hold_get(const struct registry *r)
{
    if (atomic_fetch_add(&metrics_value[METRIC_HOLDS], 1) < r->conf->limits.holds)
        return true;
    metric_add(METRIC_HOLDS, -1);
    return false;
}

static bool hold_is_free(const struct registry *r)
{
    return atomic_load(&metrics_value[METRIC_HOLDS]) < r->conf->limits.holds;
}

static struct dial *dial_new(struct registry *r, struct sandbox *b,
                             const struct dial_want *w)
{
    struct dial *d = mem_zalloc(1, sizeof *d);

    if (!d || !hold_get(r)) {
        mem_free(d);
        return NULL;
    }
    d->r = r;
    d->sandbox = b;
    d->want = *w;
    d->want.id = b->id;
    d->waits_refused = w->after_refusal;
    d->retry_ms = loop_now(r->loop) + REFUSAL_RETRY_MS;
    loop_timer_init(&d->timer, r->loop, on_try, d);
    loop_job_init(&d->job, r->loop, on_try, d);
    d->next = b->waiting;
    d->prev = &b->waiting;
    if (d->next)
        d->next->prev = &d->next;
    b->waiting = d;
    return d;
}

struct dial *dial_start(struct registry *r, const struct dial_want *w, dial_fn *fn,
                        void *arg, struct mux_stream **ret_stream,
                        enum dial_result *ret_why)
{
    struct sandbox *b = find(r, w->id);
    struct mux_stream *s = NULL;
    enum dial_result res;
    struct dial *d;

    *ret_stream = NULL;
    if (!b && loop_now(r->loop) >= w->until_ms) {
        *ret_why = DIAL_OFFLINE;
        return NULL;
    }
    /* An unknown id costs memory only while it has a hold, and those are counted. */
    if (!b && (!hold_is_free(r) || !(b = get(r, w->id)))) {
        *ret_why = DIAL_LIMIT;
        return NULL;
    }
    if (attempt(b, w, w->after_refusal, &s, &res) == ATTEMPT_DONE ||
        loop_now(r->loop) >= w->until_ms) {
        *ret_stream = s;
        *ret_why = res;
        return NULL;
    }
    d = dial_new(r, b, w);
    if (!d) {
        *ret_why = DIAL_LIMIT;
        return NULL;
    }
    d->fn = fn;
    d->arg = arg;
    set_timer(d);
    return d;
}
