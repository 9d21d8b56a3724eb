/* SPDX-License-Identifier: MIT */
/** proxyproto -- the PROXY protocol header, versions 1 and 2 (haproxy's proxy-protocol.txt). */
#ifndef COMMON_PROXYPROTO_H
#define COMMON_PROXYPROTO_H

#include "common/sock.h"
#include "common/span.h"

enum proxyproto_result {
    PROXYPROTO_OK,
    PROXYPROTO_MORE,
    PROXYPROTO_BAD
};
/** @ret_len  bytes of the header; @ret_client  len 0 for LOCAL and UNKNOWN. At most
 *  PROXYPROTO_MAX bytes are looked at. Keeps no state. */
enum proxyproto_result proxyproto_parse(struct span bytes, size_t *ret_len,
                                        struct sock_addr *ret_client);
#endif
