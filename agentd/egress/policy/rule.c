/* SPDX-License-Identifier: MIT */
/* Rules as strings, and taking rules into a list. */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/egress/policy/policy_int.h"
#include "agentd/egress/policy/suffix.h"
#include "common/log.h"
#include "common/mem.h"

/* -- names --------------------------------------------------------------------------- */

static bool has_byte(struct span s, char c)
{
    return s.len > 0 && memchr(s.p, c, s.len) != NULL;
}

static bool is_number_like(struct span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!strchr("0123456789abcdefABCDEFxX.", s.p[i]) || s.p[i] == '\0')
            return false;
    return s.len > 0 && s.p[0] >= '0' && s.p[0] <= '9';
}

static const char *label_fault(struct span s)
{
    size_t label = 0;

    if (s.len > 0 && s.p[s.len - 1] == '.')
        s.len--;
    if (s.len > HOST_MAX)
        return "is longer than 253 bytes";
    for (size_t i = 0; i <= s.len; i++) {
        if (i < s.len && s.p[i] != '.')
            continue;
        if (i == label)
            return "has an empty label";
        if (i - label > HOST_LABEL_MAX)
            return "has a label of more than 63 bytes";
        if (s.p[label] == '-' || s.p[i - 1] == '-')
            return "has a label that begins or ends with \"-\"";
        label = i + 1;
    }
    return "ends in a number: write an IPv4 address as a dotted quad";
}

/* In words; `s` is one that host_name_parse() refuses. */
static const char *name_fault(struct span s)
{
    if (s.len == 0)
        return "is empty";
    if (memmem(s.p, s.len, "://", 3))
        return "is a URL: write the host alone, such as \"api.example.com\"";
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] >= 0x80)
            return "is not ASCII: write the name in its xn-- form";
    if (has_byte(s, '*'))
        return "has a \"*\" that is not the whole first label";
    if (has_byte(s, '[') || has_byte(s, ']'))
        return "has brackets, which are for IPv6 addresses";
    if (has_byte(s, '_'))
        return "has a \"_\", which no host name has";
    if (has_byte(s, '/'))
        return "has a path or is no network";
    if (has_byte(s, ':'))
        return "has a port where none may be, or is an IPv6 address without brackets";
    if (is_number_like(s))
        return "is a number: write an IPv4 address as a dotted quad";
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] <= ' ' || s.p[i] == 0x7f)
            return "has a space or a control character";
    for (size_t i = 0; i < s.len; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.",
                    s.p[i]))
            return "has a character that no host name has";
    return label_fault(s);
}

/* What no allow rule can open, whatever it resolves to. */
static const char *floor_name(const char *name)
{
    static const char *const floor[] = {"localhost", "localhost.localdomain",
                                        "metadata.google.internal"};
    size_t len = strlen(name);

    if (len > 10 && strcmp(name + len - 10, ".localhost") == 0)
        return "loopback";
    for (size_t i = 0; i < COUNT_OF(floor); i++)
        if (strcmp(name, floor[i]) == 0)
            return i < 2 ? "loopback" : "cloud metadata";
    return NULL;
}

int rule_parse_domain(struct policy_build *b, const char *path, struct span text,
                      struct rule_spec *ret)
{
    struct span name = text;

    ret->is_net = false;
    ret->is_wildcard = false;
    if (span_eq(text, span_str("*"))) {
        build_error(b, path,
                    "\"*\" alone is no rule; say \"default\": \"allow\" if all is meant");
        return -1;
    }
    if (text.len >= 2 && text.p[0] == '*' && text.p[1] == '.') {
        ret->is_wildcard = true;
        name = span_skip(text, 2);
    } else if (text.len > 1 && text.p[0] == '.') {
        build_error(b, path, "%s begins with a dot: write a \"*\" before it",
                    log_qs(text));
        return -1;
    }
    if (host_name_parse(name, ret->name) < 0) {
        build_error(b, path, "%s %s", log_qs(text), name_fault(name));
        return -1;
    }
    if (ret->is_wildcard && suffix_of(ret->name) != SUFFIX_NONE) {
        build_error(b, path, "\"*.%.80s\": strangers register names under %.80s (%s)",
                    ret->name, ret->name,
                    suffix_of(ret->name) == SUFFIX_PUBLIC
                        ? "a public suffix"
                        : "a public suffix of the list's private part");
        return -1;
    }
    return 0;
}

