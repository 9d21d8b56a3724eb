/* SPDX-License-Identifier: MIT */
/*
 * What the kernel says of a table: dumps, and what messages say as lines of text, the
 * same for ours and for the kernel's. libnftnl's printing is stable within a process,
 * which is all that comparing needs.
 */
#include "agentd/egress/kernel/nft_int.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"

enum {
    DUMP_TRIES = 20,
    EXPR_TEXT_MAX = 1024,
};

static struct nlmsghdr *message_at(void *p)
{
    return p;
}

/* -- what messages say --------------------------------------------------------------- */

static int add_hex(struct buf *out, const uint8_t *p, size_t n)
{
    int rc = buf_adds(out, " ");

    for (size_t i = 0; i < n && rc == 0; i++)
        rc = buf_addf(out, "%02x", p[i]);
    return rc;
}

/* An attribute within another. */
static const struct nlattr *inner(const struct nlattr *outer, uint16_t type)
{
    const struct nlattr *a = outer == NULL ? NULL : mnl_attr_get_payload(outer);
    const char *end = (const char *)outer + (outer == NULL ? 0 : outer->nla_len);

    for (; a != NULL && mnl_attr_ok(a, (int)(end - (const char *)a));
         a = mnl_attr_next(a))
        if (mnl_attr_get_type(a) == type)
            return a;
    return NULL;
}

struct rule_lines {
    struct buf *out;
    const struct nlattr *at; /* the expression as it came */
};

/* libnftnl writes an object's name without its NUL and reads it as if it had one, so the
 * name is taken from the attribute, which has a length. */
static int objref_text(const struct rule_lines *l)
{
    const struct nlattr *body = inner(l->at, NFTA_EXPR_DATA);
    const struct nlattr *name = inner(body, NFTA_OBJREF_IMM_NAME);
    const struct nlattr *type = inner(body, NFTA_OBJREF_IMM_TYPE);

    if (name == NULL || type == NULL || mnl_attr_get_payload_len(type) != 4)
        return buf_adds(l->out, " [objref]");
    return buf_addf(
        l->out, " [objref %u %.*s]", ntohl(mnl_attr_get_u32(type)),
        (int)strnlen(mnl_attr_get_payload(name), mnl_attr_get_payload_len(name)),
        (const char *)mnl_attr_get_payload(name));
}

static int expr_text(struct nftnl_expr *x, void *arg)
{
    struct rule_lines *l = arg;
    const char *name = nftnl_expr_get_str(x, NFTNL_EXPR_NAME);
    char text[EXPR_TEXT_MAX];
    int n = nftnl_expr_snprintf(text, sizeof(text), x, NFTNL_OUTPUT_DEFAULT, 0), rc;

    if (n < 0 || l->at == NULL)
        return -1;
    if (strcmp(name, "objref") == 0)
        rc = objref_text(l);
    else
        rc = buf_addf(l->out, " [%s %.*s]", name, (int)sizeof(text), text);
    l->at = mnl_attr_next(l->at);
    return rc;
}

static int rule_text(const struct nlmsghdr *m, const char *family, struct buf *out)
{
    struct nftnl_rule *r = nftnl_rule_alloc();
    struct span list = message_attr(m, sizeof(struct nfgenmsg), NFTA_RULE_EXPRESSIONS);
    struct rule_lines l = {out, (const struct nlattr *)(const void *)list.p};
    int rc = r == NULL ? -1 : nftnl_rule_nlmsg_parse(m, r);

    if (rc >= 0)
        rc = buf_addf(out, "rule %s %s\t", family,
                      nftnl_rule_get_str(r, NFTNL_RULE_CHAIN));
    if (rc >= 0)
        rc = nftnl_expr_foreach(r, expr_text, &l);
    if (rc >= 0)
        rc = buf_adds(out, "\n");
    if (r != NULL)
        nftnl_rule_free(r);
    return rc < 0 ? -1 : 0;
}

