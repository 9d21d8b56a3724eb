/* SPDX-License-Identifier: MIT */
/*
 * The words of nft_int.h, as netlink messages by libnftnl. libnftnl writes without
 * looking how much room there is: before each message NFT_MESSAGE_MAX bytes are made
 * free, which no message of ours comes near (the largest, elements, ends at 64 KiB, the
 * width of an attribute's length).
 */
#include "agentd/egress/kernel/nft_int.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "common/mem.h"

enum {
    VERDICT_TYPE = 0xffffff00, /* NFT_DATA_VERDICT: the data of a verdict map */
};

/* -- chains -------------------------------------------------------------------------- */

/* A comment, as nft(8) keeps it: type, length, text with its NUL. */
static uint32_t comment_bytes(uint8_t out[NFTNL_UDATA_COMMENT_MAXLEN + 2],
                              const char *comment)
{
    size_t len = strnlen(comment, NFTNL_UDATA_COMMENT_MAXLEN - 1);

    out[0] = 0; /* NFTNL_UDATA_*_COMMENT: 0 in rules, chains, tables and objects */
    out[1] = (uint8_t)(len + 1);
    memcpy(out + 2, comment, len);
    out[2 + len] = 0;
    return (uint32_t)len + 3;
}

void build_chain(struct nft_batch *b, const char *name, const struct nft_hook *hook,
                 const char *comment)
{
    uint8_t text[NFTNL_UDATA_COMMENT_MAXLEN + 2];
    struct nlmsghdr *m;
    struct nftnl_chain *c = nftnl_chain_alloc();

    if (c == NULL) {
        b->is_failed = true;
        return;
    }
    nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, b->table);
    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name);
    if (hook != NULL) {
        nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter");
        nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, hook->num);
        nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, hook->priority);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, hook->is_drop ? NF_DROP : NF_ACCEPT);
        if (hook->device != NULL)
            nftnl_chain_set_str(c, NFTNL_CHAIN_DEV, hook->device);
    }
    if (comment != NULL)
        nftnl_chain_set_data(c, NFTNL_CHAIN_USERDATA, text, comment_bytes(text, comment));
    m = batch_message(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
    if (m != NULL) {
        nftnl_chain_nlmsg_build_payload(m, c);
        batch_message_end(b, m);
    }
    nftnl_chain_free(c);
}

/* -- sets ---------------------------------------------------------------------------- */

void build_set(struct nft_batch *b, const struct nft_set_def *d)
{
    struct nftnl_set *s = nftnl_set_alloc();
    struct nlmsghdr *m;

    if (s == NULL) {
        b->is_failed = true;
        return;
    }
    nftnl_set_set_str(s, NFTNL_SET_TABLE, b->table);
    nftnl_set_set_str(s, NFTNL_SET_NAME, d->name);
    nftnl_set_set_u32(s, NFTNL_SET_ID, ++b->set_id);
    nftnl_set_set_u32(s, NFTNL_SET_FLAGS, d->flags);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, d->type);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, d->len);
    if (d->n_fields > 0)
        (void)nftnl_set_set_data(s, NFTNL_SET_DESC_CONCAT, d->field, d->n_fields);
    if (d->size > 0)
        nftnl_set_set_u32(s, NFTNL_SET_DESC_SIZE, d->size);
    if (d->timeout_ms > 0)
        nftnl_set_set_u64(s, NFTNL_SET_TIMEOUT, d->timeout_ms);
    if (d->is_vmap) {
        nftnl_set_set_u32(s, NFTNL_SET_DATA_TYPE, VERDICT_TYPE);
        nftnl_set_set_u32(s, NFTNL_SET_DATA_LEN, 0);
    }
    m = batch_message(b, NFT_MSG_NEWSET, NLM_F_CREATE);
    if (m != NULL) {
        nftnl_set_nlmsg_build_payload(m, s);
        batch_message_end(b, m);
    }
    nftnl_set_free(s);
}

