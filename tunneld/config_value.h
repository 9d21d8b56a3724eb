/* SPDX-License-Identifier: MIT */
/**
 * config_value -- values of the configuration's JSON, each fault told with its place. For
 *                 config.c and config_read.c only.
 */
#ifndef TUNNELD_CONFIG_VALUE_H
#define TUNNELD_CONFIG_VALUE_H

#include "common/json.h"
#include "tunneld/config.h"

/** A file being read. */
struct config_reader {
    struct config *conf;
    const char *file;
    struct span text; /* of the file, for line numbers; empty: not read yet */
    config_fault_fn *fault;
    void *arg;
    unsigned n_faults;
    /* the array items being read; NULL outside of them */
    struct config_listen *listen;
    struct config_key *key;
};

/** Tells a fault at `path`, such as "listen[1].address"; "" for the whole file. */
void config_fault(struct config_reader *r, const char *path, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

typedef void config_read_fn(struct config_reader *r, const char *path,
                            const struct json *v);
struct config_row {
    const char *name;
    config_read_fn *read;
    bool is_needed;
};
/** Members of an object by a table of rows; unknown ones are faults. */
void config_read_object(struct config_reader *r, const char *path, const struct json *obj,
                        const struct config_row *rows, size_t n);
/** Items of an array, at most `max`. */
void config_read_array(struct config_reader *r, const char *path, const struct json *arr,
                       size_t max, config_read_fn *read);

bool config_has_type(struct config_reader *r, const char *path, const struct json *v,
                     enum json_type type);
/** Not empty, without control characters; NULL after a fault. */
const char *config_get_text(struct config_reader *r, const char *path,
                            const struct json *v);
void config_get_copy(struct config_reader *r, const char *path, const struct json *v,
                     char **ret);
void config_get_bounded(struct config_reader *r, const char *path, const struct json *v,
                        char *ret, size_t cap);
/** `min` after a fault. */
int64_t config_get_int(struct config_reader *r, const char *path, const struct json *v,
                       int64_t min, int64_t max);
bool config_get_bool(struct config_reader *r, const char *path, const struct json *v,
                     bool otherwise);
/** The index of the one of two words; 0 after a fault. */
unsigned config_get_word(struct config_reader *r, const char *path, const struct json *v,
                         const char *const word[2]);

/** Reads all members of the root object; config_read.c. */
void config_read(struct config_reader *r, const struct json *root);

#endif
