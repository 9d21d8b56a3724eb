/* SPDX-License-Identifier: MIT */
/** http1_int -- what the http1*.c files share. Include common/http1.h elsewhere. */
#ifndef COMMON_HTTP1_INT_H
#define COMMON_HTTP1_INT_H

#include "common/http1.h"

/** Note the broken rule for http1_rule(), a literal, and return `r`. */
enum http1_result http1_fail(enum http1_result r, const char *rule);

/** A byte of a token (RFC 9110 5.6.2). */
extern const uint8_t http1_tchar[256];
static inline bool http1_is_tchar(uint8_t c)
{
    return http1_tchar[c] != 0;
}

/** The first byte in p..to that is a control other than HTAB, or `to`. */
const uint8_t *http1_find_control(const uint8_t *p, const uint8_t *to);
/** Say what is wrong with the control byte at `p`. */
enum http1_result http1_fail_control(uint8_t c);

/** "name: value CRLF" at *line; *line advanced past it. Never an empty line. */
enum http1_result http1_field_parse(const uint8_t **line, const uint8_t *end,
                                    struct http1_field *ret);

/** A name that would be one of HTTP1_FIELD_MAP if its '_' were '-': CGI, WSGI and PHP make
 *  one variable of both, so "X_Forwarded_For" would pass for ours there. */
bool http1_is_disguised(const struct http1_field *f);

/** Walk a comma list: the next member without white space around it. False at the end. */
bool http1_list_next(struct span *list, struct span *ret_member);

#endif
