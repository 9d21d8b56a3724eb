/* SPDX-License-Identifier: MIT */
/*
 * A batch's frame, and the messages that are only names: tables, flushing, deleting.
 * Written by hand, without libnftnl's objects.
 */
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string.h>

#include "agentd/egress/kernel/nft_int.h"

/* -- the frame ----------------------------------------------------------------------- */

void batch_init(struct nft_batch *b, const char *table, uint32_t seq)
{
    *b = (struct nft_batch){.family = NFPROTO_INET, .table = table, .seq = seq};
}

void batch_done(struct nft_batch *b)
{
    rule_drop(b);
    buf_done(&b->bytes);
}

void batch_reset(struct nft_batch *b, const char *table, uint32_t seq)
{
    struct buf keep = b->bytes;
    uint32_t flags = b->table_flags, pin_mark = b->pin_mark;
    bool is_plain_before = b->is_plain_before;

    rule_drop(b);
    keep.len = 0;
    batch_init(b, table, seq);
    b->bytes = keep;
    b->table_flags = flags;
    b->pin_mark = pin_mark;
    b->is_plain_before = is_plain_before;
}

/* A message's head at the batch's end; NULL when there is no room. */
static struct nlmsghdr *head(struct nft_batch *b, uint16_t type, uint16_t flags,
                             uint8_t family, uint16_t res_id)
{
    struct nfgenmsg g = {
        .nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(res_id)};
    struct nlmsghdr *m;

    if (!b->is_failed && buf_reserve(&b->bytes, NFT_MESSAGE_MAX, NFT_BATCH_MAX) < 0)
        b->is_failed = true;
    if (b->is_failed)
        return NULL;
    b->last = b->bytes.len;
    m = (struct nlmsghdr *)(void *)(b->bytes.p + b->bytes.len);
    *m = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(sizeof(g)),
                           .nlmsg_type = type,
                           .nlmsg_flags = NLM_F_REQUEST | flags,
                           .nlmsg_seq = b->seq++};
    memcpy((uint8_t *)m + NLMSG_HDRLEN, &g, sizeof(g));
    return m;
}

struct nlmsghdr *batch_message(struct nft_batch *b, uint16_t type, uint16_t flags)
{
    return head(b, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags, b->family, 0);
}

void batch_message_end(struct nft_batch *b, const struct nlmsghdr *m)
{
    b->bytes.len += NLMSG_ALIGN(m->nlmsg_len);
}

void batch_begin(struct nft_batch *b)
{
    struct nlmsghdr *m =
        head(b, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);

    if (m != NULL)
        batch_message_end(b, m);
}

void batch_end(struct nft_batch *b)
{
    size_t last = b->last;
    struct nlmsghdr *m = head(b, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);

    if (m == NULL)
        return;
    batch_message_end(b, m);
    m = (struct nlmsghdr *)(void *)(b->bytes.p + last);
    m->nlmsg_flags |= NLM_F_ACK;
}

/* -- attributes ---------------------------------------------------------------------- */

static void put(struct nlmsghdr *m, uint16_t type, const void *p, size_t len)
{
    struct nlattr *a = (struct nlattr *)(void *)((uint8_t *)m + m->nlmsg_len);
    size_t whole = NLA_HDRLEN + len;

    *a = (struct nlattr){.nla_len = (uint16_t)whole, .nla_type = type};
    if (len > 0)
        memcpy((uint8_t *)a + NLA_HDRLEN, p, len);
    memset((uint8_t *)a + whole, 0, (size_t)NLA_ALIGN(whole) - whole);
    m->nlmsg_len += (uint32_t)NLA_ALIGN(whole);
}

/* Table, and the name of what is meant; NULL: none. */
static void names(struct nft_batch *b, uint16_t type, uint16_t flags, uint16_t name_type,
                  const char *name)
{
    struct nlmsghdr *m = batch_message(b, type, flags);

    if (m == NULL)
        return;
    /* NFTA_*_TABLE, in every kind of message. */
    put(m, NFTA_TABLE_NAME, b->table, strlen(b->table) + 1);
    if (name != NULL)
        put(m, name_type, name, strlen(name) + 1);
    batch_message_end(b, m);
}

static void table(struct nft_batch *b, uint32_t flags)
{
    const uint32_t wire = htonl(flags);
    struct nlmsghdr *m = batch_message(b, NFT_MSG_NEWTABLE, NLM_F_CREATE);

    if (m == NULL)
        return;
    put(m, NFTA_TABLE_NAME, b->table, strlen(b->table) + 1);
    if (flags != 0)
        put(m, NFTA_TABLE_FLAGS, &wire, sizeof wire);
    batch_message_end(b, m);
}

void build_table(struct nft_batch *b)
{
    table(b, b->table_flags);
}

/* Deleting what is not there is an error, so it is made first; what is there has to
 * be asked for as it is: who asks with these flags for a table that was left
 * becomes its owner. */
void build_table_anew(struct nft_batch *b)
{
    table(b, b->is_plain_before ? 0 : b->table_flags);
    build_table_drop(b);
    table(b, b->table_flags);
}

void build_table_drop(struct nft_batch *b)
{
    names(b, NFT_MSG_DELTABLE, 0, 0, NULL);
}

void build_chain_flush(struct nft_batch *b, const char *name)
{
    names(b, NFT_MSG_DELRULE, 0, NFTA_RULE_CHAIN, name);
}

void build_chain_drop(struct nft_batch *b, const char *name)
{
    names(b, NFT_MSG_DELCHAIN, 0, NFTA_CHAIN_NAME, name);
}

void build_set_flush(struct nft_batch *b, const char *name)
{
    names(b, NFT_MSG_DELSETELEM, 0, NFTA_SET_ELEM_LIST_SET, name);
}

void build_set_drop(struct nft_batch *b, const char *name)
{
    names(b, NFT_MSG_DELSET, 0, NFTA_SET_NAME, name);
}