static int chain_text(const struct nlmsghdr *m, const char *family, struct buf *out)
{
    struct nftnl_chain *c = nftnl_chain_alloc();
    int rc = c == NULL ? -1 : nftnl_chain_nlmsg_parse(m, c);

    if (rc >= 0)
        rc = buf_addf(out, "chain %s %s\t", family,
                      nftnl_chain_get_str(c, NFTNL_CHAIN_NAME));
    if (rc >= 0 && nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM))
        rc = buf_addf(out, "hook %u priority %d policy %u",
                      nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM),
                      nftnl_chain_get_s32(c, NFTNL_CHAIN_PRIO),
                      nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY));
    if (rc >= 0 && nftnl_chain_is_set(c, NFTNL_CHAIN_DEV))
        rc = buf_addf(out, " device %s", nftnl_chain_get_str(c, NFTNL_CHAIN_DEV));
    if (rc >= 0)
        rc = buf_adds(out, "\n");
    if (c != NULL)
        nftnl_chain_free(c);
    return rc < 0 ? -1 : 0;
}

static int table_text(const struct nlmsghdr *m, const char *family, struct buf *out)
{
    struct nftnl_table *t = nftnl_table_alloc();
    int rc = t == NULL ? -1 : nftnl_table_nlmsg_parse(m, t);

    if (rc >= 0) /* flag 1: dormant, that is, switched off */
        rc = buf_addf(out, "table %s %s\tflags %u\n", family,
                      nftnl_table_get_str(t, NFTNL_TABLE_NAME),
                      nftnl_table_get_u32(t, NFTNL_TABLE_FLAGS));
    if (t != NULL)
        nftnl_table_free(t);
    return rc < 0 ? -1 : 0;
}

/* What rules write to has a size, if only the kernel's. */
static uint32_t size_of(const struct nftnl_set *s)
{
    uint32_t size = nftnl_set_get_u32(s, NFTNL_SET_DESC_SIZE);

    return size == 0 && nftnl_set_get_u32(s, NFTNL_SET_FLAGS) & NFT_SET_EVAL
               ? NFT_PINS_SEALED
               : size;
}

static int set_text(const struct nlmsghdr *m, const char *family, struct buf *out)
{
    struct nftnl_set *s = nftnl_set_alloc();
    int rc = s == NULL ? -1 : nftnl_set_nlmsg_parse(m, s);

    if (rc >= 0)
        rc = buf_addf(out, "set %s %s\tflags %u key %u size %u timeout %llu\n", family,
                      nftnl_set_get_str(s, NFTNL_SET_NAME),
                      nftnl_set_get_u32(s, NFTNL_SET_FLAGS),
                      nftnl_set_get_u32(s, NFTNL_SET_KEY_LEN), size_of(s),
                      (unsigned long long)nftnl_set_get_u64(s, NFTNL_SET_TIMEOUT));
    if (s != NULL)
        nftnl_set_free(s);
    return rc < 0 ? -1 : 0;
}

struct elem_lines {
    struct buf *out;
    const char *family, *set;
};

static int elem_text(struct nftnl_set_elem *x, void *arg)
{
    struct elem_lines *l = arg;
    uint32_t len = 0;
    const uint8_t *p = nftnl_set_elem_get(x, NFTNL_SET_ELEM_KEY, &len);
    int rc = buf_addf(l->out, "element %s %s\t", l->family, l->set);

    if (rc == 0 && p != NULL)
        rc = add_hex(l->out, p, len);
    p = nftnl_set_elem_get(x, NFTNL_SET_ELEM_KEY_END, &len);
    if (rc == 0 && p != NULL)
        rc = add_hex(l->out, p, len);
    if (rc == 0 && nftnl_set_elem_is_set(x, NFTNL_SET_ELEM_FLAGS))
        rc = buf_addf(l->out, " flags %u",
                      nftnl_set_elem_get_u32(x, NFTNL_SET_ELEM_FLAGS));
    if (rc == 0 && nftnl_set_elem_is_set(x, NFTNL_SET_ELEM_CHAIN))
        rc = buf_addf(l->out, " %s", nftnl_set_elem_get_str(x, NFTNL_SET_ELEM_CHAIN));
    return rc == 0 ? buf_adds(l->out, "\n") : -1;
}