static int elem_add(struct nftnl_set *s, const struct nft_elem *e)
{
    struct nftnl_set_elem *x = nftnl_set_elem_alloc();

    if (x == NULL)
        return -1;
    (void)nftnl_set_elem_set(x, NFTNL_SET_ELEM_KEY, e->key, e->len);
    if (e->has_end)
        (void)nftnl_set_elem_set(x, NFTNL_SET_ELEM_KEY_END, e->end, e->len);
    if (e->is_closing)
        nftnl_set_elem_set_u32(x, NFTNL_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    if (e->go != NULL) {
        nftnl_set_elem_set_u32(x, NFTNL_SET_ELEM_VERDICT, (uint32_t)NFT_GOTO);
        (void)nftnl_set_elem_set_str(x, NFTNL_SET_ELEM_CHAIN, e->go);
    }
    nftnl_set_elem_add(s, x);
    return 0;
}

/* libnftnl numbers the elements of a list, which the kernel does not mind, but its own
 * reader refuses. Ours are to be read again, to be compared with what the kernel has. */
static void unnumber(struct nlmsghdr *m)
{
    struct nlattr *a = mnl_nlmsg_get_payload_offset(m, sizeof(struct nfgenmsg));
    char *end = mnl_nlmsg_get_payload_tail(m);

    while (mnl_attr_ok(a, (int)(end - (char *)a))) {
        if (mnl_attr_get_type(a) == NFTA_SET_ELEM_LIST_ELEMENTS) {
            end = (char *)a + a->nla_len;
            a = mnl_attr_get_payload(a);
            break;
        }
        a = mnl_attr_next(a);
    }
    for (; mnl_attr_ok(a, (int)(end - (char *)a)); a = mnl_attr_next(a))
        a->nla_type = NLA_F_NESTED | NFTA_LIST_ELEM;
}

static void elems(struct nft_batch *b, uint16_t type, const char *set,
                  const struct nft_elem *e, size_t n)
{
    struct nftnl_set_elems_iter *it = NULL;
    struct nftnl_set *s;
    bool is_more = true;

    if (n == 0 || b->is_failed)
        return;
    s = nftnl_set_alloc();
    if (s == NULL) {
        b->is_failed = true;
        return;
    }
    nftnl_set_set_str(s, NFTNL_SET_TABLE, b->table);
    nftnl_set_set_str(s, NFTNL_SET_NAME, set);
    for (size_t i = 0; i < n && !b->is_failed; i++)
        b->is_failed = elem_add(s, &e[i]) < 0;
    it = b->is_failed ? NULL : nftnl_set_elems_iter_create(s);
    b->is_failed = it == NULL;
    while (is_more && !b->is_failed) {
        struct nlmsghdr *m =
            batch_message(b, type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0);

        if (m == NULL)
            break;
        is_more = nftnl_set_elems_nlmsg_build_payload_iter(m, it) > 0;
        unnumber(m);
        batch_message_end(b, m);
    }
    if (it != NULL)
        nftnl_set_elems_iter_destroy(it);
    nftnl_set_free(s);
}

void build_elems(struct nft_batch *b, const char *set, const struct nft_elem *e, size_t n)
{
    elems(b, NFT_MSG_NEWSETELEM, set, e, n);
}

void build_elems_drop(struct nft_batch *b, const char *set, const struct nft_elem *e,
                      size_t n)
{
    elems(b, NFT_MSG_DELSETELEM, set, e, n);
}

/* -- objects ------------------------------------------------------------------------- */

static void object_message(struct nft_batch *b, uint16_t type, uint16_t flags,
                           struct nftnl_obj *o)
{
    struct nlmsghdr *m = batch_message(b, type, flags);

    if (m != NULL) {
        nftnl_obj_nlmsg_build_payload(m, o);
        batch_message_end(b, m);
    }
    nftnl_obj_free(o);
}

static struct nftnl_obj *object(struct nft_batch *b, const char *name, uint32_t type)
{
    struct nftnl_obj *o = nftnl_obj_alloc();

    if (o == NULL) {
        b->is_failed = true;
        return NULL;
    }
    nftnl_obj_set_str(o, NFTNL_OBJ_TABLE, b->table);
    nftnl_obj_set_str(o, NFTNL_OBJ_NAME, name);
    nftnl_obj_set_u32(o, NFTNL_OBJ_TYPE, type);
    return o;
}

void build_counter(struct nft_batch *b, const char *name)
{
    struct nftnl_obj *o = object(b, name, NFT_OBJECT_COUNTER);

    if (o == NULL)
        return;
    nftnl_obj_set_u64(o, NFTNL_OBJ_CTR_PKTS, 0);
    nftnl_obj_set_u64(o, NFTNL_OBJ_CTR_BYTES, 0);
    object_message(b, NFT_MSG_NEWOBJ, NLM_F_CREATE, o);
}

void build_quota(struct nft_batch *b, const char *name, uint64_t bytes)
{
    struct nftnl_obj *o = object(b, name, NFT_OBJECT_QUOTA);

    if (o == NULL)
        return;
    nftnl_obj_set_u64(o, NFTNL_OBJ_QUOTA_BYTES, bytes);
    nftnl_obj_set_u32(o, NFTNL_OBJ_QUOTA_FLAGS, NFT_QUOTA_F_INV);
    object_message(b, NFT_MSG_NEWOBJ, NLM_F_CREATE, o);
}

void build_object_drop(struct nft_batch *b, const char *name, uint32_t type)
{
    struct nftnl_obj *o = object(b, name, type);

    if (o != NULL)
        object_message(b, NFT_MSG_DELOBJ, 0, o);
}

/* -- rules --------------------------------------------------------------------------- */

void rule_drop(struct nft_batch *b)
{
    if (b->rule != NULL)
        nftnl_rule_free(b->rule);
    b->rule = NULL;
}

void rule_begin(struct nft_batch *b, const char *chain)
{
    if (b->is_failed)
        return;
    b->rule = nftnl_rule_alloc();
    if (b->rule == NULL) {
        b->is_failed = true;
        return;
    }
    nftnl_rule_set_str(b->rule, NFTNL_RULE_TABLE, b->table);
    nftnl_rule_set_str(b->rule, NFTNL_RULE_CHAIN, chain);
}

void rule_end(struct nft_batch *b, const char *comment)
{
    uint8_t text[NFTNL_UDATA_COMMENT_MAXLEN + 2];
    struct nlmsghdr *m;

    if (b->rule == NULL)
        return;
    if (comment != NULL)
        nftnl_rule_set_data(b->rule, NFTNL_RULE_USERDATA, text,
                            comment_bytes(text, comment));
    m = batch_message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    if (m != NULL) {
        nftnl_rule_nlmsg_build_payload(m, b->rule);
        batch_message_end(b, m);
    }
    nftnl_rule_free(b->rule);
    b->rule = NULL;
}

/* A new expression at the rule's end; NULL after a failure. */
static struct nftnl_expr *expr(struct nft_batch *b, const char *name)
{
    struct nftnl_expr *e =
        b->is_failed || b->rule == NULL ? NULL : nftnl_expr_alloc(name);

    if (e == NULL)
        b->is_failed = true;
    else
        nftnl_rule_add_expr(b->rule, e);
    return e;
}

void rule_meta(struct nft_batch *b, uint32_t key, uint32_t reg)
{
    struct nftnl_expr *e = expr(b, "meta");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, reg);
}