int rule_parse_cidr(struct policy_build *b, const char *path, struct span text,
                    struct rule_spec *ret)
{
    const uint8_t *slash = text.len ? memchr(text.p, '/', text.len) : NULL;
    struct span alone = span_of(text.p, slash ? (size_t)(slash - text.p) : text.len);
    struct ip_addr a;

    ret->is_net = true;
    if (ip_net_parse(text, &ret->net) == 0)
        return 0;
    if (ip_parse(alone, &a) == 0 && slash) {
        struct ip_net net;
        char is[IP_TEXT_MAX], *end;
        unsigned long bits = strtoul((const char *)slash + 1, &end, 10);

        if (bits <= ip_bits(a.family)) {
            ip_net_of(&a, (unsigned)bits, &net);
            if (!ip_eq(&net.addr, &a)) {
                build_error(b, path, "%s has bits set under its mask; the network is %s",
                            log_qs(text), ip_net_print(&net, is));
                return -1;
            }
        }
    }
    build_error(b, path,
                "%s is no address or network, such as \"203.0.113.0/24\" or "
                "\"2001:db8::/32\"%s",
                log_qs(text),
                is_number_like(alone) ? "; write an IPv4 address as a dotted quad" : "");
    return -1;
}

/* -- strings ------------------------------------------------------------------------- */

/* Drops "/tcp" from the end. */
static int take_protocol(struct policy_build *b, const char *path, struct span *text)
{
    struct span whole = *text;
    const uint8_t *slash = text->len ? memrchr(text->p, '/', text->len) : NULL;
    struct span word;

    if (!slash || slash + 1 == text->p + text->len)
        return 0;
    word = span_skip(*text, (size_t)(slash - text->p) + 1);
    if ((word.p[0] | 0x20) < 'a' || (word.p[0] | 0x20) > 'z' ||
        memmem(text->p, text->len, "://", 3))
        return 0;
    if (span_is(word, "tcp")) {
        text->len = (size_t)(slash - text->p);
        return 0;
    }
    if (span_is(word, "udp"))
        build_error(b, path, "%s: UDP is not relayed; only TCP can be allowed or denied",
                    log_qs(whole));
    else
        build_error(b, path, "%s: the protocol can only be \"/tcp\"", log_qs(whole));
    return -1;
}

/* Splits ":ports" off. An IPv6 address stands in brackets, or has its "/bits". */
static bool take_ports(struct span *text, struct span *ret_ports)
{
    const uint8_t *colon = text->len ? memrchr(text->p, ':', text->len) : NULL;
    const uint8_t *slash = text->len ? memchr(text->p, '/', text->len) : NULL;
    size_t before = colon ? (size_t)(colon - text->p) : 0;

    if (!colon || (slash && colon < slash))
        return false;
    if (!slash && memchr(text->p, ':', before) && text->p[0] != '[')
        return false;
    if (text->p[0] == '[' && memchr(colon, ']', text->len - before))
        return false;
    *ret_ports = span_skip(*text, before + 1);
    text->len = before;
    return true;
}

/* "[2001:db8::]/32" to "2001:db8::/32", in `out`. */
static bool take_brackets(struct span *text, char *out, size_t cap)
{
    const uint8_t *end = text->len ? memchr(text->p, ']', text->len) : NULL;
    size_t in, after;

    if (text->len < 2 || text->p[0] != '[' || !end)
        return false;
    in = (size_t)(end - text->p) - 1;
    after = text->len - in - 2;
    if (in + after >= cap || !memchr(text->p + 1, ':', in) ||
        (after > 0 && end[1] != '/'))
        return false;
    memcpy(out, text->p + 1, in);
    memcpy(out + in, end + 1, after);
    *text = span_of(out, in + after);
    return true;
}

