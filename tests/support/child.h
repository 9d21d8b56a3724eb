/* SPDX-License-Identifier: MIT */
/**
 * child -- servers that a test runs beside itself: forked, so that they may block, and
 *          ended by their pid. For use from the test's thread only.
 */
#ifndef TESTS_SUPPORT_CHILD_H
#define TESTS_SUPPORT_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct child {
    pid_t pid; /* 0: none */
    uint16_t port;
};

/** Runs in the child for each connection, one after the other; closes nothing. */
typedef void child_conn_fn(int fd, const void *arg);
/** Listen on 127.0.0.1 and serve. */
void child_tcp(struct child *c, child_conn_fn *fn, const void *arg);
/** One UDP socket on 127.0.0.1; fn loops over it. */
void child_udp(struct child *c, child_conn_fn *fn, const void *arg);
/** A program with its arguments (NULL at the end), its output dropped, that will listen
 *  on c->port; waits until it does. False when it is not installed. */
bool child_program(struct child *c, const char *const argv[]);
/** Wait until 127.0.0.1:port takes connections; false after 10 s. */
bool child_wait_port(uint16_t port);
/** A port that was free a moment ago. */
uint16_t child_free_port(void);
/** SIGKILL and wait. Fine when there is none. */
void child_stop(struct child *c);
/** Ask with SIGTERM first, for a program that has something to put away; 3 s
 *  later child_stop. */
void child_end(struct child *c);

/** Blocking helpers for a child_conn_fn. */
/** Read up to and with the first blank line; the length, or -1. NUL-terminated. */
int child_read_head(int fd, char *buf, int cap);
/** Exactly n bytes; false at the end. */
bool child_read(int fd, void *buf, int n);
void child_write(int fd, const void *p, int n);
/** Each byte in a segment of its own. */
void child_write_slowly(int fd, const void *p, int n);

/** A directory under $TMPDIR, and a CA with a certificate for
 *  *.preview.localhost, preview.localhost and localhost in it (ca.pem, cert.pem,
 *  key.pem), made by openssl(1). */
struct child_certs {
    char dir[64], ca[96], cert[96], key[96];
};
void child_certs_make(struct child_certs *c);
/** Remove files of this directory and it. */
void child_remove_dir(const char *dir);

#endif
