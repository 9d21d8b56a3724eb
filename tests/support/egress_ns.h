/* SPDX-License-Identifier: MIT */
/**
 * egress_ns -- a test's body in a network namespace of its own, in a child, with real
 * packets.
 *
 * The child asserts by NEED(), which ends it: cmocka's asserts would go on in the wrong
 * process.
 */
#ifndef TESTS_SUPPORT_EGRESS_NS_H
#define TESTS_SUPPORT_EGRESS_NS_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agentd/egress/kernel/nft.h"

#define NEED(x)                                                                          \
    do {                                                                                 \
        if (!(x)) {                                                                      \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x);        \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)
/** As NEED(), for calls that fill `e`. */
#define NEED_OK(x)                                                                       \
    do {                                                                                 \
        struct err e = {0};                                                              \
        if ((x) < 0) {                                                                   \
            (void)fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, e.msg);     \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

enum {
    EGRESS_NS_MS = 3000, /* until what must happen at once has failed to */
};

/** Run `body` in a child with a network namespace, and a user namespace around it when
 *  `is_user` (always when not root). Skips the test, saying so, where the kernel refuses
 *  namespaces. */
void egress_ns_run(void (*body)(void), bool is_user);
/** The test `name`: `body` once as whoever runs it, and as root once more behind a user
 *  namespace. */
#define BOTH(name, body)                                                                 \
    static void name(void **state)                                                       \
    {                                                                                    \
        (void)state;                                                                     \
        egress_ns_run(body, false);                                                      \
        if (geteuid() == 0)                                                              \
            egress_ns_run(body, true);                                                   \
    }

struct egress_ns {
    int rt;
    struct nft *nft;
    struct policy *policy;
    struct nft_sandbox sandbox;
    int tcp[2], udp[2]; /* the guard's, IPv4 and IPv6 */
    bool has_ip6;
};
/** Seals the namespace, and installs a policy for sandbox 1 with listeners as the guard
 * has them. */
void egress_ns_seal(struct egress_ns *s, const char *policy);
/** Another policy in the place of the one that is there. */
void egress_ns_policy(struct egress_ns *s, const char *policy);
void egress_ns_done(struct egress_ns *s);

void egress_ns_listen(int ret_tcp[2], int ret_udp[2], uint16_t *ret_tcp_port,
                      uint16_t *ret_udp_port, bool has_ip6);
/** connect() to "address:port": 0, or the errno; ETIMEDOUT when it is neither within
 * EGRESS_NS_MS. */
int egress_ns_connect(const char *to, int *ret_fd);
/** Send a datagram there: 0 or the errno, from the call or soon after from the socket. */
int egress_ns_send(const char *to, int *ret_fd);
/** Does a connection arrive at the guard, meant for `to`? The accepted socket, or -1. */
int egress_ns_accept(const struct egress_ns *s, const char *to);
/** connect() and egress_ns_accept(), and both closed. */
bool egress_ns_lands(const struct egress_ns *s, const char *to);
struct nft_batch;
/** A change by another program: by a socket of its own, as nft(8) has. */
void egress_ns_foreign(const char *table, void (*build)(struct nft_batch *b));
/** In the namespace of the rules. */
void egress_ns_pin(struct nft *n, uint32_t index, const char *to, uint32_t life_s);

#endif
