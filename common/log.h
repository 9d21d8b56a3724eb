/* SPDX-License-Identifier: MIT */
/**
 * log -- structured lines on stderr: text or JSON. Thread-safe, one write(2) a line; the
 *        access log gathers its lines and writes once per loop turn (log_flush()).
 *
 * Text:  2026-11-21T12:00:00.123Z info event=session.open id=demo port=3000
 * JSON:  {"time":"...","level":"info","event":"session.open","id":"demo","port":3000}
 *
 * A call: log_info("session.open", "id=%s port=%u", id, port). The event is a constant
 * dotted name; the rest is key=value pairs separated by spaces, each value without spaces
 * or given as %s through log_q() (quoted, escaped, cut at 64 bytes). In JSON form they
 * become members, numbers where the format says %d or %u. Secrets, bodies and query
 * strings never come here.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/cdefs.h"
#include "common/err.h"
#include "common/span.h"

enum log_level {
    LOG_ERR,
    LOG_WARN,
    LOG_NOTICE,
    LOG_INFO,
    LOG_DEBUG,
    LOG_LEVEL_COUNT
};

/** For main() to call before it opens what it keeps: descriptors 0 to 2 that are closed become
 *  /dev/null. Again at a reload. */
void log_setup(bool json, enum log_level level);
int log_level_parse(const char *name, enum log_level *ret); /* "info" */
bool log_is_on(enum log_level level);

void log_at(enum log_level level, const char *event, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
#define log_err(event, ...)    log_at(LOG_ERR, event, __VA_ARGS__)
#define log_warn(event, ...)   log_at(LOG_WARN, event, __VA_ARGS__)
#define log_notice(event, ...) log_at(LOG_NOTICE, event, __VA_ARGS__)
#define log_info(event, ...)   log_at(LOG_INFO, event, __VA_ARGS__)
#define log_debug(event, ...)                                                            \
    do {                                                                                 \
        if (log_is_on(LOG_DEBUG))                                                        \
            log_at(LOG_DEBUG, event, __VA_ARGS__);                                       \
    } while (0)

/** Quoted and escaped for use as a %s value; good until the 8th next call on this thread.
 */
const char *log_q(const char *text);
const char *log_qs(struct span text);
/** The message of an error, quoted and escaped, whole; good until the next call on this
 *  thread: log_err("start", "error=%s", log_e(&e)). */
const char *log_e(const struct err *e);

/** For events a peer can cause: at most LOG_RATE_PER_S lines a second each; what was left
 *  out is counted in the next line as `dropped=N`. */
struct log_rate {
    uint64_t window_ms;
    unsigned count, dropped;
};
bool log_rate_ok(struct log_rate *r, uint64_t now_ms, unsigned *ret_dropped);

/** Access lines: gathered per thread; written by log_flush() or when 32 KiB are full. There
 *  is one for each request, and printf() would be a seventh of its cost. */
struct log_pair {
    const char *key;
    enum log_kind {
        LOG_NUMBER,
        LOG_WORD, /* no spaces in it: as it is, but for control bytes */
        LOG_TEXT, /* quoted and escaped as by log_qs(), cut at 256 bytes */
    } kind;
    uint64_t number;
    struct span text;
};
void log_access(const struct log_pair *pairs, size_t n);
void log_flush(void);

#endif
