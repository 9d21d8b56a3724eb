/* SPDX-License-Identifier: MIT */
/*
 * What kind of place an address is.
 *
 * Theory. One list holds the networks of the floor and one the private ones; the
 * kernel's sets are made from the same lists that ip_classify() reads, so the two
 * cannot differ. An IPv4 network stands in them three times: as itself, behind the
 * NAT64 prefix and behind the 6to4 prefix, because a gateway on the way would turn
 * these into it. Of IPv6 only 2000::/3 is handed out; all else is the floor, but for
 * the private ranges and NAT64.
 */
#include <string.h>

#include "agentd/egress/policy/ip.h"
#include "common/cdefs.h"

/* clang-format off */

/* P(class, bits, family, bytes...) */
#define V4(P, class, n, a, b, c, d)                                                      \
    P(class, n, AF_INET, a, b, c, d)                                                     \
    P(class, 96 + (n), AF_INET6, 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d) \
    P(class, 16 + (n), AF_INET6, 0x20, 0x02, a, b, c, d)
#define V6(P, class, n, ...) P(class, n, AF_INET6, __VA_ARGS__)

/* Inside of networks below: only the name of the class differs. 169.254.170.2 is what
 * containers at Amazon ask, 192.0.0.192 is Oracle's. */
#define INNER(P)                                                                         \
    V4(P, IP_METADATA, 32, 169, 254, 169, 254)                                           \
    V4(P, IP_METADATA, 32, 169, 254, 170, 2)                                             \
    V4(P, IP_METADATA, 32, 192, 0, 0, 192)                                               \
    V6(P, IP_UNSPECIFIED, 128, 0)                                                        \
    V6(P, IP_LOOPBACK, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)

/* 100.100.100.200 is Alibaba's metadata service, 168.63.129.16 Azure's, fd00:ec2::/32
 * Amazon's, fd20:ce::254 Google's, fd00:42::42 Scaleway's. 2001::/23 are Teredo, ORCHID
 * and other protocols' own; 64:ff9b:1::/48 is RFC 8215. From 0000::/10 on: what is
 * outside of 2000::/3. */
#define FLOOR(P)                                                                         \
    V4(P, IP_METADATA, 32, 100, 100, 100, 200)                                           \
    V4(P, IP_METADATA, 32, 168, 63, 129, 16)                                             \
    V4(P, IP_UNSPECIFIED, 8, 0, 0, 0, 0)                                                 \
    V4(P, IP_LOOPBACK, 8, 127, 0, 0, 0)                                                  \
    V4(P, IP_LINK_LOCAL, 16, 169, 254, 0, 0)                                             \
    V4(P, IP_RESERVED, 24, 192, 0, 0, 0)                                                 \
    V4(P, IP_RESERVED, 24, 192, 88, 99, 0)                                               \
    V4(P, IP_MULTICAST, 4, 224, 0, 0, 0)                                                 \
    V4(P, IP_RESERVED, 4, 240, 0, 0, 0)                                                  \
    V6(P, IP_METADATA, 32, 0xfd, 0x00, 0x0e, 0xc2)                                       \
    V6(P, IP_METADATA, 128, 0xfd, 0x20, 0x00, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54) \
    V6(P, IP_METADATA, 128, 0xfd, 0x00, 0x00, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42) \
    V6(P, IP_LINK_LOCAL, 10, 0xfe, 0x80)                                                 \
    V6(P, IP_MULTICAST, 8, 0xff)                                                         \
    V6(P, IP_RESERVED, 23, 0x20, 0x01)                                                   \
    V6(P, IP_RESERVED, 48, 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01)                           \
    V6(P, IP_RESERVED, 10, 0x00, 0x00)                                                   \
    V6(P, IP_RESERVED, 11, 0x00, 0x40)                                                   \
    V6(P, IP_RESERVED, 14, 0x00, 0x60)                                                   \
    V6(P, IP_RESERVED, 16, 0x00, 0x65)                                                   \
    V6(P, IP_RESERVED, 15, 0x00, 0x66)                                                   \
    V6(P, IP_RESERVED, 13, 0x00, 0x68)                                                   \
    V6(P, IP_RESERVED, 12, 0x00, 0x70)                                                   \
    V6(P, IP_RESERVED, 9, 0x00, 0x80)                                                    \
    V6(P, IP_RESERVED, 8, 0x01)                                                          \
    V6(P, IP_RESERVED, 7, 0x02)                                                          \
    V6(P, IP_RESERVED, 6, 0x04)                                                          \
    V6(P, IP_RESERVED, 5, 0x08)                                                          \
    V6(P, IP_RESERVED, 4, 0x10)                                                          \
    V6(P, IP_RESERVED, 2, 0x40)                                                          \
    V6(P, IP_RESERVED, 2, 0x80)                                                          \
    V6(P, IP_RESERVED, 3, 0xc0)                                                          \
    V6(P, IP_RESERVED, 4, 0xe0)                                                          \
    V6(P, IP_RESERVED, 5, 0xf0)                                                          \
    V6(P, IP_RESERVED, 6, 0xf8)                                                          \
    V6(P, IP_RESERVED, 9, 0xfe)

