/* SPDX-License-Identifier: MIT */
#include "tunneld/config.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "common/secret.h"
#include "tunneld/config_value.h"

enum {
    CONFIG_FILE_MAX = 1048576
}; /* bytes */

/* What others see is `conf`; its life is counted here. */
struct config_box {
    atomic_uint refs;
    struct config conf;
};

static struct config_box *box_of(const struct config *c)
{
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): const is only the borrowers' view */
    return CONTAINER_OF((uintptr_t)c, struct config_box, conf);
}

static void box_free(struct config_box *box)
{
    struct config *c = &box->conf;
    unsigned i;

    for (i = 0; i < c->n_keys; i++)
        mem_free(c->key[i].file);
    mem_free(c->tls_cert);
    mem_free(c->tls_key);
    mem_free(c->state_dir);
    mem_free(c->reserved_names);
    mem_free(box);
}

struct config *config_ref(const struct config *c)
{
    struct config_box *box = box_of(c);

    atomic_fetch_add_explicit(&box->refs, 1, memory_order_relaxed);
    return &box->conf;
}

void config_unref(struct config *c)
{
    if (c == NULL)
        return;
    if (atomic_fetch_sub_explicit(&box_of(c)->refs, 1, memory_order_acq_rel) == 1)
        box_free(box_of(c));
}

/* -- loading --------------------------------------------------------------------------- */

static struct config_box *box_new(void)
{
    struct config_box *box = mem_zalloc(1, sizeof(*box));

    if (box == NULL)
        return NULL;
    atomic_init(&box->refs, 1);
    box->conf.log_level = LOG_INFO;
#define CONF_LIMIT(name, default_, min, max, unit, help) box->conf.limits.name = default_;
#include "tunneld/config.def"
#undef CONF_LIMIT
    return box;
}

static unsigned count_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n > 0 ? (unsigned)n : 1;
}

/* The URLs we print: without `public_url`, those of the first TLS listener. */
static void derive_public(struct config *c)
{
    bool is_tls;
    unsigned i;

    if (c->has_public_url)
        return;
    for (i = 0; i < c->n_listen && !c->listen[i].has_tls; i++)
        ;
    is_tls = i < c->n_listen || c->n_listen == 0;
    (void)snprintf(c->public_scheme, sizeof(c->public_scheme), "%s",
                   is_tls ? "https" : "http");
    c->public_port = c->n_listen > 0 ? sock_port(&c->listen[is_tls ? i : 0].addr) : 0;
    if (c->public_port == (is_tls ? 443 : 80))
        c->public_port = 0;
}

static void settle(struct sock_addr *a, const struct sock_addr *bound)
{
    if (a->len > 0 && a->u.sa.sa_family != AF_UNIX && sock_port(a) == 0)
        *a = *bound;
}

void config_settle(struct config *c, const struct config_bound *bound)
{
    unsigned i;

    for (i = 0; i < c->n_listen; i++)
        settle(&c->listen[i].addr, &bound->listen[i]);
    for (i = 0; i < c->n_redirect; i++)
        settle(&c->redirect_listen[i], &bound->redirect[i]);
    settle(&c->admin_listen, &bound->admin);
    derive_public(c);
}

static void set_defaults(struct config_reader *r)
{
    struct config *c = r->conf;

    if (c->workers == 0)
        c->workers = count_cores();
    if (c->control_host[0] == '\0')
        memcpy(c->control_host, c->domain, sizeof(c->domain));
    if (c->state_dir == NULL) {
        c->state_dir = mem_alloc(sizeof("/var/lib/tunneld"));
        if (c->state_dir == NULL)
            config_fault(r, "", "no memory");
        else
            memcpy(c->state_dir, "/var/lib/tunneld", sizeof("/var/lib/tunneld"));
    }
    derive_public(c);
}

/* -- what must fit together ------------------------------------------------------------ */

/* Two sockets cannot have one address; port 0 is another each time. */
static void check_same(struct config_reader *r, const struct sock_addr *a,
                       const struct sock_addr *b, const char *path)
{
    char text_a[SOCK_TEXT_MAX];
    char text_b[SOCK_TEXT_MAX];

    if (a->len == 0 || b->len == 0 || (a->u.sa.sa_family != AF_UNIX && sock_port(a) == 0))
        return;
    if (strcmp(sock_print(a, text_a), sock_print(b, text_b)) == 0)
        config_fault(r, path, "%s is listened on already", text_a);
}

static void check_addresses(struct config_reader *r)
{
    const struct config *c = r->conf;
    const struct sock_addr *all[2 * CONFIG_LISTEN_MAX + 1];
    char path[48];
    unsigned n = 0;
    unsigned i, j;

    for (i = 0; i < c->n_listen; i++)
        all[n++] = &c->listen[i].addr;
    for (i = 0; i < c->n_redirect; i++)
        all[n++] = &c->redirect_listen[i];
    all[n++] = &c->admin_listen;
    for (i = 1; i < n; i++) {
        if (i < c->n_listen)
            (void)snprintf(path, sizeof(path), "listen[%u]", i);
        else if (i < n - 1)
            (void)snprintf(path, sizeof(path), "redirect_listen[%u]", i - c->n_listen);
        else
            (void)snprintf(path, sizeof(path), "admin_listen");
        for (j = 0; j < i; j++)
            check_same(r, all[i], all[j], path);
    }
}

