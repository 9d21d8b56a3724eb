/* SPDX-License-Identifier: MIT */
/**
 * clienthello -- server name and ALPN from the first bytes of a TLS connection, without
 *                taking part in it. Split over records and segments, up to
 *                CLIENTHELLO_MAX bytes. RFC 8446 4.1.2 and 5.1, RFC 6066 3, RFC 7301.
 */
#ifndef COMMON_CLIENTHELLO_H
#define COMMON_CLIENTHELLO_H

#include <stdbool.h>

#include "common/host.h"
#include "common/span.h"

enum clienthello_result {
    CLIENTHELLO_OK,
    CLIENTHELLO_MORE,    /* a good beginning: look again with more bytes */
    CLIENTHELLO_NOT_TLS, /* the first bytes are no TLS handshake record */
    CLIENTHELLO_BAD,     /* TLS, but broken */
    CLIENTHELLO_TOO_BIG, /* over CLIENTHELLO_MAX */
};
struct clienthello {
    char server_name[HOST_MAX + 1]; /* canonical; "" when none was sent, or an address */
    bool has_alpn;
    bool alpn_http1, alpn_h2, alpn_acme; /* "http/1.1", "h2", "acme-tls/1" offered */
};
/** Always from the first byte of the connection; keeps no state. */
enum clienthello_result clienthello_parse(struct span bytes, struct clienthello *ret);

#endif
