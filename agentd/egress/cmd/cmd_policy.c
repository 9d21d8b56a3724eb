/* SPDX-License-Identifier: MIT */
/* `agentd egress check FILE` and `agentd egress explain --policy FILE TARGET...`. */
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/cmd/cmd_options.h"
#include "agentd/egress/policy/decision.h"
#include "agentd/egress/tell.h"
#include "agentd/link/proxy.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"

int cmd_check(int argc, char **argv)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct policy *p;
    int rc;

    if (argc != 2 || (argv[1][0] == '-' && argv[1][1])) {
        tell(argv[0], "takes one argument, the policy's file or a preset's name");
        return EXIT_USAGE;
    }
    p = tell_policy_load(argv[0], argv[1]);
    if (!p)
        return EXIT_USAGE;
    rc = policy_show(p, &text);
    policy_unref(p);
    if (rc < 0) {
        tell(argv[0], "no memory");
        return EXIT_FAIL;
    }
    return fwrite(text.p, 1, text.len, stdout) == text.len && fflush(stdout) == 0
               ? EXIT_DONE
               : EXIT_FAIL;
}

/* -- targets ------------------------------------------------------------------------- */

struct explain_target {
    struct target t;
    struct host host;
    char text[HOST_MAX + 24];
};

static const struct {
    const char *name;
    uint16_t port;
} schemes[] = {{"http", 80}, {"https", 443}, {"ws", 80}, {"wss", 443}};

/* "https://user@host:port/path" to "host:port" and the scheme's port. */
static int take_url(struct span *s, uint16_t *ret_port, struct err *e)
{
    const uint8_t *mark = s->len ? memmem(s->p, s->len, "://", 3) : NULL;
    struct span scheme;
    size_t end = 0;

    if (!mark)
        return 0;
    scheme = span_of(s->p, (size_t)(mark - s->p));
    *s = span_skip(*s, scheme.len + 3);
    while (end < s->len && !strchr("/?#", s->p[end]))
        end++;
    s->len = end;
    mark = s->len ? memrchr(s->p, '@', s->len) : NULL;
    if (mark)
        *s = span_skip(*s, (size_t)(mark - s->p) + 1);
    for (size_t i = 0; i < COUNT_OF(schemes); i++)
        if (span_is(scheme, schemes[i].name)) {
            *ret_port = schemes[i].port;
            return 0;
        }
    return err_set(e, ERR_CONFIG, "the scheme is none of http, https, ws, wss");
}

static int take_protocol(struct span *s, uint8_t *ret_protocol, struct err *e)
{
    const uint8_t *slash = s->len ? memrchr(s->p, '/', s->len) : NULL;
    struct span word;

    *ret_protocol = IPPROTO_TCP;
    if (!slash)
        return 0;
    word = span_skip(*s, (size_t)(slash - s->p) + 1);
    s->len = (size_t)(slash - s->p);
    if (span_is(word, "udp"))
        *ret_protocol = IPPROTO_UDP;
    else if (!span_is(word, "tcp"))
        return err_set(e, ERR_CONFIG, "what follows the \"/\" is neither tcp nor udp");
    return 0;
}

static int target_parse(const char *text, struct explain_target *ret, struct err *e)
{
    struct span s = span_str(text);
    uint16_t port = 443;
    char at[PROXY_TEXT_MAX], name[HOST_MAX + 1];
    bool is_url = strstr(text, "://") != NULL;

    memset(ret, 0, sizeof *ret);
    ret->t.protocol = IPPROTO_TCP;
    if (take_url(&s, &port, e) < 0 ||
        (!is_url && take_protocol(&s, &ret->t.protocol, e) < 0))
        return -1;
    if (ip_parse(s, &ret->t.addr) == 0) { /* IPv6 without brackets and port, too */
        (void)ip_print(&ret->t.addr, ret->host.name);
        ret->host.is_ip = true;
    } else if (host_parse(s, &ret->host) < 0 ||
               (!ret->host.is_ip &&
                host_name_parse(span_str(ret->host.name), name) < 0)) {
        return err_set(
            e, ERR_CONFIG,
            "must be a URL, HOST[:PORT][/tcp|udp] or ADDRESS[:PORT]; IPv4 as a "
            "dotted quad, other scripts in their xn-- form");
    } else if (ret->host.is_ip && ip_parse(span_str(ret->host.name), &ret->t.addr) < 0) {
        return err_set(e, ERR_CONFIG, "is no address");
    }
    ret->t.port = ret->host.port ? ret->host.port : port;
    ret->t.name = ret->host.is_ip ? NULL : ret->host.name;
    (void)snprintf(ret->text, sizeof ret->text, "%s/%s",
                   proxy_print(ret->host.name, ret->t.port, at),
                   ret->t.protocol == IPPROTO_TCP ? "tcp" : "udp");
    return 0;
}

/* -- verdicts ------------------------------------------------------------------------ */

#define OWN_MAX 256