static bool is_changing(const char *set)
{
    return set == NULL || strcmp(set, "pin4") == 0 || strcmp(set, "pin6") == 0 ||
           strcmp(set, "told") == 0;
}

static int elems_text(const struct nlmsghdr *m, const char *family, struct buf *out)
{
    struct nftnl_set *s = nftnl_set_alloc();
    int rc = s == NULL ? -1 : nftnl_set_elems_nlmsg_parse(m, s);
    struct elem_lines l = {out, family, NULL};

    if (rc >= 0) {
        l.set = nftnl_set_get_str(s, NFTNL_SET_NAME);
        if (!is_changing(l.set))
            rc = nftnl_set_elem_foreach(s, elem_text, &l);
    }
    if (s != NULL)
        nftnl_set_free(s);
    return rc < 0 ? -1 : 0;
}

static int object_text(const struct nlmsghdr *m, const char *family, struct buf *out)
{
    struct nftnl_obj *o = nftnl_obj_alloc();
    int rc = o == NULL ? -1 : nftnl_obj_nlmsg_parse(m, o);

    if (rc >= 0)
        rc = buf_addf(out, "object %s %s\ttype %u", family,
                      nftnl_obj_get_str(o, NFTNL_OBJ_NAME),
                      nftnl_obj_get_u32(o, NFTNL_OBJ_TYPE));
    /* The attributes of all kinds have the same numbers. */
    if (rc >= 0 && nftnl_obj_get_u32(o, NFTNL_OBJ_TYPE) == NFT_OBJECT_QUOTA)
        rc = buf_addf(out, " bytes %llu",
                      (unsigned long long)nftnl_obj_get_u64(o, NFTNL_OBJ_QUOTA_BYTES));
    if (rc >= 0)
        rc = buf_adds(out, "\n");
    if (o != NULL)
        nftnl_obj_free(o);
    return rc < 0 ? -1 : 0;
}

static int message_text(const struct nlmsghdr *m, struct buf *out)
{
    static const struct {
        uint16_t type;
        int (*text)(const struct nlmsghdr *m, const char *family, struct buf *out);
    } row[] = {
        {NFT_MSG_NEWTABLE, table_text},   {NFT_MSG_NEWCHAIN, chain_text},
        {NFT_MSG_NEWRULE, rule_text},     {NFT_MSG_NEWSET, set_text},
        {NFT_MSG_NEWSETELEM, elems_text}, {NFT_MSG_NEWOBJ, object_text},
    };
    const struct nfgenmsg *g = mnl_nlmsg_get_payload(m);

    if (mnl_nlmsg_get_payload_len(m) < sizeof(*g))
        return 0;
    for (size_t i = 0; i < COUNT_OF(row); i++)
        if (m->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | row[i].type))
            return row[i].text(m, g->nfgen_family == NFPROTO_NETDEV ? "netdev" : "inet",
                               out);
    return 0;
}

int link_expected(const struct nft_batch *b, struct buf *out, struct err *e)
{
    const struct nlmsghdr *m = message_at(b->bytes.p);
    int left = (int)b->bytes.len;

    if (b->is_failed)
        return err_set(e, ERR_NOMEM, "no memory to verify the rules");
    for (; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left))
        if (message_text(m, out) < 0)
            return err_set(e, ERR_NOMEM, "no memory to verify the rules");
    return 0;
}

/* -- dumps --------------------------------------------------------------------------- */

