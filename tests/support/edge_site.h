/* SPDX-License-Identifier: MIT */
/** edge_site -- a configuration in plain sight and heads from text, for the
 *              edge's pure parts. */
#ifndef TESTS_SUPPORT_EDGE_SITE_H
#define TESTS_SUPPORT_EDGE_SITE_H

#include "common/http1.h"
#include "tunneld/edge/site.h"

/** https://preview.test:8443; sandbox "demo" publishes 3000 and 4000; "shop"
 *  is its 3000. */
void edge_site_init(struct site *s, struct config *conf, const char *host);
/** Parses; the head points into `text`. 0, or -1. */
int edge_site_request(const char *text, struct http1_head *ret);
int edge_site_response(const char *text, struct http1_head *ret);

#endif
