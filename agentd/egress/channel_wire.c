/* SPDX-License-Identifier: MIT */
/*
 * Theory. A record holds only what its type uses, in the order of enum part; the table
 * says which parts and which descriptors that are. Writing checks as much as reading
 * does, so that a fault shows where it was made and not as a channel that the other
 * side calls broken.
 */
#include <errno.h>
#include <string.h>

#include "agentd/egress/channel.h"
#include "common/wire.h"

enum {
    HEAD = 12,
    ERRNO_MAX = 4095,
    ADDR4 = 4, /* families on the wire */
    ADDR6 = 6,
};

enum part {
    P_ERROR = 1 << 0,
    P_NAME = 1 << 1, /* tier and name */
    P_FROM = 1 << 2,
    P_TO = 1 << 3, /* with the protocol */
    P_WHO = 1 << 4,
    P_TAG = 1 << 5,
    P_FLOOR = 1 << 6,
    P_COUNTS = 1 << 7,
    P_TEXT = 1 << 8,
    P_ALL = 9,
};
#define FD(i)         (1u << (i))
#define FDS_LISTENERS (FD(0) | FD(1) | FD(2) | FD(3))

static const struct shape {
    const char *name;
    unsigned parts;
    uint8_t must, may; /* descriptors */
    bool is_keepers, has_sandbox;
} shapes[CHANNEL_TYPE_COUNT] = {
    [CHANNEL_NONE] = {.name = "NONE"},
    [CHANNEL_HELLO] = {"HELLO", P_FLOOR | P_TEXT, 0, FD(CHANNEL_FD_AUDIT), true, false},
    [CHANNEL_SANDBOX] = {"SANDBOX", P_NAME | P_TAG, FD(CHANNEL_FD_POLICY),
                         FDS_LISTENERS | FD(CHANNEL_FD_NFLOG) | FD(CHANNEL_FD_PIN), true,
                         true},
    [CHANNEL_POLICY] = {"POLICY", P_TAG, FD(CHANNEL_FD_POLICY), 0, true, true},
    [CHANNEL_REMOVE] = {"REMOVE", 0, 0, 0, true, true},
    [CHANNEL_REPLY] = {"REPLY", P_ERROR, 0, FD(CHANNEL_FD_REPLY), true, true},
    [CHANNEL_WHO] = {"WHO", P_WHO, 0, 0, true, true},
    [CHANNEL_FLOOR] = {"FLOOR", P_FLOOR | P_TEXT, 0, 0, true, false},
    [CHANNEL_STATUS] = {"STATUS", 0, 0, 0, true, true},
    [CHANNEL_READY] = {"READY", 0, 0, 0, false, false},
    [CHANNEL_IN_FORCE] = {"IN_FORCE", 0, 0, 0, false, true},
    [CHANNEL_REFUSED] = {"REFUSED", P_TEXT, 0, 0, false, true},
    [CHANNEL_REMOVED] = {"REMOVED", 0, 0, 0, false, true},
    [CHANNEL_WANT_REPLY] = {"WANT_REPLY", P_TO, 0, 0, false, true},
    [CHANNEL_ASK_WHO] = {"ASK_WHO", P_FROM | P_TO, 0, 0, false, true},
    [CHANNEL_COUNTS] = {"COUNTS", P_COUNTS, 0, 0, false, true},
    [CHANNEL_PROPOSAL] = {"PROPOSAL", 0, FD(CHANNEL_FD_POLICY), 0, false, true},
};

static const struct shape *shape_of(unsigned type)
{
    return type > CHANNEL_NONE && type < CHANNEL_TYPE_COUNT ? &shapes[type] : NULL;
}

const char *channel_type_name(enum channel_type t)
{
    return (unsigned)t < CHANNEL_TYPE_COUNT ? shapes[t].name : "?";
}

bool channel_is_keepers(enum channel_type t)
{
    return (unsigned)t < CHANNEL_TYPE_COUNT && shapes[t].is_keepers;
}

void channel_msg_init(struct channel_msg *m, enum channel_type type, uint32_t sandbox)
{
    memset(m, 0, sizeof(*m));
    m->type = type;
    m->sandbox = sandbox;
    m->uid = UINT32_MAX;
    for (size_t i = 0; i < CHANNEL_FDS; i++)
        m->fd[i] = -1;
}

