/* SPDX-License-Identifier: MIT */
/**
 * listeners -- the kernel's answer to "who listens": building the question, reading the
 *              answer, and choosing one socket for each port. No I/O.
 *
 * Source   linux/inet_diag.h, sock_diag(7). Answers come from the kernel, but are read
 * with the same care as any other bytes.
 */
#ifndef AGENTD_FORWARD_LISTENERS_H
#define AGENTD_FORWARD_LISTENERS_H

#include <stdint.h>

#include "agentd/forward/portwatch.h"
#include "common/span.h"

/** One listening socket, small because there may be thousands. */
struct listener {
    uint16_t port;
    uint8_t rank;    /* lower is better to dial */
    uint8_t is_v6;   /* addr is 16 bytes, else the first 4 */
    uint8_t is_dual; /* [::] that takes IPv4 too */
    uint32_t scope;  /* interface of a link-local address */
    uint32_t inode, uid;
    uint8_t addr[16];
};
struct listeners {
    struct listener *at; /* after listeners_choose(): sorted by port, one each */
    size_t n, cap;
};

#define LISTENERS_QUESTION_MAX 128
/** The dump request for AF_INET or AF_INET6; its length. */
size_t listeners_question(int family, uint32_t seq, uint8_t out[LISTENERS_QUESTION_MAX]);

enum listeners_result {
    LISTENERS_MORE,        /* the dump goes on in the next datagram */
    LISTENERS_DONE,        /* it ended */
    LISTENERS_INTERRUPTED, /* it ended, but the tables changed under it: ask again */
    LISTENERS_REFUSED,     /* the kernel answered with *ret_errno */
    LISTENERS_BAD,         /* not netlink as we know it */
    LISTENERS_NOMEM,
};
/** Read one datagram (4-aligned) of the answer to question `seq`, appending what it
 * lists. */
enum listeners_result listeners_read(struct listeners *l, struct span dgram, uint32_t seq,
                                     int *ret_errno);
/** Sort, and keep for each port the socket that is best to dial. */
void listeners_choose(struct listeners *l);
void listeners_done(struct listeners *l);
bool listener_is_same(const struct listener *a, const struct listener *b);
void listener_describe(const struct listener *l, struct portwatch_port *ret);

#endif
