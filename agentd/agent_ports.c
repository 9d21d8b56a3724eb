/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <unistd.h>

#include "agentd/agent_int.h"
#include "common/log.h"
#include "common/mem.h"

/* -- telling the server ---------------------------------------------------------------- */

static void send_port(struct agent *a, const struct published_port *p)
{
    struct control_msg m;
    char address[SOCK_TEXT_MAX];

    if (!a->uplink || !uplink_is_up(a->uplink))
        return; /* agent_ports_send_all() comes with the link */
    memset(&m, 0, sizeof m);
    m.type = CONTROL_PORT;
    m.u.port.port = p->port;
    m.u.port.visibility = p->visibility;
    m.u.port.host_mode = p->host_mode;
    memcpy(m.u.port.name, p->name, sizeof m.u.port.name);
    memcpy(m.u.port.process, p->holder.name, sizeof m.u.port.process);
    (void)sock_print(&p->listen, address);
    if (strlen(address) < sizeof m.u.port.address)
        memcpy(m.u.port.address, address, strlen(address) + 1);
    if (uplink_send(a->uplink, &m) < 0)
        log_warn("port.publish", "port=%u why=no-memory", p->port);
}

static void send_gone(struct agent *a, uint16_t port)
{
    struct control_msg m;

    if (!a->uplink || !uplink_is_up(a->uplink))
        return;
    memset(&m, 0, sizeof m);
    m.type = CONTROL_GONE;
    m.u.port.port = port;
    if (uplink_send(a->uplink, &m) < 0)
        log_warn("port.gone", "port=%u why=no-memory", port);
}

void agent_ports_send_all(struct agent *a)
{
    size_t i;

    for (i = 0; i < a->table.n; i++)
        send_port(a, a->table.at[i]);
}

/* -- the table -------------------------------------------------------------------------- */

/* What the options say about a port, whoever opened it. */
static void apply_options(const struct agent *a, struct published_port *p)
{
    const struct options_port *op = options_port(a->o, p->port);

    p->visibility = CONTROL_DEFAULT;
    p->host_mode = CONTROL_LOCALHOST;
    p->name[0] = '\0';
    if (!op)
        return;
    if (op->is_public)
        p->visibility = CONTROL_PUBLIC;
    p->host_mode = op->host_mode;
    if (op->name[0])
        memcpy(p->name, op->name, sizeof p->name);
}

static void drop(struct agent *a, struct published_port *p)
{
    uint16_t port = p->port;
    bool was_told = p->is_told;

    published_drop(&a->table, port);
    send_gone(a, port);
    if (was_told) {
        log_info("port.closed", "port=%u", port);
        events_port_closed(a->events, port);
    }
}

/* A person asked for more than the token allows. What he asked for is undone, so that the
 * port is again what the rules make of it. */
static void refused(struct agent *a, struct published_port *p)
{
    enum control_visibility visibility = p->visibility;
    char name[sizeof p->name];

    if (!p->is_asked || p->dial.u.sa.sa_family == AF_UNIX ||
        a->o->command == OPTIONS_HTTP)
        return;
    memcpy(name, p->name, sizeof name);
    apply_options(a, p);
    p->is_asked = false;
    if (!p->is_listening ||
        portrules_judge(&a->rules, p->port, &p->holder) != PORTRULES_PUBLISH)
        drop(a, p);
    else if (visibility != p->visibility || strcmp(name, p->name) != 0)
        send_port(a, p);
}

void agent_ports_url(struct agent *a, const struct control_msg *m)
{
    struct published_port *p = published_find(&a->table, m->u.url.port);
    bool is_news;

    if (!p)
        return; /* gone meanwhile */
    if (m->u.url.is_refused) {
        memcpy(p->why, m->u.url.why, sizeof p->why);
        p->url[0] = '\0';
        log_warn("port.refused", "port=%u why=%s", p->port, log_q(p->why));
        events_port_refused(a->events, p->port, p->why);
        agent_local_told(a, p);
        refused(a, p);
        return;
    }
    is_news = !p->is_told || strcmp(p->url, m->u.url.url) != 0 ||
              p->is_public != m->u.url.is_public;
    p->why[0] = '\0';
    memcpy(p->url, m->u.url.url, sizeof p->url);
    p->is_public = m->u.url.is_public;
    if (is_news) {
        p->is_told = true;
        log_info("port.opened", "port=%u process=%s public=%s", p->port,
                 log_q(p->holder.name), p->is_public ? "yes" : "no");
        events_port_opened(a->events, p);
    }
    agent_local_told(a, p);
}