struct dump {
    struct nft_link *l;
    const char *table;
    uint8_t family;
    struct buf *out;
    struct buf *sets; /* names met, each with its NUL */
    int gen;          /* the rules' generation, 16 bits; -1: none yet */
    bool is_torn;     /* they changed meanwhile: again */
};

static int dump_message(struct dump *d, const struct nlmsghdr *m, struct err *e)
{
    const struct nfgenmsg *g = mnl_nlmsg_get_payload(m);
    char name[64];

    if (mnl_nlmsg_get_payload_len(m) < sizeof(*g))
        return err_set(e, ERR_PROTO, "nftables: a message of a dump is cut");
    if (m->nlmsg_flags & NLM_F_DUMP_INTR || (d->gen >= 0 && d->gen != ntohs(g->res_id)))
        d->is_torn = true;
    d->gen = ntohs(g->res_id);
    /* NFTA_*_TABLE is 1 in every kind of message, the table's own name too. */
    message_text_attr(m, NFTA_CHAIN_TABLE, name, sizeof(name));
    if (g->nfgen_family != d->family || strcmp(name, d->table) != 0)
        return 0;
    if (m->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSET)) {
        message_text_attr(m, NFTA_SET_NAME, name, sizeof(name));
        if (!is_changing(name) && buf_add(d->sets, name, strlen(name) + 1) < 0)
            return err_set(e, ERR_NOMEM, "no memory to verify the rules");
    }
    if (message_text(m, d->out) < 0)
        return err_set(e, ERR_NOMEM, "no memory to verify the rules");
    return 0;
}

/* 1: the dump is over. */
static int dump_some(struct dump *d, size_t len, uint32_t seq, struct err *e)
{
    const struct nlmsghdr *m = message_at(d->l->in);
    int left = (int)len;

    for (; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
        const struct nlmsgerr *r = mnl_nlmsg_get_payload(m);

        if (m->nlmsg_seq != seq)
            continue;
        if (m->nlmsg_flags & NLM_F_DUMP_INTR)
            d->is_torn = true;
        if (m->nlmsg_type == NLMSG_DONE)
            return 1;
        if (m->nlmsg_type == NLMSG_ERROR && r->error == -EINTR) {
            d->is_torn = true;
            return 1;
        }
        if (m->nlmsg_type == NLMSG_ERROR && r->error == -ENOENT)
            return 1; /* no such table, no such set: nothing is what there is */
        if (m->nlmsg_type == NLMSG_ERROR)
            return err_set_at(e, ERR_SYS, -r->error, ERR_WHERE, "nftables: dump: %s",
                              strerror(-r->error));
        if (dump_message(d, m, e) < 0)
            return -1;
    }
    return 0;
}

static int dump_kind(struct dump *d, uint16_t type, const char *set, struct err *e)
{
    char request[256];
    struct nlmsghdr *m =
        nftnl_nlmsg_build_hdr(request, type, d->family, NLM_F_DUMP, d->l->seq++);
    uint32_t seq = m->nlmsg_seq;
    int rc = 0;

    if (type != NFT_MSG_GETTABLE)
        mnl_attr_put_strz(m, NFTA_CHAIN_TABLE, d->table);
    if (set != NULL)
        mnl_attr_put_strz(m, NFTA_SET_ELEM_LIST_SET, set);
    if (link_send(d->l, m, m->nlmsg_len, e) < 0)
        return -1;
    while (rc == 0) {
        ssize_t n = link_take(d->l, e);

        rc = n < 0 ? -1 : dump_some(d, (size_t)n, seq, e);
    }
    return rc < 0 ? -1 : 0;
}

static int dump_family(struct dump *d, struct err *e)
{
    static const uint16_t kinds[] = {NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE,
                                     NFT_MSG_GETSET, NFT_MSG_GETOBJ};
    const char *set;

    d->sets->len = 0;
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (dump_kind(d, kinds[i], NULL, e) < 0)
            return -1;
    for (size_t at = 0; at < d->sets->len; at += strlen(set) + 1) {
        set = (const char *)d->sets->p + at;
        if (dump_kind(d, NFT_MSG_GETSETELEM, set, e) < 0)
            return -1;
    }
    return 0;
}

