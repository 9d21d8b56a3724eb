/* SPDX-License-Identifier: MIT */
/*
 * Theory. Everything is read through one bounded reader with a sticky fault (wire.h), so
 * no length from the network is used before it was compared.
 *
 * An answer is read in two passes: one over all records that checks the form of each,
 * gathers the CNAMEs and remembers nothing else; then the chain is walked among the
 * CNAMEs, and a second pass takes the addresses of its last name.
 */
#include "agentd/egress/guard/dnsmsg.h"

#include <netinet/in.h>
#include <string.h>

#include "agentd/egress/guard/dnsname.h"
#include "common/wire.h"

enum {
    HEADER = 12,
    QR = 0x8000,
    OPCODE_SHIFT = 11,
    TC = 0x0200,
    RD = 0x0100,
    RA = 0x0080,
    CD = 0x0010,
    RCODE_MASK = 0x000f,
    DO = 0x8000, /* of the OPT record's flags */
    CLASS_IN = 1,
    POINTER = 0xc0,
    OPTION_EDE = 15,
    OPT_FIXED = DNSMSG_OPT_SIZE,
    CNAMES_MAX = 2 * DNSMSG_CHAIN_MAX, /* in an answer, connected or not */
};
#define TTL_TOP 0x7fffffffu

const char *dnsmsg_result_name(enum dnsmsg_result r)
{
    static const char *const name[DNSMSG_RESULT_COUNT] = {
        "ok", "no question", "form error", "not implemented", "refused", "bad version"};

    return r < DNSMSG_RESULT_COUNT ? name[r] : "?";
}

/* -- questions ----------------------------------------------------------------------- */

static bool options_are_whole(struct wire_rd *r, size_t len)
{
    struct wire_rd o = wire_rd_sub(r, len);

    while (!o.bad && wire_rd_left(&o) > 0) {
        (void)wire_rd_uint(&o, 2);
        (void)wire_rd_sub(&o, wire_rd_uint(&o, 2));
    }
    return !o.bad;
}

static enum dnsmsg_result parse_opt(struct wire_rd *r, struct dns_question *q)
{
    uint32_t root = wire_rd_uint(r, 1), type = wire_rd_uint(r, 2);
    uint32_t size = wire_rd_uint(r, 2), version, flags;

    (void)wire_rd_uint(r, 1); /* the upper bits of the code: for replies */
    version = wire_rd_uint(r, 1);
    flags = wire_rd_uint(r, 2);
    if (r->bad || root != 0 || type != DNS_OPT)
        return DNSMSG_FORMERR;
    q->has_edns = true;
    q->wants_dnssec = flags & DO;
    if (size > DNSMSG_UDP_MIN)
        q->udp_size = (uint16_t)(size < DNSMSG_UDP_MAX ? size : DNSMSG_UDP_MAX);
    if (version != 0)
        return DNSMSG_BADVERS;
    if (!options_are_whole(r, wire_rd_uint(r, 2)) || r->bad)
        return DNSMSG_FORMERR;
    return DNSMSG_OK;
}

enum dnsmsg_result dnsmsg_parse_question(struct span msg, struct dns_question *ret)
{
    struct wire_rd r = wire_rd_init(msg.p, msg.len);
    uint32_t flags, counts[4];
    struct dnsname name;
    size_t end;