static void immediate(struct nft_batch *b, const void *p, uint32_t len)
{
    struct nftnl_expr *e = expr(b, "immediate");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
    (void)nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, p, len);
}

void rule_mark(struct nft_batch *b, uint32_t mark)
{
    struct nftnl_expr *e;

    immediate(b, &mark, sizeof(mark));
    e = expr(b, "meta");
    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, NFT_META_MARK);
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_SREG, NFT_REG_1);
}

void rule_payload(struct nft_batch *b, uint32_t base, uint32_t offset, uint32_t len,
                  uint32_t reg)
{
    struct nftnl_expr *e = expr(b, "payload");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, len);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, reg);
}

void rule_cmp(struct nft_batch *b, uint32_t op, const void *p, uint32_t len)
{
    struct nftnl_expr *e = expr(b, "cmp");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, op);
    (void)nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, p, len);
}

void rule_cmp8(struct nft_batch *b, uint32_t op, uint8_t v)
{
    rule_cmp(b, op, &v, sizeof(v));
}

void rule_cmp16(struct nft_batch *b, uint32_t op, uint16_t v)
{
    v = htons(v);
    rule_cmp(b, op, &v, sizeof(v));
}

void rule_cmp32(struct nft_batch *b, uint32_t op, uint32_t v)
{
    rule_cmp(b, op, &v, sizeof(v));
}

void rule_and(struct nft_batch *b, const void *mask, uint32_t len)
{
    static const uint8_t none[16];
    struct nftnl_expr *e = expr(b, "bitwise");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, len);
    (void)nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, mask, len);
    (void)nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, none, len);
}

static struct nftnl_expr *lookup(struct nft_batch *b, const char *set)
{
    struct nftnl_expr *e = expr(b, "lookup");

    if (e == NULL)
        return NULL;
    nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
    (void)nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, set);
    nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, 0);
    return e;
}

void rule_lookup(struct nft_batch *b, const char *set, bool is_not)
{
    struct nftnl_expr *e = lookup(b, set);

    if (e != NULL && is_not)
        nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
}

void rule_vmap(struct nft_batch *b, const char *set)
{
    struct nftnl_expr *e = lookup(b, set);

    if (e != NULL)
        nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
}

void rule_ct_state(struct nft_batch *b, uint32_t bits)
{
    struct nftnl_expr *e = expr(b, "ct");
    uint32_t none = 0;

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_STATE);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
    rule_and(b, &bits, sizeof(bits));
    rule_cmp(b, NFT_CMP_NEQ, &none, sizeof(none));
}