static bool looks_like_net(struct span s)
{
    struct ip_addr a;
    const uint8_t *slash = s.len ? memchr(s.p, '/', s.len) : NULL;

    return ip_parse(s, &a) == 0 ||
           (slash && ip_parse(span_of(s.p, (size_t)(slash - s.p)), &a) == 0);
}

int rule_parse_text(struct policy_build *b, const char *path, struct span text,
                    struct rule_spec *ret)
{
    struct span whole = text, ports;
    char plain[IP_TEXT_MAX];

    ret->has_ports = false;
    if (take_protocol(b, path, &text) < 0)
        return -1;
    if (!memmem(text.p, text.len, "://", 3) && take_ports(&text, &ports)) {
        if (port_list_parse(ports, &ret->ports) < 0) {
            build_error(b, path, "%s: %s is no port (1-65535) or range such as 8000-8999",
                        log_qs(whole), log_qs(ports));
            return -1;
        }
        rule_sort_ports(&ret->ports);
        ret->has_ports = true;
    }
    if (take_brackets(&text, plain, sizeof plain))
        return rule_parse_cidr(b, path, text, ret);
    if (!looks_like_net(text))
        return rule_parse_domain(b, path, text, ret);
    if (memchr(text.p, ':', text.len) && !memchr(text.p, '/', text.len)) {
        build_error(b, path, "%s: an IPv6 address stands in brackets: \"[%.*s]:443\"",
                    log_qs(whole), SPAN_FMT(text));
        return -1;
    }
    return rule_parse_cidr(b, path, text, ret);
}

/* -- taking them --------------------------------------------------------------------- */

/* 443 for a rule that names no port. */
static void default_port(struct rule_spec *s)
{
    if (s->has_ports)
        return;
    s->ports.n = 1;
    s->ports.range[0] = (struct port_range){443, 443};
}

static int by_first(const void *a, const void *b)
{
    const struct port_range *x = a, *y = b;

    return x->first != y->first ? (x->first < y->first ? -1 : 1) : 0;
}

void rule_sort_ports(struct port_list *l)
{
    unsigned n = 0;

    if (l->n > 1)
        qsort(l->range, l->n, sizeof l->range[0], by_first);
    for (unsigned i = 0; i < l->n; i++) {
        if (n > 0 && l->range[i].first <= l->range[n - 1].last + 1u) {
            if (l->range[i].last > l->range[n - 1].last)
                l->range[n - 1].last = l->range[i].last;
        } else {
            l->range[n++] = l->range[i];
        }
    }
    l->n = n;
}

/* The class of the floor that holds all of a network; IP_PUBLIC: none does. */
static enum ip_class net_floor(const struct ip_net *net)
{
    const struct ip_net *floor;
    size_t n = ip_class_nets(true, &floor);

    for (size_t i = 0; i < n; i++)
        if (ip_net_covers(&floor[i], net))
            return ip_classify(&net->addr);
    return IP_PUBLIC;
}

/* An allow rule that can never match. */
static int check_floor(struct policy_build *b, const char *path,
                       const struct rule_spec *s)
{
    const char *why = s->is_net ? NULL : floor_name(s->name);
    char text[IP_TEXT_MAX];

    if (s->is_net && ip_class_is_floor(net_floor(&s->net)))
        why = ip_class_name(net_floor(&s->net));
    if (why) {
        build_error(b, path, "%.100s can never be reached: %s is of the floor",
                    s->is_net ? ip_net_print(&s->net, text) : s->name, why);
        return -1;
    }
    if (s->ports.n == 1 && s->ports.range[0].first == 53 &&
        s->ports.range[0].last == 53) {
        build_error(b, path,
                    "port 53 can never be reached: it is the sandbox's own name server");
        return -1;
    }
    return 0;
}

