/* SPDX-License-Identifier: MIT */
/**
 * directory -- the little that workers share about sandboxes: which tenant an id belongs
 * to, and which id and port a name points at.
 *
 * Threads  safe everywhere; one mutex, held for a few loads.
 * Limits   DIRECTORY_IDS, DIRECTORY_NAMES: above them nothing new is taken, what is there
 *          stays.
 * State    memory only: until there is a store, a restart forgets who was first.
 */
#ifndef TUNNELD_DIRECTORY_H
#define TUNNELD_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/host.h"
#include "common/token.h"

struct directory;

struct directory *directory_new(void); /* NULL: no memory */
void directory_free(struct directory *d);

enum directory_result {
    DIRECTORY_OK,
    DIRECTORY_TAKEN, /* another tenant's, or another sandbox uses it now */
    DIRECTORY_FULL,  /* a bound was reached, or no memory */
};

/** `tenant` uses `id`: the first to do so owns it from then on. */
enum directory_result directory_own(struct directory *d, const char *id,
                                    const char *tenant);

/** Whose is `id`? false: nobody's yet. */
bool directory_owner(struct directory *d, const char *id,
                     char ret_tenant[TOKEN_TENANT_MAX + 1]);

/** Point `name` at a port of `id`, which belongs to `tenant`. A name stays with its
 * tenant; within it, with the sandbox that uses it until directory_release(). */
enum directory_result directory_claim(struct directory *d, const char *name,
                                      const char *id, const char *tenant, uint16_t port);
/** `id` does not use the name any more. It still leads there (a request is then held, as
 * for any port that is not there yet) until another sandbox of the tenant claims it. */
void directory_release(struct directory *d, const char *name, const char *id);
/** Where does the name lead? false: nowhere. */
bool directory_find(struct directory *d, const char *name, char ret_id[HOST_ID_MAX + 1],
                    uint16_t *ret_port);

/** A hash of the text with this process's random seed: for choosing a worker. */
uint64_t directory_hash(const struct directory *d, const char *text);

#endif