static void publish(struct agent *a, const struct portwatch_port *seen,
                    const struct process *holder)
{
    struct published_port *p = published_find(&a->table, seen->port);
    bool is_new = p == NULL;

    if (p && p->dial.u.sa.sa_family == AF_UNIX)
        return; /* the configuration names a socket for this port */
    if (!p)
        p = published_add(&a->table, seen->port);
    if (!p) {
        log_warn("port.limit", "port=%u limit=%d", seen->port, CONTROL_PORTS_MAX);
        return;
    }
    p->is_listening = true;
    p->listen = seen->listen;
    p->dial = seen->dial;
    p->holder = *holder;
    if (is_new)
        apply_options(a, p);
    send_port(a, p);
}

struct published_port *agent_ports_ask(struct agent *a, uint16_t port, const char *name,
                                       bool is_public, struct err *e)
{
    struct published_port *p;
    struct portwatch_port *seen = NULL;
    size_t n = 0, i;

    if (!portrules_may_name(&a->rules, port)) {
        (void)err_set(e, ERR_DENIED, "port %u is excluded", port);
        return NULL;
    }
    p = published_find(&a->table, port);
    if (!p) {
        p = published_add(&a->table, port);
        if (!p) {
            (void)err_set(e, ERR_LIMIT, "%d ports are published already",
                          CONTROL_PORTS_MAX);
            return NULL;
        }
        /* One that the rules had left alone is listening perhaps. */
        if (portwatch_list(a->ns, &seen, &n, NULL) == 0) {
            for (i = 0; i < n; i++) {
                if (seen[i].port != port)
                    continue;
                p->is_listening = true;
                p->listen = seen[i].listen;
                p->dial = seen[i].dial;
                process_lookup(&seen[i].inode, 1, &p->holder);
            }
            mem_free(seen);
        }
    }
    p->is_asked = true;
    apply_options(a, p); /* each request says anew what it wants */
    if (is_public)
        p->visibility = CONTROL_PUBLIC;
    if (name[0])
        memcpy(p->name, name, strlen(name) + 1); /* a label fits */
    send_port(a, p);
    return p;
}

/* -- what the watch sees ------------------------------------------------------------------ */

static bool is_wanted(const struct agent *a, uint16_t port)
{
    const struct published_port *p = published_find(&a->table, port);

    if (p && p->is_asked)
        return true;
    if (a->o->command == OPTIONS_HTTP)
        return false;
    return portrules_judge(&a->rules, port, NULL) == PORTRULES_PUBLISH;
}

static void on_opened(void *owner, const struct portwatch_port *seen, size_t n)
{
    const struct portwatch_port *wanted[PORTWATCH_BATCH];
    struct process holder[PORTWATCH_BATCH];
    uint64_t inode[PORTWATCH_BATCH];
    const struct published_port *p;
    enum portrules_verdict v;
    struct agent *a = owner;
    size_t i, count = 0;

    /* Ask who holds the socket only where the answer can matter: it costs a walk over all
     * descriptors of the machine. */
    for (i = 0; i < n; i++) {
        if (!is_wanted(a, seen[i].port)) {
            log_debug("port.left", "port=%u", seen[i].port);
            continue;
        }
        inode[count] = seen[i].inode;
        wanted[count++] = &seen[i];
    }
    if (count == 0)
        return;
    process_lookup(inode, count, holder);
    for (i = 0; i < count; i++) {
        p = published_find(&a->table, wanted[i]->port);
        v = portrules_judge(&a->rules, wanted[i]->port, &holder[i]);
        if (v == PORTRULES_PUBLISH || (p && p->is_asked))
            publish(a, wanted[i], &holder[i]);
        else
            log_info("port.left", "port=%u process=%s why=%s", wanted[i]->port,
                     log_q(holder[i].name), log_q(portrules_why(v)));
    }
}

