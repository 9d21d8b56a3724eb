/* SPDX-License-Identifier: MIT */
/**
 * sock -- socket addresses as values, and the few ways we make sockets.
 *         Nothing here resolves names and nothing blocks.
 */
#ifndef COMMON_SOCK_H
#define COMMON_SOCK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/err.h"
#include "common/span.h"

struct sock_addr {
    socklen_t len; /* 0: none */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage ss;
    } u;
};

#define SOCK_TEXT_MAX 128 /* room for any printed address with its port */

/** "127.0.0.1:80", "[::1]:80", "unix:/path". Port 0 allowed. 0, or -1 with *e. No names. */
int sock_parse(const char *text, struct sock_addr *ret, struct err *e);
/** A bare address, "127.0.0.1" or "::1", with the port given apart. */
int sock_parse_ip(struct span text, uint16_t port, struct sock_addr *ret);
/** Prints into `out` as sock_parse() reads it and returns it. */
const char *sock_print(const struct sock_addr *a, char out[SOCK_TEXT_MAX]);
/** Address only, without port or brackets. */
const char *sock_print_ip(const struct sock_addr *a, char out[SOCK_TEXT_MAX]);
uint16_t sock_port(const struct sock_addr *a); /* 0 for unix */
bool sock_is_loopback(const struct sock_addr *a);

/** An address range, "10.0.0.0/8", "::/0", or a single address. An IPv4-mapped IPv6
 *  address is compared as the IPv4 it maps. */
struct sock_cidr {
    int family; /* AF_INET or AF_INET6 */
    uint8_t addr[16];
    unsigned bits;
};
int sock_cidr_parse(struct span text, struct sock_cidr *ret);
bool sock_cidr_has(const struct sock_cidr *c, const struct sock_addr *a);

/** Listening, non-blocking, close-on-exec descriptor, or -1. SO_REUSEADDR; IPV6_V6ONLY. */
int sock_listen(const struct sock_addr *a, struct err *e);
/** Accept one; -1 with errno EAGAIN when there is none. TCP_NODELAY is set. */
int sock_accept(int fd, struct sock_addr *ret_client);
/** Start a non-blocking connect; the descriptor (watch for LOOP_WRITE, then sock_error()),
 *  or -1. TCP_NODELAY is set. */
int sock_connect(const struct sock_addr *a, struct err *e);
/** As sock_connect(), by a socket that is there already (made in another namespace). */
int sock_connect_by(int *take_fd, const struct sock_addr *a, struct err *e);
/** SO_ERROR: 0 when connected. */
int sock_error(int fd);
/** Is a connect done, and well? To somebody on this machine it is before it returns. */
bool sock_is_connected(int fd);
int sock_local(int fd, struct sock_addr *ret);
/** Sets TCP_NODELAY, TCP_NOTSENT_LOWAT, TCP_USER_TIMEOUT for a link. Best effort. */
void sock_tune_link(int fd);
/** While on, the kernel sends whole segments only. Best effort. */
void sock_cork(int fd, bool on);
/** Bytes written but not yet sent by the kernel (SIOCOUTQNSD); 0 when it cannot say. */
size_t sock_unsent(int fd);
/** Close and forget; -1 is fine. */
void sock_close(int *fd);
/** Close so that the other end sees a reset, not an orderly end. */
void sock_reset(int *fd);

#endif
