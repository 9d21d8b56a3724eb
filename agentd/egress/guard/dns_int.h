/* SPDX-License-Identifier: MIT */
/**
 * dns_int -- what the parts of the name server say to each other: dns_server.c decides
 *            and answers, dns_udp.c and dns_tcp.c carry.
 *
 * A carrier calls dns_server_question(), which may call the carrier's send function
 * before it returns, or later, or never.
 */
#ifndef AGENTD_EGRESS_GUARD_DNS_INT_H
#define AGENTD_EGRESS_GUARD_DNS_INT_H

#include "agentd/egress/guard/dns_server.h"
#include "agentd/egress/guard/dnsmsg.h"
#include "common/sock.h"

#define DNS_TCP_PIPELINE  16 /* questions of a connection in work; then it is not read */
#define DNS_TCP_OUT_MAX   65536 /* bytes of answers that a client has not taken; likewise */
#define DNS_UDP_TURN      64    /* datagrams read from a socket in one turn */
#define DNS_SOCKETS_PER_S 12    /* reply sockets asked of the keeper, which gives 16 */

/** Where a question came from and its reply goes. */
struct dns_client {
    struct dns_conn *conn;     /* TCP, borrowed until dns_server_forget(); NULL: UDP */
    struct sock_addr from, to; /* UDP */
};

void dns_server_question(struct dns_server *d, struct span msg,
                         const struct dns_client *from);
/** A connection ends: nobody waits for its answers any more. */
void dns_server_forget(struct dns_server *d, const struct dns_conn *c);

struct dns_udp;
struct dns_udp *dns_udp_new(struct ward *w, struct dns_server *d, int take_udp[2],
                            struct err *e);
void dns_udp_free(struct dns_udp *u);
void dns_udp_send(struct dns_udp *u, const struct dns_client *to, struct span reply);

struct dns_tcp;
struct dns_tcp *dns_tcp_new(struct ward *w, struct dns_server *d, struct err *e);
void dns_tcp_free(struct dns_tcp *t);
void dns_tcp_take(struct dns_tcp *t, int *take_fd);
/** The client's answer, with its length before it. */
void dns_conn_send(struct dns_conn *c, struct span reply);

#endif