static void on_closed(void *owner, uint16_t port)
{
    struct agent *a = owner;
    struct published_port *p = published_find(&a->table, port);

    if (!p || p->dial.u.sa.sa_family == AF_UNIX)
        return;
    if (!p->is_asked) {
        drop(a, p);
        return;
    }
    /* Published by name: stays, and the next program that listens is found again. */
    p->is_listening = false;
    memset(&p->holder, 0, sizeof p->holder);
}

static const struct portwatch_ops watch_ops = {on_opened, on_closed};

/* -- rules and start ---------------------------------------------------------------------- */

void agent_ports_rules(struct agent *a)
{
    memset(&a->rules, 0, sizeof a->rules);
    a->rules.has_only = a->o->has_ports;
    a->rules.only = a->o->ports;
    a->rules.exclude = a->o->exclude;
    a->rules.own_pid = getpid();
    portrules_ephemeral(&a->rules, netns_sysctl(a->ns, "ipv4/ip_local_port_range", NULL));
}

/* Unix sockets of the configuration are published by being named there. */
static int ask_sockets(struct agent *a, struct err *e)
{
    struct published_port *p;
    unsigned i;
    size_t n;

    for (i = 0; i < a->o->n_ports; i++) {
        const struct options_port *op = &a->o->port[i];
        if (!op->socket || !portrules_may_name(&a->rules, op->port))
            continue;
        p = published_add(&a->table, op->port);
        if (!p)
            return err_set(e, ERR_NOMEM, "no memory for port %u", op->port);
        p->is_asked = p->is_listening = true;
        n = strlen(op->socket) + 1; /* options_file checked that it fits */
        memset(&p->dial, 0, sizeof p->dial);
        p->dial.u.un.sun_family = AF_UNIX;
        memcpy(p->dial.u.un.sun_path, op->socket, n);
        p->dial.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        p->listen = p->dial;
        apply_options(a, p);
        send_port(a, p);
    }
    return 0;
}

int agent_ports_start(struct agent *a, struct err *e)
{
    struct err local;

    agent_ports_rules(a);
    portrules_never(&a->rules, &a->excluded);
    if (a->o->command == OPTIONS_HTTP) {
        if (!agent_ports_ask(a, a->o->http_port, a->o->http_name, a->o->http_public, e))
            return -1;
    } else if (ask_sockets(a, e) < 0) {
        return -1;
    }
    a->watch = portwatch_new(a->loop, a->ns, &watch_ops, a, &local);
    if (a->watch)
        return 0;
    if (a->o->command == OPTIONS_HTTP) {
        /* The port is known; only its exact address is not. */
        log_warn("portwatch.absent", "why=%s", log_e(&local));
        return 0;
    }
    if (e)
        *e = local;
    return -1;
}

void agent_ports_rejudge(struct agent *a)
{
    struct portwatch_port *seen = NULL;
    struct published_port *p;
    struct err e = {0};
    size_t n = 0, i;

    agent_ports_rules(a);
    for (i = a->table.n; i-- > 0;) {
        p = a->table.at[i];
        if (port_list_has(&a->rules.exclude, p->port) ||
            (!p->is_asked &&
             portrules_judge(&a->rules, p->port, &p->holder) != PORTRULES_PUBLISH)) {
            drop(a, p);
            continue;
        }
        if (!p->is_asked || p->dial.u.sa.sa_family == AF_UNIX)
            apply_options(a, p);
        send_port(a, p);
    }
    if (a->o->command == OPTIONS_HTTP)
        return;
    if (ask_sockets(a, &e) < 0 || portwatch_list(a->ns, &seen, &n, &e) < 0) {
        log_warn("reload.ports", "why=%s", log_e(&e));
        return;
    }
    for (i = 0; i < n; i += PORTWATCH_BATCH)
        on_opened(a, seen + i, n - i < PORTWATCH_BATCH ? n - i : PORTWATCH_BATCH);
    mem_free(seen);
}
