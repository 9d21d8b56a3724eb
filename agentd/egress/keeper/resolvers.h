/* SPDX-License-Identifier: MIT */
/**
 * resolvers -- the system's name servers, as /etc/resolv.conf names them. Strict: what
 *              is not an address in its canonical form is passed over, link-local ones
 *              with a zone too.
 */
#ifndef AGENTD_EGRESS_KEEPER_RESOLVERS_H
#define AGENTD_EGRESS_KEEPER_RESOLVERS_H

#include <stddef.h>

#include "common/err.h"
#include "common/span.h"

#define RESOLVERS_MAX      4     /* the rest is never asked */
#define RESOLVERS_FILE_MAX 65536 /* of the file that is read */
#define RESOLVERS_TEXT_MAX 256   /* room for all of them */

/** "127.0.0.53:53,[2001:db8::53]:53". None named: "127.0.0.1:53", as
 *  resolv.conf(5) says. */
void resolvers_parse(struct span file, char ret[RESOLVERS_TEXT_MAX]);
/** The same of a file; one that is not there names none. -1: it cannot be read,
 *  or is too long. */
int resolvers_read(const char *path, char ret[RESOLVERS_TEXT_MAX], struct err *e);

#endif