/* "name:443,8000-8999/tcp" */
static char *print_text(struct policy_build *b, const struct rule_spec *s)
{
    AUTO(buf_done)
    struct buf out = BUF_INIT;
    char net[IP_TEXT_MAX];
    const char *slash;
    int rc;

    if (!s->is_net) {
        rc = buf_addf(&out, "%s%s", s->is_wildcard ? "*." : "", s->name);
    } else if (s->net.addr.family == AF_INET) {
        rc = buf_adds(&out, ip_net_print(&s->net, net));
    } else {
        (void)ip_net_print(&s->net, net);
        slash = net + strcspn(net, "/");
        rc = buf_addf(&out, "[%.*s]%s", (int)(slash - net), net, slash);
    }
    for (unsigned i = 0; i < s->ports.n && rc == 0; i++) {
        const struct port_range *r = &s->ports.range[i];

        rc = buf_addf(&out, "%s%u", i ? "," : ":", r->first);
        if (rc == 0 && r->last > r->first)
            rc = buf_addf(&out, "-%u", r->last);
    }
    if (rc < 0 || buf_adds(&out, "/tcp") < 0)
        return NULL;
    return arena_text(&b->p->arena, buf_span(&out));
}

static int make_room(struct policy_build *b, enum policy_list list)
{
    size_t cap = b->cap[list] ? b->cap[list] * 2 : 16;
    void *p;

    if (b->n[list] < b->cap[list])
        return 0;
    p = mem_resize(b->rule[list], cap * sizeof(struct policy_rule));
    if (!p)
        return -1;
    b->rule[list] = p;
    p = mem_resize(b->place[list], cap * sizeof(struct rule_place));
    if (!p)
        return -1;
    b->place[list] = p;
    b->cap[list] = cap;
    return 0;
}

static int fill(struct policy_build *b, struct policy_rule *r, const struct rule_spec *s)
{
    struct port_range *ports =
        arena_alloc(&b->p->arena, s->ports.n * sizeof s->ports.range[0]);

    r->text = print_text(b, s);
    if (!s->is_net)
        r->name = arena_text(&b->p->arena, span_str(s->name));
    if (!ports || !r->text || (!s->is_net && !r->name))
        return -1;
    memcpy(ports, s->ports.range, s->ports.n * sizeof s->ports.range[0]);
    r->ports = ports;
    r->n_ports = s->ports.n;
    r->is_net = s->is_net;
    r->is_wildcard = !s->is_net && s->is_wildcard;
    if (s->is_net)
        r->net = s->net;
    r->is_unchecked = s->is_unchecked;
    r->expires_s = s->expires_s;
    r->has_limits = s->has_limits;
    r->limits = s->limits;
    r->reason = s->reason;
    r->from = s->from;
    return 0;
}

int rule_add(struct policy_build *b, enum policy_list list, const char *path,
             const struct rule_spec *s)
{
    struct rule_spec with_port = *s;
    struct policy_rule r = {.list = list, .number = (uint32_t)b->n[list]};
    int rc;

    default_port(&with_port);
    b->is_lenient = s->is_optional;
    rc = list == POLICY_ALLOW ? check_floor(b, path, &with_port) : 0;
    b->is_lenient = false;
    if (rc < 0)
        return -1;
    if (b->n[POLICY_ALLOW] + b->n[POLICY_DENY] >= POLICY_RULES_MAX) {
        build_error(b, path, "the policy has more than %d rules", POLICY_RULES_MAX);
        return -1;
    }
    if (make_room(b, list) < 0 || fill(b, &r, &with_port) < 0) {
        build_no_memory(b);
        return -1;
    }
    b->place[list][b->n[list]] = (struct rule_place){
        .source = b->source,
        .item = s->item,
        .is_expanded = s->is_expanded,
        .is_port_implied = !s->has_ports,
    };
    b->rule[list][b->n[list]++] = r;
    return 0;
}
