/* SPDX-License-Identifier: MIT */
/**
 * host -- authorities, preview labels and sandbox ids: the one canonicaliser that routing
 *         and access share. What it accepts is lower case, without a trailing dot.
 */
#ifndef COMMON_HOST_H
#define COMMON_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/cdefs.h"
#include "common/span.h"

#define HOST_MAX       253
#define HOST_LABEL_MAX 63
#define HOST_ID_MAX    40

struct host {
    char name[HOST_MAX + 1]; /* canonical; an IPv6 address without brackets */
    uint16_t port;           /* 0: none given */
    bool is_ip;
};

/** "name", "name:port", "[::1]:port" as in Host and :authority (RFC 9110 7.2). 0, or -1:
 *  empty, over a length, a byte that no host name has, two dots, a last label that is a number in a name
 *  that is no dotted quad, port not 1..65535. */
int host_parse(struct span authority, struct host *ret);
/**
 * A host name by itself, as in a policy, a DNS question or a server name: labels of 1 to 63 of
 * a-z 0-9 -, no - at a label's ends, 253 in all; upper case is folded, one trailing dot is
 * dropped. 0, or -1: also for NUL, "_", a byte over 127, a port, brackets, and a last label that
 * some resolver reads as a number (dotted quads, "127.1", "0x7f000001", "2130706433"). One label
 * is enough ("localhost").
 */
int host_name_parse(struct span text, char ret[HOST_MAX + 1]);
/** 1 to 40 of a-z 0-9 -, no - at the ends, no --. Upper case is folded into `ret`. */
int host_id_parse(struct span text, char ret[HOST_ID_MAX + 1]);
/** A decimal port, 1..65535, no sign, no leading zero; 0 when it is none. */
uint16_t host_port_parse(struct span text);

enum host_kind {
    HOST_FOREIGN, /* not under the domain */
    HOST_APEX,    /* the domain itself, or the control host */
    HOST_PREVIEW, /* PORT-ID.domain */
    HOST_LINK,    /* 0-ID.domain */
    HOST_NAME,    /* NAME.domain */
    HOST_BAD,     /* under the domain, but no valid label: 03000-x, 65536-x, a.b.domain */
};
struct host_route {
    enum host_kind kind;
    uint16_t port;                 /* PREVIEW */
    char id[HOST_ID_MAX + 1];      /* PREVIEW, LINK */
    char name[HOST_LABEL_MAX + 1]; /* NAME */
};
void host_route(const struct host *h, const char *domain, const char *control_host,
                struct host_route *ret);
/** May this be claimed as a name: a valid label that is not digits-dash and not reserved. */
bool host_name_is_claimable(struct span label);

/** A list "3000,8000-8999" of ports. */
struct port_range {
    uint16_t first, last;
};
#define PORT_LIST_MAX 64
struct port_list {
    struct port_range range[PORT_LIST_MAX];
    unsigned n;
};
int port_list_parse(struct span text, struct port_list *ret); /* 0, or -1 */
bool port_list_has(const struct port_list *l, uint16_t port);

#endif
