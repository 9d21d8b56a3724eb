/* SPDX-License-Identifier: MIT */
#include "common/host.h"

#include <arpa/inet.h>
#include <string.h>

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(uint8_t c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z');
}

static uint8_t fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

uint16_t host_port_parse(struct span text)
{
    unsigned v = 0;

    if (text.len == 0 || text.len > 5 || text.p[0] == '0')
        return 0;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.p[i]))
            return 0;
        v = v * 10 + (unsigned)(text.p[i] - '0');
    }
    return v <= UINT16_MAX ? (uint16_t)v : 0;
}

/* What some resolver would read as an address without being one in dotted-quad form:
 * "127.1", "0x7f000001", "2130706433". Such names never reach a name server in browsers
 * (WHATWG URL, "ends in a number"), so to us they are a disguise. */
static bool is_number_label(const char *label, size_t len)
{
    size_t i = 0;

    if (len >= 2 && label[0] == '0' && label[1] == 'x') {
        for (i = 2; i < len; i++)
            if (!is_digit((uint8_t)label[i]) && !(label[i] >= 'a' && label[i] <= 'f'))
                return false;
        return true;
    }
    while (i < len && is_digit((uint8_t)label[i]))
        i++;
    return i == len;
}

static int name_parse(struct span in, struct host *h)
{
    size_t label = 0, len = in.len;

    if (len > 0 && in.p[len - 1] == '.')
        len--; /* the root's dot is not part of the name we compare */
    if (len == 0 || len > HOST_MAX)
        return -1;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = fold(in.p[i]);

        if (c == '.') {
            if (i == label)
                return -1;
            label = i + 1;
        } else if ((!is_alnum(c) && c != '-') || i - label >= HOST_LABEL_MAX) {
            return -1;
        }
        h->name[i] = (char)c;
    }
    if (label == len)
        return -1;
    h->name[len] = '\0';
    if (is_number_label(h->name + label, len - label)) {
        struct in_addr a;

        if (inet_pton(AF_INET, h->name, &a) != 1)
            return -1;
        h->is_ip = true;
    }
    return 0;
}

static int ip6_parse(struct span in, struct host *h)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr a;

    /* inet_pton() stops at a NUL and would read the rest as if it were not there. */
    if (in.len >= sizeof(text) || memchr(in.p, '\0', in.len))
        return -1;
    memcpy(text, in.p, in.len);
    text[in.len] = '\0';
    if (inet_pton(AF_INET6, text, &a) != 1 ||
        !inet_ntop(AF_INET6, &a, h->name, sizeof(h->name)))
        return -1;
    h->is_ip = true;
    return 0;
}

int host_parse(struct span authority, struct host *ret)
{
    struct host h = {.port = 0};
    struct span port = {NULL, 0};
    bool has_port = false;
    const uint8_t *end;
    size_t len;

    if (authority.len == 0)
        return -1;
    if (authority.p[0] == '[') {
        end = memchr(authority.p, ']', authority.len);
        if (!end)
            return -1;
        len = (size_t)(end - authority.p) + 1;
        if (ip6_parse(span_of(authority.p + 1, len - 2), &h) < 0)
            return -1;
        if (len < authority.len) {
            if (authority.p[len] != ':')
                return -1;
            has_port = true;
        }
    } else {
        end = memchr(authority.p, ':', authority.len);
        len = end ? (size_t)(end - authority.p) : authority.len;
        if (name_parse(span_of(authority.p, len), &h) < 0)
            return -1;
        has_port = end != NULL;
    }
    if (has_port) {
        port = span_skip(authority, len + 1);
        h.port = host_port_parse(port);
        if (h.port == 0)
            return -1;
    }
    *ret = h;
    return 0;
}

int host_name_parse(struct span text, char ret[HOST_MAX + 1])
{
    struct host h = {.port = 0};

    if (text.len == 0 || name_parse(text, &h) < 0 || h.is_ip)
        return -1;
    for (const char *label = h.name; label; label = strchr(label, '.')) {
        size_t len;

        label += *label == '.';
        len = strcspn(label, ".");
        if (label[0] == '-' || label[len - 1] == '-')
            return -1;
    }
    memcpy(ret, h.name, sizeof h.name);
    return 0;
}