/* -- what both ways check ------------------------------------------------------------ */

static bool addr_is_good(const struct ip_addr *a)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t zero[12];

    if (a->family == AF_INET)
        return memcmp(a->bytes + 4, zero, sizeof(zero)) == 0;
    return a->family == AF_INET6 && memcmp(a->bytes, mapped, sizeof(mapped)) != 0;
}

static bool net_is_good(const struct ip_net *n)
{
    unsigned all = ip_bits(n->addr.family);

    if (!addr_is_good(&n->addr) || n->bits > all)
        return false;
    for (unsigned i = n->bits; i < all; i++)
        if ((n->addr.bytes[i / 8] & (0x80 >> i % 8)) != 0)
            return false;
    return true;
}

static bool name_is_good(const char *name, size_t len)
{
    char id[HOST_ID_MAX + 1];

    return host_id_parse(span_of(name, len), id) == 0 && strlen(id) == len &&
           memcmp(id, name, len) == 0;
}

static bool head_is_good(const struct shape *s, uint32_t sandbox, unsigned fds)
{
    bool in_range =
        s->has_sandbox ? sandbox >= 1 && sandbox <= CHANNEL_INDEX_MAX : sandbox == 0;

    return in_range && (fds & s->must) == s->must &&
           (fds & ~(unsigned)(s->must | s->may)) == 0;
}

/* -- writing ------------------------------------------------------------------------- */

struct wr {
    uint8_t *p;
    size_t len;
    bool bad;
};

static void put(struct wr *w, const void *p, size_t n)
{
    if (n > CHANNEL_WIRE_MAX - w->len) {
        w->bad = true;
        return;
    }
    if (n > 0)
        memcpy(w->p + w->len, p, n);
    w->len += n;
}

static void put_uint(struct wr *w, uint64_t v, unsigned nbytes)
{
    uint8_t b[8];

    for (unsigned i = 0; i < nbytes; i++)
        b[i] = (uint8_t)(v >> (nbytes - 1 - i) * 8);
    put(w, b, nbytes);
}

static void put_addr(struct wr *w, const struct ip_addr *a)
{
    bool is4 = a->family == AF_INET;

    w->bad |= !addr_is_good(a);
    put_uint(w, is4 ? ADDR4 : ADDR6, 1);
    put(w, a->bytes, is4 ? 4 : 16);
}

static void put_name(struct wr *w, const struct channel_msg *m)
{
    size_t n = strnlen(m->name, sizeof(m->name));

    w->bad |= n >= sizeof(m->name) || !name_is_good(m->name, n) ||
              (m->tier != EGRESS_SEALED && m->tier != EGRESS_VETH);
    put_uint(w, m->tier, 1);
    put_uint(w, n, 1);
    put(w, m->name, n);
}

static void put_who(struct wr *w, const struct channel_msg *m)
{
    size_t n = strnlen(m->comm, sizeof(m->comm));

    w->bad |= m->pid < 0 || n >= sizeof(m->comm);
    put_uint(w, (uint32_t)m->pid, 4);
    put_uint(w, m->uid, 4);
    put_uint(w, n, 1);
    put(w, m->comm, n);
}

static void put_floor(struct wr *w, const struct channel_msg *m)
{
    if (m->n_floor > CHANNEL_FLOOR_MAX) {
        w->bad = true;
        return;
    }
    put_uint(w, m->n_floor, 2);
    for (size_t i = 0; i < m->n_floor; i++) {
        w->bad |= !net_is_good(&m->floor[i]);
        put_addr(w, &m->floor[i].addr);
        put_uint(w, m->floor[i].bits, 1);
    }
}

static void put_counts(struct wr *w, const struct channel_counts *c)
{
    put_uint(w, c->flows, 4);
    put_uint(w, c->connects, 8);
    put_uint(w, c->refused, 8);
    put_uint(w, c->questions, 8);
    put_uint(w, c->names_refused, 8);
    put_uint(w, c->bytes_up, 8);
    put_uint(w, c->bytes_down, 8);
    put_uint(w, c->pins, 4);
    put_uint(w, c->audit_lost, 8);
}

