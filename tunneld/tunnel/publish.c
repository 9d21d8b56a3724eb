/* SPDX-License-Identifier: MIT */
#include "tunneld/tunnel/publish.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"

static void port_done(struct publish_port *e, struct tunnel *t, const char *id)
{
    if (e->name)
        directory_release(t->directory, e->name, id);
    mem_free(e->name);
    e->name = NULL;
}

void publish_done(struct publish *p, struct tunnel *t, const char *id)
{
    for (unsigned i = 0; i < p->n; i++)
        port_done(&p->port[i], t, id);
    mem_free(p->port);
    *p = (struct publish){0};
}

/* Where the port is, or belongs. */
static unsigned place(const struct publish *p, uint16_t port)
{
    unsigned lo = 0, hi = p->n;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (p->port[mid].port < port)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct publish_port *find(const struct publish *p, uint16_t port)
{
    unsigned i = place(p, port);

    return i < p->n && p->port[i].port == port ? &p->port[i] : NULL;
}

const struct publish_port *publish_find(const struct publish *p, uint16_t port)
{
    return find(p, port);
}

bool publish_remove(struct publish *p, struct tunnel *t, const char *id, uint16_t port)
{
    struct publish_port *e = find(p, port);

    if (!e)
        return false;
    port_done(e, t, id);
    p->n--;
    memmove(e, e + 1, (size_t)(&p->port[p->n] - e) * sizeof *e);
    return true;
}

/* A place for the port, new or not; NULL on no memory. */
static struct publish_port *add(struct publish *p, uint16_t port)
{
    unsigned i = place(p, port);

    if (i < p->n && p->port[i].port == port)
        return &p->port[i];
    if (p->n == p->cap) {
        unsigned cap = p->cap ? p->cap * 2 : 4;
        struct publish_port *a = mem_resize(p->port, cap * sizeof *a);

        if (!a)
            return NULL;
        p->port = a;
        p->cap = cap;
    }
    memmove(&p->port[i + 1], &p->port[i], (p->n - i) * sizeof p->port[0]);
    p->port[i] = (struct publish_port){.port = port};
    p->n++;
    return &p->port[i];
}

/* -- rules -------------------------------------------------------------------------------- */

PRINTF_LIKE(2, 3) static int refuse(struct control_msg *answer, const char *fmt, ...)
{
    va_list ap;

    answer->u.url.is_refused = true;
    va_start(ap, fmt);
    (void)vsnprintf(answer->u.url.why, sizeof answer->u.url.why, fmt, ap);
    va_end(ap);
    return -1;
}

static bool is_reserved(const struct config *conf, const char *name)
{
    for (unsigned i = 0; i < conf->n_reserved; i++)
        if (strcmp(conf->reserved_names[i], name) == 0)
            return true;
    return false;
}

static bool token_has_name(const struct token *token, const char *name)
{
    for (unsigned i = 0; i < token->n_names; i++)
        if (strcmp(token->names[i], name) == 0)
            return true;
    return false;
}

static int check_name(struct tunnel *t, const struct token *token, const char *name,
                      struct control_msg *answer)
{
    if (!host_name_is_claimable(span_str(name)) || is_reserved(t->conf, name))
        return refuse(answer, "the name cannot be used: %s", name);
    if (!token_has_name(token, name))
        return refuse(answer, "the token does not allow the name %s", name);
    return 0;
}

static int check(const struct publish *p, struct tunnel *t, const struct token *token,
                 const struct control_msg *m, struct control_msg *answer)
{
    uint16_t port = m->u.port.port;

    if (!token_allows_port(token, port))
        return refuse(answer, "the token does not allow port %u", port);
    if (m->u.port.visibility == CONTROL_PUBLIC && !token->may_public &&
        !t->conf->default_public)
        return refuse(answer, "the token does not allow public ports");
    if (m->u.port.name[0] && check_name(t, token, m->u.port.name, answer) < 0)
        return -1;
    if (!find(p, port) && p->n >= CONTROL_PORTS_MAX)
        return refuse(answer, "more than %u ports are published", CONTROL_PORTS_MAX);
    return 0;
}

/* -- URLs ----------------------------------------------------------------------------------- */

static void url_print(const struct config *conf, const char *label, const char *id,
                      char *ret)
{
    char port[8] = "";

    if (conf->public_port)
        (void)snprintf(port, sizeof port, ":%u", conf->public_port); /* fits */
    /* 8 + 63 + 1 + 40 + 1 + 253 + 6 + 1 could be over CONTROL_URL_MAX only for a domain that
     * no label fits in front of (RFC 1035 2.3.4); then the text is cut. */
    (void)snprintf(ret, CONTROL_URL_MAX + 1, "%s://%s%s%s.%s%s/", conf->public_scheme,
                   label, id[0] ? "-" : "", id, conf->domain, port);
}

void publish_url_form(const struct config *conf, const char *id, char *ret)
{
    url_print(conf, "{port}", id, ret);
}

static void url_of(const struct config *conf, const struct publish_port *e,
                   const char *id, char *ret)
{
    char label[8];

    (void)snprintf(label, sizeof label, "%u", e->port); /* fits */
    if (e->name)
        url_print(conf, e->name, "", ret);
    else
        url_print(conf, label, id, ret);
}

/* -- PORT ------------------------------------------------------------------------------------ */

/* Claim the new name and let go of the old one. */
static int rename_port(struct publish_port *e, struct tunnel *t,
                       const struct token *token, const char *name,
                       struct control_msg *answer)
{
    char *copy = NULL;

    if (strcmp(e->name ? e->name : "", name) == 0)
        return 0;
    if (name[0]) {
        size_t n = strlen(name) + 1;

        copy = mem_alloc(n);
        if (!copy)
            return refuse(answer, "the server has no memory");
        memcpy(copy, name, n);
        if (directory_claim(t->directory, name, token->sub, token->tenant, e->port) !=
            DIRECTORY_OK) {
            mem_free(copy);
            return refuse(answer, "the name is another sandbox's: %s", name);
        }
    }
    port_done(e, t, token->sub);
    e->name = copy;
    return 0;
}

void publish_put(struct publish *p, struct tunnel *t, const struct token *token,
                 const struct control_msg *m, struct control_msg *answer)
{
    struct publish_port *e;
    bool is_new = !find(p, m->u.port.port);

    memset(answer, 0, sizeof *answer);
    answer->type = CONTROL_URL;
    answer->u.url.port = m->u.port.port;
    if (check(p, t, token, m, answer) < 0)
        return;
    e = add(p, m->u.port.port);
    if (!e) {
        (void)refuse(answer, "the server has no memory");
        return;
    }
    if (rename_port(e, t, token, m->u.port.name, answer) < 0) {
        if (is_new)
            (void)publish_remove(p, t, token->sub, m->u.port.port);
        return;
    }
    e->visibility = m->u.port.visibility;
    e->host_mode = m->u.port.host_mode;
    answer->u.url.is_public =
        e->visibility == CONTROL_PUBLIC ||
        (e->visibility == CONTROL_DEFAULT && t->conf->default_public);
    url_of(t->conf, e, token->sub, answer->u.url.url);
}
