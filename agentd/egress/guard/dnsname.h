/* SPDX-License-Identifier: MIT */
/**
 * dnsname -- a name as DNS messages carry it: labels with a length before each, the
 *            root's 0 at the end, perhaps a pointer to labels that came before. Pure.
 *
 * A pointer must go to a place before the run of labels that it ends, so places only fall
 * and a name cannot meet itself; 255 bytes bound what is gathered.
 *
 * Source   RFC 1035 sections 3.1, 4.1.4, 5.1; RFC 9267.
 */
#ifndef AGENTD_EGRESS_GUARD_DNSNAME_H
#define AGENTD_EGRESS_GUARD_DNSNAME_H

#include "common/span.h"

#define DNSNAME_WIRE_MAX 255  /* bytes on the wire, with the root's 0 */
#define DNSNAME_TEXT_MAX 1024 /* printed with each byte escaped, and NUL */

struct dnsname {
    uint8_t len; /* with the root's 0 */
    uint8_t wire[DNSNAME_WIRE_MAX];
};

/** The name at `pos` of a message, its letters kept. Returns where it ends in the
 *  message, or 0: cut, too long, or a pointer that may not be. */
size_t dnsname_read(struct span msg, size_t pos, bool may_point, struct dnsname *out);
bool dnsname_eq(const struct dnsname *a, const struct dnsname *b); /* letters fold */
/** Lower case, "." for the root, \DDD for a byte that is no plain character. */
void dnsname_print(const uint8_t *wire, char out[DNSNAME_TEXT_MAX]);
/** Is what dnsname_print() gave a host name, such as policies speak of? The one validator
 *  sees no escape, no port and no root's dot, so a dot in a label cannot deceive it. */
bool dnsname_is_host(const char *text);
/** The wire form of a canonical name; false: it has none. */
bool dnsname_write(const char *text, struct dnsname *out);

#endif