#define PRIVATE(P)                                                                       \
    V4(P, IP_PRIVATE, 8, 10, 0, 0, 0)                                                    \
    V4(P, IP_PRIVATE, 10, 100, 64, 0, 0)                                                 \
    V4(P, IP_PRIVATE, 12, 172, 16, 0, 0)                                                 \
    V4(P, IP_PRIVATE, 16, 192, 168, 0, 0)                                                \
    V6(P, IP_PRIVATE, 7, 0xfc)                                                           \
    V6(P, IP_PRIVATE, 10, 0xfe, 0xc0)

#define AS_NET(class, n, family, ...) {{family, {__VA_ARGS__}}, n},
#define AS_CLASS(class, n, family, ...) class,

/* clang-format on */

static const struct ip_net inner_net[] = {INNER(AS_NET)};
static const enum ip_class inner_class[] = {INNER(AS_CLASS)};
static const struct ip_net floor_net[] = {FLOOR(AS_NET)};
static const enum ip_class floor_class[] = {FLOOR(AS_CLASS)};
static const struct ip_net private_net[] = {PRIVATE(AS_NET)};

static bool find(const struct ip_net *net, size_t n, const struct ip_addr *a,
                 size_t *ret_i)
{
    for (size_t i = 0; i < n; i++) {
        if (!ip_net_has(&net[i], a))
            continue;
        *ret_i = i;
        return true;
    }
    return false;
}

static bool is_nat64(const struct ip_addr *a)
{
    static const uint8_t prefix[12] = {0, 0x64, 0xff, 0x9b};

    return memcmp(a->bytes, prefix, sizeof prefix) == 0;
}

enum ip_class ip_classify(const struct ip_addr *a)
{
    size_t i;

    if (a->family != AF_INET && a->family != AF_INET6)
        return IP_UNSPECIFIED;
    if (find(inner_net, COUNT_OF(inner_net), a, &i))
        return inner_class[i];
    if (find(floor_net, COUNT_OF(floor_net), a, &i))
        return floor_class[i];
    if (find(private_net, COUNT_OF(private_net), a, &i))
        return IP_PRIVATE;
    if (a->family == AF_INET6 && a->bytes[0] >> 5 != 1 && !is_nat64(a))
        return IP_RESERVED;
    return IP_PUBLIC;
}

const char *ip_class_name(enum ip_class c)
{
    static const char *const name[IP_CLASS_COUNT] = {
        [IP_PUBLIC] = "public",           [IP_PRIVATE] = "private",
        [IP_LOOPBACK] = "loopback",       [IP_LINK_LOCAL] = "link-local",
        [IP_METADATA] = "cloud metadata", [IP_MULTICAST] = "multicast",
        [IP_UNSPECIFIED] = "unspecified", [IP_RESERVED] = "reserved",
    };

    return (unsigned)c < IP_CLASS_COUNT ? name[c] : "?";
}

size_t ip_class_nets(bool is_floor, const struct ip_net **ret)
{
    *ret = is_floor ? floor_net : private_net;
    return is_floor ? COUNT_OF(floor_net) : COUNT_OF(private_net);
}