    memset(ret, 0, offsetof(struct dns_question, wire));
    ret->text[0] = '\0';
    ret->udp_size = DNSMSG_UDP_MIN;
    ret->id = (uint16_t)wire_rd_uint(&r, 2);
    flags = wire_rd_uint(&r, 2);
    for (unsigned i = 0; i < COUNT_OF(counts); i++)
        counts[i] = wire_rd_uint(&r, 2);
    if (r.bad || flags & QR)
        return DNSMSG_SILENT;
    ret->opcode = (uint8_t)(flags >> OPCODE_SHIFT & 0xf);
    ret->wants_recursion = flags & RD;
    ret->no_checking = flags & CD;
    if (ret->opcode != 0)
        return DNSMSG_NOTIMP;
    if (flags & (TC | RCODE_MASK) || counts[0] != 1 || counts[1] || counts[2] ||
        counts[3] > 1 || msg.len > DNSMSG_QUESTION_MAX)
        return DNSMSG_FORMERR;
    end = dnsname_read(msg, HEADER, false, &name);
    if (end == 0)
        return DNSMSG_FORMERR;
    r = wire_rd_init(msg.p + end, msg.len - end);
    ret->type = (uint16_t)wire_rd_uint(&r, 2);
    ret->class = (uint16_t)wire_rd_uint(&r, 2);
    if (r.bad)
        return DNSMSG_FORMERR;
    memcpy(ret->wire, name.wire, name.len);
    ret->wire_len = name.len;
    ret->has_question = true;
    dnsname_print(ret->wire, ret->text);
    ret->is_host = dnsname_is_host(ret->text);
    if (counts[3]) {
        enum dnsmsg_result rc = parse_opt(&r, ret);

        if (rc != DNSMSG_OK)
            return rc;
    }
    if (wire_rd_left(&r) > 0)
        return DNSMSG_FORMERR;
    return ret->class == CLASS_IN ? DNSMSG_OK : DNSMSG_REFUSED;
}

/* -- writing ------------------------------------------------------------------------- */

struct wr {
    uint8_t *p;
    size_t n;
};

static void put(struct wr *w, uint32_t v, unsigned nbytes)
{
    while (nbytes-- > 0)
        w->p[w->n++] = (uint8_t)(v >> 8 * nbytes);
}

static void put_bytes(struct wr *w, const void *p, size_t n)
{
    memcpy(w->p + w->n, p, n);
    w->n += n;
}

static void put_opt(struct wr *w, const struct dns_question *q, const struct dns_reply *r,
                    size_t max)
{
    size_t text = r->text ? strlen(r->text) : 0;
    size_t room = max - w->n - OPT_FIXED;
    bool has_ede = r->extended != DNS_EDE_NONE && room >= 6;

    if (has_ede && text > room - 6)
        text = room - 6;
    put(w, 0, 1);
    put(w, DNS_OPT, 2);
    put(w, DNSMSG_UDP_MAX, 2);
    put(w, (uint32_t)r->rcode >> 4, 1);
    put(w, 0, 1);
    put(w, q->wants_dnssec ? DO : 0, 2);
    put(w, has_ede ? (uint32_t)(6 + text) : 0, 2);
    if (!has_ede)
        return;
    put(w, OPTION_EDE, 2);
    put(w, (uint32_t)(2 + text), 2);
    put(w, (uint32_t)r->extended, 2);
    if (text)
        put_bytes(w, r->text, text);
}

/* How many addresses were written; *ret_left: some had no room. */
static uint32_t put_addrs(struct wr *w, const struct dns_question *q,
                          const struct dns_reply *r, size_t max, bool *ret_left)
{
    size_t tail = q->has_edns ? OPT_FIXED : 0;
    uint8_t family = q->type == DNS_A ? AF_INET : AF_INET6;
    uint32_t size = ip_bytes(family), n = 0;

    if (q->type != DNS_A && q->type != DNS_AAAA)
        return 0;
    for (size_t i = 0; i < r->n; i++) {
        if (r->addr[i].family != family)
            continue;
        if (max - w->n < 12 + size + tail) {
            *ret_left = true;
            break;
        }
        put(w, POINTER << 8 | HEADER, 2); /* the question's name */
        put(w, q->type, 2);
        put(w, CLASS_IN, 2);
        put(w, r->ttl_s, 4);
        put(w, size, 2);
        put_bytes(w, r->addr[i].bytes, size);
        n++;
    }
    return n;
}

