/* SPDX-License-Identifier: MIT */
/**
 * keys -- the server's own signing key in state_dir, and with it and the configured keys
 *         the set that tokens are checked with. Immutable, reference counted, thread-safe.
 */
#ifndef TUNNELD_KEYS_H
#define TUNNELD_KEYS_H

#include "common/err.h"
#include "common/token.h"
#include "tunneld/config.h"

struct keys;

/** Reads every key file of the configuration and the server's key; makes state_dir (0700)
 *  and state_dir/signing-key.pem (0600) when they are missing. */
struct keys *keys_load(const struct config *conf, struct err *e);
struct keys *keys_ref(struct keys *k);
void keys_unref(struct keys *k); /* NULL is fine */

/** What token_verify() takes; good while the reference is held. */
const struct token_keys *keys_tokens(const struct keys *k);
/** The server's own, which can sign; good while the reference is held. */
const struct token_key *keys_own(const struct keys *k);
/** 32 secret bytes for a purpose ("cookie"), the same after a restart. 0 or -1. */
int keys_derive(const struct keys *k, const char *label, uint8_t out[32]);

#endif
