/* SPDX-License-Identifier: MIT */
/** base64 -- RFC 4648, in the two alphabets that we need. */
#ifndef COMMON_BASE64_H
#define COMMON_BASE64_H

#include "common/buf.h"
#include "common/span.h"

/** base64url without padding (RFC 4648 5), strictly; and plain base64 for Basic. */
int b64url_encode(struct buf *out, struct span in);
int b64url_decode(struct buf *out, struct span in); /* -1: not canonical base64url */
int b64_encode(struct buf *out, struct span in);

#endif