size_t dnsmsg_reply(const struct dns_question *q, const struct dns_reply *r, size_t max,
                    uint8_t out[DNSMSG_REPLY_MAX])
{
    struct wr w, h;
    bool is_cut = false;
    uint32_t n = 0, flags;

    w.p = out;
    w.n = HEADER;
    if (max > DNSMSG_REPLY_MAX)
        max = DNSMSG_REPLY_MAX;
    if (q->has_question) {
        put_bytes(&w, q->wire, q->wire_len);
        put(&w, q->type, 2);
        put(&w, q->class, 2);
        if (r->rcode == DNS_NOERROR)
            n = put_addrs(&w, q, r, max, &is_cut);
    }
    if (q->has_edns)
        put_opt(&w, q, r, max);
    flags = QR | (uint32_t)q->opcode << OPCODE_SHIFT | RA | (r->rcode & RCODE_MASK) |
            (q->wants_recursion ? RD : 0u) | (q->no_checking ? CD : 0u) |
            (is_cut ? TC : 0u);
    h.p = out;
    h.n = 0;
    put(&h, q->id, 2);
    put(&h, flags, 2);
    put(&h, q->has_question, 2);
    put(&h, n, 2);
    put(&h, 0, 2);
    put(&h, q->has_edns, 2);
    return w.n;
}

size_t dnsmsg_ask(const char *name, uint16_t type, uint16_t id,
                  uint8_t out[DNSMSG_UDP_MIN])
{
    static const uint8_t opt[DNSMSG_OPT_SIZE] = {0, 0, DNS_OPT, DNSMSG_UDP_MAX >> 8,
                                                 DNSMSG_UDP_MAX & 0xff};
    struct wr w;
    struct dnsname n;

    if (!dnsname_write(name, &n))
        return 0;
    w.p = out;
    w.n = 0;
    put(&w, id, 2);
    put(&w, RD, 2);
    put(&w, 1, 2);
    put(&w, 0, 4);
    put(&w, 1, 2);
    put_bytes(&w, n.wire, n.len);
    put(&w, type, 2);
    put(&w, CLASS_IN, 2);
    put_bytes(&w, opt, sizeof(opt));
    return w.n;
}

/* -- answers ------------------------------------------------------------------------- */

struct record {
    struct dnsname owner;
    uint16_t type, class;
    uint32_t ttl_s;
    size_t at, len; /* of its contents, in the message */
};

static bool record_read(struct span msg, size_t *pos, struct record *ret)
{
    size_t end = dnsname_read(msg, *pos, true, &ret->owner);
    struct wire_rd r;

    if (end == 0)
        return false;
    r = wire_rd_init(msg.p + end, msg.len - end);
    ret->type = (uint16_t)wire_rd_uint(&r, 2);
    ret->class = (uint16_t)wire_rd_uint(&r, 2);
    ret->ttl_s = wire_rd_uint(&r, 4);
    ret->len = wire_rd_uint(&r, 2);
    if (r.bad || ret->len > wire_rd_left(&r))
        return false;
    if (ret->ttl_s > TTL_TOP)
        ret->ttl_s = 0; /* RFC 2181 section 8 */
    ret->at = (size_t)(r.p - msg.p);
    *pos = ret->at + ret->len;
    return true;
}

struct cname {
    struct dnsname owner, to;
    uint32_t ttl_s;
};

struct reading {
    struct span msg;
    uint16_t type;
    size_t answers_at;
    uint32_t n_answers;
    struct cname cname[CNAMES_MAX];
    size_t n_cnames;
};

static size_t address_size(uint16_t type)
{
    return type == DNS_A ? 4 : 16;
}

/* Checks every record; gathers the answers' CNAMEs. */
static bool first_pass(struct reading *d, uint32_t n_others)
{
    size_t pos = d->answers_at;
    struct record rec;

    for (uint32_t i = 0; i < d->n_answers; i++) {
        struct cname *c = &d->cname[d->n_cnames];

        if (!record_read(d->msg, &pos, &rec))
            return false;
        if (rec.class != CLASS_IN)
            return false;
        if ((rec.type == DNS_A || rec.type == DNS_AAAA) &&
            rec.len != address_size(rec.type))
            return false;
        if (rec.type != DNS_CNAME)
            continue;
        if (d->n_cnames == CNAMES_MAX ||
            dnsname_read(d->msg, rec.at, true, &c->to) != rec.at + rec.len)
            return false;
        c->owner = rec.owner;
        c->ttl_s = rec.ttl_s;
        d->n_cnames++;
    }
    for (uint32_t i = 0; i < n_others; i++)
        if (!record_read(d->msg, &pos, &rec))
            return false;
    return pos == d->msg.len;
}