/* This machine's addresses are of the floor. */
static size_t own_addresses(struct ip_net *ret, size_t cap)
{
    struct ifaddrs *list, *i;
    size_t n = 0;

    if (getifaddrs(&list) < 0)
        return 0;
    for (i = list; i && n < cap; i = i->ifa_next) {
        struct sock_addr a = {.len = 0};

        if (!i->ifa_addr ||
            (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        a.len = i->ifa_addr->sa_family == AF_INET ? sizeof a.u.in : sizeof a.u.in6;
        memcpy(&a.u, i->ifa_addr, a.len);
        ip_from_sock(&a, &ret[n].addr);
        ret[n].bits = ip_bits(ret[n].addr.family);
        n++;
    }
    freeifaddrs(list);
    return n;
}

/* What the check on this port sees, and what it cannot. */
static const char *seen(const struct policy *p, const struct explain_target *x,
                        const struct verdict *v)
{
    enum policy_check check = policy_check(p, x->t.port);

    if (!x->t.name)
        return "by its address, whatever name is asked for there";
    if (v->rule && v->rule->is_net)
        return "";
    if (v->rule && v->rule->is_unchecked)
        check = POLICY_CHECK_NONE;
    switch (check) {
    case POLICY_CHECK_TLS:
        return "the TLS server name is checked; not seen: another Host or HTTP/2 "
               "authority "
               "inside TLS, DNS over HTTPS";
    case POLICY_CHECK_HTTP:
        return "the Host of each request is checked";
    default:
        return "no name is checked on this port; not seen: other names on the same "
               "address";
    }
}

/* "through the proxy HOST:PORT" or "". */
static void say_proxy(const struct policy *p, const struct explain_target *x, char *out,
                      size_t cap)
{
    const struct policy_proxy *proxy = policy_proxy(p);
    char at[PROXY_TEXT_MAX];
    struct proxy_url u;

    out[0] = '\0';
    if (!proxy->url || proxy_url_parse(span_str(proxy->url), &u, NULL) < 0)
        return;
    if (proxy->required || !proxy->no_proxy ||
        !proxy_is_bypassed(span_str(proxy->no_proxy), x->host.name, x->t.port))
        (void)snprintf(out, cap, "; through the proxy %s",
                       proxy_print(u.host, u.port, at));
    proxy_url_done(&u);
}

static int explain(const struct policy *p, const struct floor *floor,
                   const struct explain_target *x)
{
    char proxy[PROXY_TEXT_MAX + 32] = "";
    const char *note = "", *mode = "";
    struct verdict v;
    bool allowed;

    decide(p, floor, &x->t, clock_wall_s(), &v);
    allowed = v.allowed;
    if (!v.allowed && v.stage != VERDICT_FLOOR && policy_mode(p) != POLICY_ENFORCE) {
        allowed = true; /* as in the guard: recorded, not refused */
        mode = policy_mode(p) == POLICY_AUDIT ? "mode audit, else refused: "
                                              : "mode learn, else refused: ";
    }
    if (allowed) {
        note = seen(p, x, &v);
        say_proxy(p, x, proxy, sizeof proxy);
    }
    return printf("%s %s%s; %s%s%s%s%s\n", allowed ? "allowed" : "denied", mode, v.text,
                  x->text, *note ? "; " : "", note,
                  allowed && x->t.name ? "; an address of the floor is refused" : "",
                  proxy);
}

static int print_implicit(const struct policy *p)
{
    const struct policy_limits *l = policy_limits(p);

    if (puts("floor: cloud metadata, loopback, link-local, multicast and reserved "
             "addresses, "
             "this machine's own addresses, other sandboxes: always refused") < 0 ||
        puts("floor: private networks: refused but where an allow rule for a network has "
             "them") < 0 ||
        puts("floor: all that is not TCP: refused, but for name questions") < 0 ||
        printf("names: A and AAAA of allowed names are answered, other types are empty, "
               "other "
               "names do not exist; at most %u questions a second, %u names under "
               "wildcards, "
               "%u labels for a \"*\"\n",
               l->questions_per_s, l->names, l->labels) < 0)
        return -1;
    return printf("default %s\n", policy_default_allows(p) ? "allow" : "deny");
}

static int explain_all(const struct policy *p, int n, char **text)
{
    struct ip_net *own = mem_zalloc(OWN_MAX, sizeof *own);
    struct floor floor = {own, 0};
    int rc = EXIT_DONE;

    if (!own) {
        tell("explain", "no memory");
        return EXIT_FAIL;
    }
    floor.n = own_addresses(own, OWN_MAX);
    if (n == 0 && print_implicit(p) < 0)
        rc = EXIT_FAIL;
    for (int i = 0; i < n; i++) {
        struct explain_target x;
        struct err e;

        if (target_parse(text[i], &x, &e) < 0) {
            tell("explain", "%s: %s", log_q(text[i]), e.msg);
            rc = EXIT_USAGE;
        } else if (explain(p, &floor, &x) < 0 && rc == EXIT_DONE) {
            rc = EXIT_FAIL;
        }
    }
    mem_free(own);
    return fflush(stdout) != 0 && rc == EXIT_DONE ? EXIT_FAIL : rc;
}

/* Moves the targets, among which options may stand, to argv[1] and after. How many; -1:
 * wrong usage, which was told. */
static int explain_options(int argc, char **argv, const char **ret_policy)
{
    const struct cmd_option takes[] = {{.name = "--policy", .value = ret_policy}};
    bool is_over = false;
    int n = 0;

    for (int i = 1; i < argc; i++) {
        if (!is_over)
            i = cmd_options(argc, argv, i, takes, COUNT_OF(takes));
        if (i < 0)
            return -1;
        if (i < argc && !is_over && !strcmp(argv[i], "--"))
            is_over = true;
        else if (i < argc)
            argv[++n] = argv[i];
    }
    return n;
}

int cmd_explain(int argc, char **argv)
{
    const char *policy = NULL;
    int n = explain_options(argc, argv, &policy), rc;
    struct policy *p;

    if (n < 0)
        return EXIT_USAGE;
    if (!policy) {
        tell(argv[0], "--policy FILE is missing");
        return EXIT_USAGE;
    }
    p = tell_policy_load(argv[0], policy);
    if (!p)
        return EXIT_USAGE;
    rc = explain_all(p, n, argv + 1);
    policy_unref(p);
    return rc;
}