int link_dump(struct nft_link *l, const char *table, bool has_netdev, struct buf *out,
              struct err *e)
{
    AUTO(buf_done)
    struct buf sets = BUF_INIT;

    link_drain(l);
    for (int i = 0; i < DUMP_TRIES; i++) {
        struct dump d = {l, table, NFPROTO_INET, out, &sets, -1, false};

        out->len = 0;
        if (dump_family(&d, e) < 0)
            return -1;
        d.family = NFPROTO_NETDEV;
        if (has_netdev && dump_family(&d, e) < 0)
            return -1;
        if (!d.is_torn)
            return 0;
    }
    return err_set(e, ERR_TIMEOUT,
                   "nftables: the rules change faster than they are read");
}

/* One question, one answer, in l->in. `what` is for words. */
static const struct nlmsghdr *ask(struct nft_link *l, const struct nlmsghdr *question,
                                  const char *what, struct err *e)
{
    const struct nlmsghdr *m;
    const struct nlmsgerr *r;
    ssize_t n;

    link_drain(l);
    if (link_send(l, question, question->nlmsg_len, e) < 0)
        return NULL;
    n = link_take(l, e);
    if (n < 0)
        return NULL;
    m = message_at(l->in);
    if (!mnl_nlmsg_ok(m, (int)n) || m->nlmsg_seq != question->nlmsg_seq) {
        (void)err_set(e, ERR_PROTO, "nftables: an answer that was not asked for");
        return NULL;
    }
    if (m->nlmsg_type != NLMSG_ERROR)
        return m;
    r = mnl_nlmsg_get_payload(m);
    (void)err_set_at(e, r->error == -ENOENT ? ERR_NOTFOUND : ERR_SYS, -r->error,
                     ERR_WHERE, "nftables: read %s: %s", what, strerror(-r->error));
    return NULL;
}

int link_generation(struct nft_link *l, uint32_t *ret, struct err *e)
{
    char request[64];
    const struct nlmsghdr *m = ask(
        l, nftnl_nlmsg_build_hdr(request, NFT_MSG_GETGEN, NFPROTO_UNSPEC, 0, l->seq++),
        "the generation", e);
    struct span id;

    if (m == NULL)
        return -1;
    id = message_attr(m, sizeof(struct nfgenmsg), NFTA_GEN_ID);
    if (id.len != sizeof(*ret))
        return err_set(e, ERR_PROTO, "nftables: a generation without its number");
    memcpy(ret, id.p, sizeof(*ret));
    return 0;
}

int link_counter(struct nft_link *l, const char *table, const char *name,
                 uint64_t *ret_packets, uint64_t *ret_bytes, struct err *e)
{
    char request[256];
    struct nlmsghdr *question =
        nftnl_nlmsg_build_hdr(request, NFT_MSG_GETOBJ, NFPROTO_INET, 0, l->seq++);
    const struct nlmsghdr *m;
    struct nftnl_obj *o;

    mnl_attr_put_strz(question, NFTA_OBJ_TABLE, table);
    mnl_attr_put_strz(question, NFTA_OBJ_NAME, name);
    mnl_attr_put_u32(question, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
    m = ask(l, question, name, e);
    if (m == NULL)
        return -1;
    o = nftnl_obj_alloc();
    if (o == NULL || nftnl_obj_nlmsg_parse(m, o) < 0) {
        if (o != NULL)
            nftnl_obj_free(o);
        return err_set(e, ERR_NOMEM, "no memory for a counter");
    }
    *ret_packets = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_PKTS);
    *ret_bytes = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_BYTES);
    nftnl_obj_free(o);
    return 0;
}