static void check_listeners(struct config_reader *r)
{
    const struct config *c = r->conf;
    bool needs_cert = false;
    char path[32];
    unsigned i;

    for (i = 0; i < c->n_listen; i++) {
        const struct config_listen *l = &c->listen[i];

        needs_cert = needs_cert || l->has_tls;
        if ((l->has_tls && !l->has_proxy_protocol) || c->n_trusted > 0)
            continue;
        (void)snprintf(path, sizeof(path), "listen[%u]", i);
        config_fault(
            r, path,
            "%s is for trusted proxies only, and \"trusted_proxies\" names none: "
            "nobody could connect",
            l->has_tls ? "a listener with PROXY protocol" : "a listener without TLS");
    }
    if (needs_cert && (c->tls_cert == NULL || c->tls_key == NULL))
        config_fault(r, "",
                     "a listener with TLS needs \"tls\" with \"cert\" and \"key\"");
}

/* The control host may be anywhere but where a sandbox would be. */
static void check_control_host(struct config_reader *r)
{
    const struct config *c = r->conf;
    struct host_route route;
    struct host h = {0};

    if (c->domain[0] == '\0' || c->control_host[0] == '\0')
        return;
    memcpy(h.name, c->control_host, sizeof(h.name));
    host_route(&h, c->domain, c->domain, &route);
    if (route.kind == HOST_PREVIEW || route.kind == HOST_LINK || route.kind == HOST_BAD)
        config_fault(r, "control_host", "is where a sandbox's previews would be");
}

/* -- entry ----------------------------------------------------------------------------- */

/* secret_read() has put the path before its message; the place has it as well. */
static void fault_unread(struct config_reader *r, const struct err *e)
{
    size_t n = strlen(r->file);
    bool has_path = strncmp(e->msg, r->file, n) == 0 && strncmp(e->msg + n, ": ", 2) == 0;

    config_fault(r, "", "%s", has_path ? e->msg + n + 2 : e->msg);
}

static void load_text(struct config_reader *r)
{
    struct err e = {0};
    struct json *root = json_parse(r->text, CONFIG_FILE_MAX, &e);

    if (root == NULL) {
        config_fault(r, "", "%s", e.msg);
        return;
    }
    config_read(r, root);
    json_free(root);
    set_defaults(r);
    check_addresses(r);
    check_listeners(r);
    check_control_host(r);
}

struct config *config_load(const char *path, config_fault_fn *fault, void *arg)
{
    AUTO(secret_done)
    struct secret text = {0};
    struct config_reader r = {.file = path, .fault = fault, .arg = arg};
    struct config_box *box = box_new();
    struct err e = {0};

    if (box == NULL) {
        config_fault(&r, "", "no memory");
        return NULL;
    }
    r.conf = &box->conf;
    if (secret_read(&text, path, CONFIG_FILE_MAX, &e) < 0) {
        fault_unread(&r, &e);
    } else {
        r.text = secret_span(&text);
        load_text(&r);
    }
    if (r.n_faults == 0)
        return &box->conf;
    box_free(box);
    return NULL;
}

bool config_trusts(const struct config *c, const struct sock_addr *a)
{
    unsigned i;

    for (i = 0; i < c->n_trusted; i++)
        if (sock_cidr_has(&c->trusted[i], a))
            return true;
    return false;
}

/* -- reload ---------------------------------------------------------------------------- */

static bool same_addr(const struct sock_addr *a, const struct sock_addr *b)
{
    char text_a[SOCK_TEXT_MAX];
    char text_b[SOCK_TEXT_MAX];

    if (a->len == 0 || b->len == 0)
        return a->len == b->len;
    return strcmp(sock_print(a, text_a), sock_print(b, text_b)) == 0;
}

static bool same_listeners(const struct config *a, const struct config *b)
{
    unsigned i;

    if (a->n_listen != b->n_listen)
        return false;
    for (i = 0; i < a->n_listen; i++)
        if (!same_addr(&a->listen[i].addr, &b->listen[i].addr) ||
            a->listen[i].has_tls != b->listen[i].has_tls ||
            a->listen[i].has_proxy_protocol != b->listen[i].has_proxy_protocol)
            return false;
    return true;
}

static bool same_redirects(const struct config *a, const struct config *b)
{
    unsigned i;

    if (a->n_redirect != b->n_redirect)
        return false;
    for (i = 0; i < a->n_redirect; i++)
        if (!same_addr(&a->redirect_listen[i], &b->redirect_listen[i]))
            return false;
    return true;
}

static bool same_reserved(const struct config *a, const struct config *b)
{
    size_t bytes = a->n_reserved * sizeof(*a->reserved_names);

    return a->n_reserved == b->n_reserved &&
           (bytes == 0 || memcmp(a->reserved_names, b->reserved_names, bytes) == 0);
}

const char *config_fixed_change(const struct config *old, const struct config *new)
{
    if (strcmp(old->domain, new->domain) != 0)
        return "domain";
    if (strcmp(old->control_host, new->control_host) != 0)
        return "control_host";
    if (!same_listeners(old, new))
        return "listen";
    if (old->has_public_url != new->has_public_url ||
        old->public_port != new->public_port ||
        strcmp(old->public_scheme, new->public_scheme) != 0)
        return "public_url";
    if (!same_redirects(old, new))
        return "redirect_listen";
    if (!same_addr(&old->admin_listen, &new->admin_listen))
        return "admin_listen";
    if (strcmp(old->state_dir, new->state_dir) != 0)
        return "state_dir";
    if (old->workers != new->workers)
        return "workers";
    if (old->default_public != new->default_public)
        return "default_visibility";
    return same_reserved(old, new) ? NULL : "reserved_names";
}
