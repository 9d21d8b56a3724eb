/* SPDX-License-Identifier: MIT */
/**
 * ip -- addresses and networks as small values, and what kind of place an
 *       address is. Pure.
 *
 * An IPv4-mapped IPv6 address is the IPv4 it maps, from the moment it is made.
 * Source   IANA special-purpose address registries (RFC 6890), RFC 6052 (NAT64), RFC 3056
 *          (6to4), RFC 4380 (Teredo).
 */
#ifndef AGENTD_EGRESS_POLICY_IP_H
#define AGENTD_EGRESS_POLICY_IP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sock.h"
#include "common/span.h"

struct ip_addr {
    uint8_t family;    /* AF_INET, AF_INET6; 0: none */
    uint8_t bytes[16]; /* network order; IPv4: the first 4, the rest 0 */
};
struct ip_net {
    struct ip_addr addr; /* host bits 0 */
    uint8_t bits;
};

#define IP_TEXT_MAX 64 /* any printed address or network */

/** How long an address of this family is. */
static inline uint8_t ip_bytes(uint8_t family)
{
    return family == AF_INET ? 4 : 16;
}
static inline uint8_t ip_bits(uint8_t family)
{
    return (uint8_t)(ip_bytes(family) * 8);
}

/** "192.0.2.1", "2001:db8::1": the canonical notations only (no octal, hex, short forms,
 *  zones, brackets). 0, or -1. */
int ip_parse(struct span text, struct ip_addr *ret);
/** "192.0.2.0/24" or an address. -1 also for bits set under the mask. */
int ip_net_parse(struct span text, struct ip_net *ret);
const char *ip_print(const struct ip_addr *a, char out[IP_TEXT_MAX]);
const char *ip_net_print(const struct ip_net *n, char out[IP_TEXT_MAX]);
bool ip_eq(const struct ip_addr *a, const struct ip_addr *b);
bool ip_net_has(const struct ip_net *n, const struct ip_addr *a);
/** The network of this length that the address is in. */
void ip_net_of(const struct ip_addr *a, unsigned bits, struct ip_net *ret);
/** Does `outer` hold all of `inner`? */
bool ip_net_covers(const struct ip_net *outer, const struct ip_net *inner);
void ip_from_sock(const struct sock_addr *a, struct ip_addr *ret);
void ip_to_sock(const struct ip_addr *a, uint16_t port, struct sock_addr *ret);

enum ip_class {
    IP_PUBLIC, /* may be reached; documentation and benchmarking ranges are among these */
    IP_PRIVATE,  /* RFC 1918, 100.64/10, fc00::/7, fec0::/10: by policy only */
    IP_LOOPBACK, /* from here on: the floor */
    IP_LINK_LOCAL,
    IP_METADATA, /* cloud metadata services, wherever they are */
    IP_MULTICAST,
    IP_UNSPECIFIED, /* 0.0.0.0/8, :: */
    IP_RESERVED,    /* 240/4, 192.0.0.0/24, 100::/64, 2001::/32 and the like */
    IP_CLASS_COUNT
};
/** NAT64 and 6to4 addresses are what they carry. */
enum ip_class ip_classify(const struct ip_addr *a);
const char *ip_class_name(enum ip_class c); /* "cloud metadata" */
static inline bool ip_class_is_floor(enum ip_class c)
{
    return c >= IP_LOOPBACK;
}
/** The networks of the floor (is_floor) or of IP_PRIVATE, non-overlapping, for the
 *  kernel's sets. Returns how many. */
size_t ip_class_nets(bool is_floor, const struct ip_net **ret);

#endif