int host_id_parse(struct span text, char ret[HOST_ID_MAX + 1])
{
    char id[HOST_ID_MAX + 1];

    if (text.len == 0 || text.len > HOST_ID_MAX)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = fold(text.p[i]);

        if (c == '-') {
            if (i == 0 || i + 1 == text.len || text.p[i + 1] == '-')
                return -1;
        } else if (!is_alnum(c)) {
            return -1;
        }
        id[i] = (char)c;
    }
    memcpy(ret, id, text.len);
    ret[text.len] = '\0';
    return 0;
}

/* Length of "123-" at the start, or 0: only such a label can be a preview or a link. */
static size_t digits_dash(struct span label)
{
    size_t i = 0;

    while (i < label.len && is_digit(label.p[i]))
        i++;
    return i > 0 && i < label.len && label.p[i] == '-' ? i + 1 : 0;
}

static bool is_label(struct span label)
{
    if (label.len == 0 || label.len > HOST_LABEL_MAX || label.p[0] == '-' ||
        label.p[label.len - 1] == '-')
        return false;
    for (size_t i = 0; i < label.len; i++)
        if (!is_alnum(label.p[i]) && label.p[i] != '-')
            return false;
    return true;
}

static void label_route(struct span label, struct host_route *ret)
{
    size_t dash = digits_dash(label);
    struct span digits;

    ret->kind = HOST_BAD;
    if (dash == 0) {
        if (!is_label(label))
            return;
        memcpy(ret->name, label.p, label.len);
        ret->name[label.len] = '\0';
        ret->kind = HOST_NAME;
        return;
    }
    digits = span_of(label.p, dash - 1);
    if (host_id_parse(span_skip(label, dash), ret->id) < 0)
        return;
    if (span_eq(digits, span_str("0"))) {
        ret->kind = HOST_LINK;
        return;
    }
    ret->port = host_port_parse(digits);
    if (ret->port == 0)
        ret->id[0] = '\0';
    else
        ret->kind = HOST_PREVIEW;
}

void host_route(const struct host *h, const char *domain, const char *control_host,
                struct host_route *ret)
{
    size_t len = strlen(h->name), domain_len = strlen(domain);

    *ret = (struct host_route){.kind = HOST_FOREIGN};
    if (strcmp(h->name, domain) == 0 ||
        (control_host && strcmp(h->name, control_host) == 0)) {
        ret->kind = HOST_APEX;
        return;
    }
    if (h->is_ip || len <= domain_len + 1 || h->name[len - domain_len - 1] != '.' ||
        strcmp(h->name + len - domain_len, domain) != 0)
        return;
    /* A dot in what is left makes it more than one label, which is_label() and
     * host_id_parse() refuse. */
    label_route(span_of(h->name, len - domain_len - 1), ret);
}

bool host_name_is_claimable(struct span label)
{
    static const char *const reserved[] = {"www", "api", "admin", "login", "mail"};

    if (!is_label(label) || digits_dash(label) > 0)
        return false;
    for (size_t i = 0; i < COUNT_OF(reserved); i++)
        if (span_eq(label, span_str(reserved[i])))
            return false;
    return true;
}

static int range_parse(struct span text, struct port_range *ret)
{
    const uint8_t *dash = memchr(text.p, '-', text.len);
    size_t len = dash ? (size_t)(dash - text.p) : text.len;

    ret->first = host_port_parse(span_of(text.p, len));
    ret->last = dash ? host_port_parse(span_skip(text, len + 1)) : ret->first;
    return ret->first > 0 && ret->first <= ret->last ? 0 : -1;
}

int port_list_parse(struct span text, struct port_list *ret)
{
    struct port_list l = {.n = 0};

    for (;;) {
        const uint8_t *comma = text.len ? memchr(text.p, ',', text.len) : NULL;
        size_t len = comma ? (size_t)(comma - text.p) : text.len;

        if (len == 0 || l.n == PORT_LIST_MAX ||
            range_parse(span_of(text.p, len), &l.range[l.n]) < 0)
            return -1;
        l.n++;
        if (!comma)
            break;
        text = span_skip(text, len + 1);
    }
    *ret = l;
    return 0;
}

bool port_list_has(const struct port_list *l, uint16_t port)
{
    for (unsigned i = 0; i < l->n; i++)
        if (port >= l->range[i].first && port <= l->range[i].last)
            return true;
    return false;
}