/* Control bytes become '?': the text is for people, and part of it may be a program's. */
static void put_text(struct wr *w, const struct channel_msg *m)
{
    size_t n = strnlen(m->text, sizeof(m->text) - 1);

    put_uint(w, n, 2);
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)m->text[i];

        put_uint(w, c < 0x20 || c == 0x7f ? '?' : c, 1);
    }
}

static void put_part(struct wr *w, unsigned part, const struct channel_msg *m)
{
    switch (part) {
    case P_ERROR:
        w->bad |= m->error < 0 || m->error > ERRNO_MAX;
        put_uint(w, (uint32_t)m->error, 2);
        break;
    case P_NAME:
        put_name(w, m);
        break;
    case P_FROM:
        put_addr(w, &m->from);
        put_uint(w, m->from_port, 2);
        break;
    case P_TO:
        put_addr(w, &m->to);
        put_uint(w, m->to_port, 2);
        put_uint(w, m->protocol, 1);
        break;
    case P_WHO:
        put_who(w, m);
        break;
    case P_TAG:
        put_uint(w, m->tag, 4);
        break;
    case P_FLOOR:
        put_floor(w, m);
        break;
    case P_COUNTS:
        put_counts(w, &m->counts);
        break;
    default:
        put_text(w, m);
        break;
    }
}

/* NOLINTNEXTLINE(readability-non-const-parameter): it is written by way of w.p */
int channel_encode(const struct channel_msg *m, uint8_t out[CHANNEL_WIRE_MAX],
                   struct err *e)
{
    const struct shape *s = shape_of(m->type);
    struct wr w = {.p = out};
    unsigned fds = 0;

    for (size_t i = 0; i < CHANNEL_FDS; i++)
        fds |= m->fd[i] >= 0 ? FD(i) : 0;
    if (s == NULL || !head_is_good(s, m->sandbox, fds))
        return err_set(e, ERR_PROTO, "no such record: %s, sandbox %u, descriptors %#x",
                       channel_type_name(m->type), m->sandbox, fds);
    put_uint(&w, CHANNEL_VERSION, 1);
    put_uint(&w, m->type, 1);
    put_uint(&w, fds, 1);
    put_uint(&w, 0, 1);
    put_uint(&w, m->sandbox, 4);
    put_uint(&w, m->seq, 4);
    for (unsigned i = 0; i < P_ALL; i++)
        if ((s->parts & 1u << i) != 0)
            put_part(&w, 1u << i, m);
    if (w.bad)
        return err_set(e, ERR_PROTO, "%s with a field out of its range", s->name);
    return (int)w.len;
}

/* -- reading ------------------------------------------------------------------------- */

static uint64_t get_u64(struct wire_rd *r)
{
    uint64_t high = wire_rd_uint(r, 4);

    return high << 32 | wire_rd_uint(r, 4);
}

static void get_bytes(struct wire_rd *r, void *ret, size_t n)
{
    struct wire_rd sub = wire_rd_sub(r, n);

    if (!r->bad && n > 0)
        memcpy(ret, sub.p, n);
}

static void get_addr(struct wire_rd *r, struct ip_addr *ret)
{
    uint32_t kind = wire_rd_uint(r, 1);

    ret->family = kind == ADDR4 ? AF_INET : AF_INET6;
    r->bad |= kind != ADDR4 && kind != ADDR6;
    get_bytes(r, ret->bytes, kind == ADDR4 ? 4 : 16);
    r->bad |= !addr_is_good(ret);
}

static void get_name(struct wire_rd *r, struct channel_msg *m)
{
    uint32_t tier = wire_rd_uint(r, 1);
    size_t n = wire_rd_uint(r, 1);

    r->bad |= n > EGRESS_NAME_MAX || (tier != EGRESS_SEALED && tier != EGRESS_VETH);
    if (r->bad)
        return;
    get_bytes(r, m->name, n);
    r->bad |= !name_is_good(m->name, n);
    m->tier = (enum egress_tier)tier;
}

static void get_who(struct wire_rd *r, struct channel_msg *m)
{
    uint32_t pid = wire_rd_uint(r, 4);
    size_t n;

    m->uid = wire_rd_uint(r, 4);
    n = wire_rd_uint(r, 1);
    r->bad |= pid > INT32_MAX || n >= sizeof(m->comm);
    if (r->bad)
        return;
    m->pid = (int32_t)pid;
    get_bytes(r, m->comm, n);
    r->bad |= strlen(m->comm) != n;
}