/* The CNAME of a name: 0 none, 1 one, -1 two that differ. */
static int cname_of(const struct reading *d, const struct dnsname *owner,
                    const struct cname **ret)
{
    *ret = NULL;
    for (size_t i = 0; i < d->n_cnames; i++) {
        const struct cname *c = &d->cname[i];

        if (!dnsname_eq(&c->owner, owner))
            continue;
        if (*ret && !dnsname_eq(&(*ret)->to, &c->to))
            return -1;
        *ret = c;
    }
    return *ret != NULL;
}

/* From the question's name to the one that has the addresses. */
static bool walk_chain(const struct reading *d, struct dnsname *name, uint32_t *ttl_s)
{
    for (unsigned hops = 0;; hops++) {
        const struct cname *c;
        int rc = cname_of(d, name, &c);

        if (rc <= 0)
            return rc == 0;
        if (hops == DNSMSG_CHAIN_MAX)
            return false;
        if (c->ttl_s < *ttl_s)
            *ttl_s = c->ttl_s;
        *name = c->to;
    }
}

static void take_address(const struct reading *d, const struct record *rec,
                         struct dns_answer *a)
{
    struct ip_addr *to = &a->addr[a->n];

    a->n_seen++;
    if (a->n == DNSMSG_ADDRS_MAX)
        return;
    memset(to, 0, sizeof(*to));
    to->family = rec->type == DNS_A ? AF_INET : AF_INET6;
    memcpy(to->bytes, d->msg.p + rec->at, rec->len);
    if (rec->ttl_s < a->ttl_s)
        a->ttl_s = rec->ttl_s;
    a->n++;
}

static void second_pass(const struct reading *d, const struct dnsname *owner,
                        struct dns_answer *a)
{
    size_t pos = d->answers_at;
    struct record rec;

    for (uint32_t i = 0; i < d->n_answers && record_read(d->msg, &pos, &rec); i++)
        if (rec.type == d->type && dnsname_eq(&rec.owner, owner))
            take_address(d, &rec, a);
}

/* Header and question; 0 or -1. */
static int parse_head(struct reading *d, int id, struct dnsname *asked,
                      uint32_t *n_others, uint32_t *ret_rcode)
{
    struct wire_rd r = wire_rd_init(d->msg.p, d->msg.len);
    uint32_t got_id = wire_rd_uint(&r, 2), flags = wire_rd_uint(&r, 2);
    uint32_t n_questions = wire_rd_uint(&r, 2);
    struct dnsname name;
    size_t end;

    d->n_answers = wire_rd_uint(&r, 2);
    *n_others = wire_rd_uint(&r, 2);
    *n_others += wire_rd_uint(&r, 2);
    if (r.bad || (id >= 0 && got_id != (uint32_t)id) || !(flags & QR) || flags & TC ||
        (flags >> OPCODE_SHIFT & 0xf) != 0 || n_questions != 1)
        return -1;
    end = dnsname_read(d->msg, HEADER, false, &name);
    if (end == 0 || !dnsname_eq(&name, asked))
        return -1;
    r = wire_rd_init(d->msg.p + end, d->msg.len - end);
    if (wire_rd_uint(&r, 2) != d->type || wire_rd_uint(&r, 2) != CLASS_IN || r.bad)
        return -1;
    d->answers_at = (size_t)(r.p - d->msg.p);
    *ret_rcode = flags & RCODE_MASK;
    return 0;
}

int dnsmsg_parse_answer(struct span msg, int id, const char *name, uint16_t type,
                        struct dns_answer *ret)
{
    struct reading d = {.msg = msg, .type = type};
    struct dnsname at;
    uint32_t n_others, rcode;
    struct dns_answer a = {.ttl_s = TTL_TOP};

    if ((type != DNS_A && type != DNS_AAAA) || !dnsname_write(name, &at) ||
        parse_head(&d, id, &at, &n_others, &rcode) < 0)
        return -1;
    if (!first_pass(&d, n_others) || !walk_chain(&d, &at, &a.ttl_s))
        return -1;
    a.rcode = (enum dns_rcode)rcode;
    if (rcode == DNS_NOERROR)
        second_pass(&d, &at, &a);
    if (a.n == 0)
        a.ttl_s = 0;
    *ret = a;
    return 0;
}
