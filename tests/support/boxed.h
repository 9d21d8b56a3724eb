/* SPDX-License-Identifier: MIT */
/**
 * boxed -- real sandboxes for tests: a supervisor process, as root or as an ordinary user
 *          (uid 65534 where the test is root's), COMMAND in it, and its output.
 */
#ifndef TESTS_SUPPORT_BOXED_H
#define TESTS_SUPPORT_BOXED_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

struct userns_range;

enum boxed_mode {
    BOXED_ROOT,
    BOXED_USER,
    BOXED_MODES
};
enum {
    BOXED_NOBODY = 65534,
    BOXED_CANNOT = 99, /* exit code of a supervisor that the kernel refused */
    BOXED_OUTPUT_MAX = 65536,
    BOXED_WAIT_MS = 20000,
};

struct boxed_result {
    int code;
    char out[BOXED_OUTPUT_MAX];
};

struct boxed {
    enum boxed_mode mode;
    const char *script;
    const char *bind[4];
    unsigned n_bind;
    const char *fixed;
    void (*before)(void); /* in the supervisor, with its first rights */
    char *const *command; /* instead of the script */
    bool tells_stage;
};

/** What `run` is, without the network. */
_Noreturn void boxed_supervise(const struct boxed *sc);
/** As root take a range, as a user enter a namespace. 0, or -1. */
int boxed_become(enum boxed_mode mode, struct userns_range *range, struct err *e);
/** Returns the supervisor; *ret_out is closed when nobody of the sandbox is left. */
pid_t boxed_start(const struct boxed *sc, int *ret_out);
int boxed_code(pid_t pid);
/** Read until `mark` came, or (NULL) to the end. False: neither within BOXED_WAIT_MS.
 *  @ret  BOXED_OUTPUT_MAX bytes */
bool boxed_read_until(int fd, const char *mark, char *ret);
void boxed_run(const struct boxed *sc, struct boxed_result *ret);
/** For tests: a listening unix socket, abstract or with a name; the descriptor or -1. */
int boxed_listen(const char *name, bool is_abstract);
/** The errno of a connect to it, or 0. */
int boxed_connect(const char *name, bool is_abstract);

struct boxed_modes {
    bool can[BOXED_MODES];
};
/** Group setup: the modes that can be tried here, with the reason printed for
 *  the others. */
int boxed_find_modes(void **state);

/** The body runs once for each mode that works; skipped when none does. */
#define EACH_MODE(m, state)                                                              \
    if (!((struct boxed_modes *)*(state))->can[BOXED_ROOT] &&                            \
        !((struct boxed_modes *)*(state))->can[BOXED_USER])                              \
        skip();                                                                          \
    for (enum boxed_mode m = BOXED_ROOT; m < BOXED_MODES; m++)                           \
        if (((struct boxed_modes *)*(state))->can[m])

#endif