static void get_floor(struct wire_rd *r, struct channel_msg *m)
{
    uint32_t n = wire_rd_uint(r, 2);

    r->bad |= n > CHANNEL_FLOOR_MAX;
    for (size_t i = 0; i < n && !r->bad; i++) {
        get_addr(r, &m->floor[i].addr);
        m->floor[i].bits = (uint8_t)wire_rd_uint(r, 1);
        r->bad |= !net_is_good(&m->floor[i]);
    }
    m->n_floor = n;
}

static void get_counts(struct wire_rd *r, struct channel_counts *c)
{
    c->flows = wire_rd_uint(r, 4);
    c->connects = get_u64(r);
    c->refused = get_u64(r);
    c->questions = get_u64(r);
    c->names_refused = get_u64(r);
    c->bytes_up = get_u64(r);
    c->bytes_down = get_u64(r);
    c->pins = wire_rd_uint(r, 4);
    c->audit_lost = get_u64(r);
}

static void get_text(struct wire_rd *r, struct channel_msg *m)
{
    size_t n = wire_rd_uint(r, 2);

    r->bad |= n >= sizeof(m->text);
    if (r->bad)
        return;
    get_bytes(r, m->text, n);
    for (size_t i = 0; i < n; i++)
        r->bad |= (uint8_t)m->text[i] < 0x20 || m->text[i] == 0x7f;
}

static void get_part(struct wire_rd *r, unsigned part, struct channel_msg *m)
{
    switch (part) {
    case P_ERROR:
        m->error = (int32_t)wire_rd_uint(r, 2);
        r->bad |= m->error > ERRNO_MAX;
        break;
    case P_NAME:
        get_name(r, m);
        break;
    case P_FROM:
        get_addr(r, &m->from);
        m->from_port = (uint16_t)wire_rd_uint(r, 2);
        break;
    case P_TO:
        get_addr(r, &m->to);
        m->to_port = (uint16_t)wire_rd_uint(r, 2);
        m->protocol = (uint8_t)wire_rd_uint(r, 1);
        break;
    case P_WHO:
        get_who(r, m);
        break;
    case P_TAG:
        m->tag = wire_rd_uint(r, 4);
        break;
    case P_FLOOR:
        get_floor(r, m);
        break;
    case P_COUNTS:
        get_counts(r, &m->counts);
        break;
    default:
        get_text(r, m);
        break;
    }
}

/* The head; the parts that follow, or 0 with r->bad. */
static const struct shape *get_head(struct wire_rd *r, struct channel_msg *m,
                                    unsigned *ret_fds)
{
    uint32_t version = wire_rd_uint(r, 1);
    uint32_t type = wire_rd_uint(r, 1);
    const struct shape *s = shape_of(type);

    *ret_fds = wire_rd_uint(r, 1);
    r->bad |= version != CHANNEL_VERSION || wire_rd_uint(r, 1) != 0;
    channel_msg_init(m, (enum channel_type)type, wire_rd_uint(r, 4));
    m->seq = wire_rd_uint(r, 4);
    if (r->bad || s == NULL || !head_is_good(s, m->sandbox, *ret_fds))
        return NULL;
    return s;
}

int channel_decode(struct span bytes, const int *fd, size_t n_fds,
                   struct channel_msg *ret, struct err *e)
{
    struct wire_rd r = wire_rd_init(bytes.p, bytes.len);
    unsigned fds;
    size_t taken = 0;
    const struct shape *s = get_head(&r, ret, &fds);

    if (s == NULL)
        return err_set(e, ERR_PROTO, "a record with a head that none has");
    for (unsigned i = 0; i < P_ALL && !r.bad; i++)
        if ((s->parts & 1u << i) != 0)
            get_part(&r, 1u << i, ret);
    if (r.bad || wire_rd_left(&r) != 0)
        return err_set(e, ERR_PROTO, "%s with a field out of its range", s->name);
    if ((size_t)__builtin_popcount(fds) != n_fds)
        return err_set(e, ERR_PROTO, "%s with %zu descriptors", s->name, n_fds);
    for (size_t i = 0; i < CHANNEL_FDS; i++)
        if ((fds & FD(i)) != 0)
            ret->fd[i] = fd[taken++];
    return 0;
}