void rule_ct_reply(struct nft_batch *b)
{
    struct nftnl_expr *e = expr(b, "ct");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_DIRECTION);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
    rule_cmp8(b, NFT_CMP_EQ, 1);
}

void rule_ct_over(struct nft_batch *b, uint32_t n)
{
    struct nftnl_expr *e = expr(b, "connlimit");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_CONNLIMIT_COUNT, n);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CONNLIMIT_FLAGS, NFT_CONNLIMIT_F_INV);
}

void rule_socket(struct nft_batch *b, uint32_t key, uint8_t v)
{
    struct nftnl_expr *e = expr(b, "socket");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_SOCKET_KEY, key);
    nftnl_expr_set_u32(e, NFTNL_EXPR_SOCKET_DREG, NFT_REG_1);
    rule_cmp8(b, NFT_CMP_EQ, v);
}

static void object_use(struct nft_batch *b, const char *name, uint32_t type)
{
    struct nftnl_expr *e = expr(b, "objref");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_OBJREF_IMM_TYPE, type);
    (void)nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_IMM_NAME, name);
}

void rule_counter(struct nft_batch *b, const char *name)
{
    object_use(b, name, NFT_OBJECT_COUNTER);
}

void rule_quota(struct nft_batch *b, const char *name)
{
    object_use(b, name, NFT_OBJECT_QUOTA);
}

void rule_limit_each(struct nft_batch *b, const char *set, uint32_t per_s, uint32_t burst)
{
    struct nftnl_expr *e = expr(b, "dynset"), *limit;

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
    nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_SREG_KEY, NFT_REG_1);
    (void)nftnl_expr_set_str(e, NFTNL_EXPR_DYNSET_SET_NAME, set);
    nftnl_expr_set_u64(e, NFTNL_EXPR_DYNSET_TIMEOUT, 0); /* the set's */
    limit = nftnl_expr_alloc("limit");
    if (limit == NULL) {
        b->is_failed = true;
        return;
    }
    nftnl_expr_set_u64(limit, NFTNL_EXPR_LIMIT_RATE, per_s);
    nftnl_expr_set_u64(limit, NFTNL_EXPR_LIMIT_UNIT, 1);
    nftnl_expr_set_u32(limit, NFTNL_EXPR_LIMIT_BURST, burst);
    nftnl_expr_set_u32(limit, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
    nftnl_expr_add_expr(e, NFTNL_EXPR_DYNSET_EXPR, limit);
}

void rule_element(struct nft_batch *b, const char *set, uint32_t life_s)
{
    struct nftnl_expr *e = expr(b, "dynset");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_OP,
                       life_s > 0 ? NFT_DYNSET_OP_UPDATE : NFT_DYNSET_OP_DELETE);
    nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_SREG_KEY, NFT_REG_1);
    (void)nftnl_expr_set_str(e, NFTNL_EXPR_DYNSET_SET_NAME, set);
    /* Of no use where it is deleted, but the kernel's dump has it there, too. */
    nftnl_expr_set_u64(e, NFTNL_EXPR_DYNSET_TIMEOUT, (uint64_t)life_s * 1000);
}

void rule_log(struct nft_batch *b, const char *prefix)
{
    struct nftnl_expr *e = expr(b, "log");

    if (e == NULL)
        return;
    (void)nftnl_expr_set_str(e, NFTNL_EXPR_LOG_PREFIX, prefix);
    nftnl_expr_set_u16(e, NFTNL_EXPR_LOG_GROUP, EGRESS_NFLOG);
    nftnl_expr_set_u32(e, NFTNL_EXPR_LOG_SNAPLEN, NFT_LOG_BYTES);
}

void rule_tproxy(struct nft_batch *b, uint16_t port)
{
    struct nftnl_expr *e;

    port = htons(port);
    immediate(b, &port, sizeof(port));
    e = expr(b, "tproxy");
    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_TPROXY_FAMILY, NFPROTO_UNSPEC);
    nftnl_expr_set_u32(e, NFTNL_EXPR_TPROXY_REG_PORT, NFT_REG_1);
}

void rule_reject(struct nft_batch *b, bool is_reset)
{
    struct nftnl_expr *e = expr(b, "reject");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_REJECT_TYPE,
                       is_reset ? NFT_REJECT_TCP_RST : NFT_REJECT_ICMPX_UNREACH);
    nftnl_expr_set_u8(e, NFTNL_EXPR_REJECT_CODE,
                      is_reset ? 0 : NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
}

void rule_verdict(struct nft_batch *b, int verdict, const char *chain)
{
    struct nftnl_expr *e = expr(b, "immediate");

    if (e == NULL)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
    if (chain != NULL)
        (void)nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, chain);
}
