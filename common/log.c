/* SPDX-License-Identifier: MIT */
/*
 * Theory. A line is first printed as text, "key=value key=value", by the caller's format
 * into a buffer of this call; what a caller let through is made harmless there (no
 * control bytes, so one call is one line whatever a value holds). The JSON form is made
 * from that text: pairs are cut at spaces outside quotes. Whether a value is a number is
 * told by the conversion in the format, never by the value's looks: a sandbox may be
 * called "42".
 */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"

enum {
    LINE_TEXT = 2048,  /* of key=value pairs; more is cut */
    LINE_WHOLE = 4096, /* with time and the rest; JSON needs more room than text */
    ACCESS_CAP = 32768,
    QUOTED_MAX = 64,
    QUOTED_LONG = 256, /* of an access line's text: what paths are told apart by */
    QUOTED_SLOTS = 8,
};

static _Atomic int level_now = LOG_INFO;
static _Atomic bool json_now;

static _Thread_local char access_buf[ACCESS_CAP];
static _Thread_local size_t access_len;
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;

/* Whoever started us with 0, 1 or 2 closed would have our next sockets there, and those read
 * what we log and print. */
static void fill_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", O_RDWR); /* gives the lowest, this one */
}

void log_setup(bool json, enum log_level level)
{
    fill_standard_files();
    atomic_store_explicit(&json_now, json, memory_order_relaxed);
    atomic_store_explicit(&level_now, level, memory_order_relaxed);
}

static const char *const LEVEL_NAME[LOG_LEVEL_COUNT] = {"err", "warn", "notice", "info",
                                                        "debug"};

int log_level_parse(const char *name, enum log_level *ret)
{
    int i;

    for (i = 0; i < LOG_LEVEL_COUNT; i++) {
        if (strcmp(name, LEVEL_NAME[i]) == 0) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

bool log_is_on(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&level_now, memory_order_relaxed);
}

/* -- a bounded text ------------------------------------------------------------------ */

struct line {
    char *p;
    size_t len, cap;
    bool is_full; /* something did not fit */
};

static void put(struct line *l, const char *p, size_t n)
{
    if (n > l->cap - l->len) {
        l->is_full = true;
        return;
    }
    memcpy(l->p + l->len, p, n);
    l->len += n;
}

static void puts_(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* A thread sees the same second many times over. */
static void put_time(struct line *l)
{
    static _Thread_local time_t second = -1;
    static _Thread_local char text[24]; /* 2026-11-21T12:00:00 */
    struct timespec now;
    struct tm tm;
    char ms[6];

    (void)clock_gettime(CLOCK_REALTIME, &now); /* never fails for this clock */
    if (now.tv_sec != second && gmtime_r(&now.tv_sec, &tm) != NULL) {
        (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
        second = now.tv_sec;
    }
    puts_(l, text);
    ms[0] = '.';
    ms[1] = (char)('0' + now.tv_nsec / 100000000);
    ms[2] = (char)('0' + now.tv_nsec / 10000000 % 10);
    ms[3] = (char)('0' + now.tv_nsec / 1000000 % 10);
    ms[4] = 'Z';
    put(l, ms, 5);
}

/* -- pairs --------------------------------------------------------------------------- */

struct pair {
    const char *key;
    size_t key_len; /* 0: a word without '=' */
    const char *value;
    size_t value_len;
    bool is_quoted; /* then without the quotes, and escaped as log_q() does */
};

/* The next pair of a text that ends at `end`; NULL when there is none, else where to go
 * on.
 */
static const char *next_pair(const char *p, const char *end, struct pair *ret)
{
    const char *start;

    while (p < end && *p == ' ')
        p++;
    if (p == end)
        return NULL;
    for (start = p; p < end && *p != ' ' && *p != '=' && *p != '"'; p++)
        ;
    *ret = (struct pair){.key = start, .value = start};
    if (p < end && *p == '=') {
        ret->key_len = (size_t)(p - start);
        ret->value = ++p;
    }
    if (p < end && *p == '"') {
        ret->is_quoted = true;
        for (ret->value = ++p; p < end && *p != '"'; p++)
            p += *p == '\\' && p + 1 < end;
        ret->value_len = (size_t)(p - ret->value);
        return p < end ? p + 1 : p;
    }
    while (p < end && *p != ' ')
        p++;
    ret->value_len = (size_t)(p - ret->value);
    return p;
}

/* Does the format give this key's value by %d, %u or a longer form of them? */
static bool is_number_in(const char *fmt, const char *key, size_t key_len)
{
    const char *p;

    for (p = fmt; (p = strchr(p, '=')) != NULL; p++) {
        if ((size_t)(p - fmt) < key_len || memcmp(p - key_len, key, key_len) != 0)
            continue;
        if ((size_t)(p - fmt) > key_len && p[-(ptrdiff_t)key_len - 1] != ' ')
            continue;
        if (p[1] != '%')
            return false;
        p += 2;
        p += strspn(p, "lzhjt");
        return (*p == 'd' || *p == 'u' || *p == 'i') && (p[1] == ' ' || p[1] == '\0');
    }
    return false;
}

/* How many bytes from here on need no escape. */
static size_t plain_run(const char *p, const char *end)
{
    const char *start = p;

    while (p < end && *p != '"' && *p != '\\')
        p++;
    return (size_t)(p - start);
}

/* log_q() writes \" \\ and \xNN; JSON writes \" \\ and \u00NN. */
static void put_json_text(struct line *l, const char *p, size_t n, bool is_quoted)
{
    const char *end = p + n;

    while (p < end) {
        size_t run = plain_run(p, end);

        put(l, p, run);
        p += run;
        if (p == end)
            return;
        if (is_quoted && *p == '\\' && end - p >= 4 && p[1] == 'x') {
            puts_(l, "\\u00");
            put(l, p + 2, 2);
            p += 4;
        } else if (is_quoted && *p == '\\' && end - p >= 2) {
            put(l, p, 2);
            p += 2;
        } else {
            put(l, "\\", 1);
            put(l, p++, 1);
        }
    }
}

static void put_json_pair(struct line *l, const struct pair *v, const char *fmt)
{
    size_t before = l->len;

    puts_(l, ",\"");
    if (v->key_len > 0)
        put_json_text(l, v->key, v->key_len, false);
    else
        puts_(l, "message");
    puts_(l, "\":");
    if (!v->is_quoted && v->key_len > 0 && is_number_in(fmt, v->key, v->key_len)) {
        put(l, v->value, v->value_len);
    } else {
        puts_(l, "\"");
        put_json_text(l, v->value, v->value_len, v->is_quoted);
        puts_(l, "\"");
    }
    if (l->is_full) { /* a member is there whole or not at all */
        l->len = before;
        l->is_full = false;
    }
}

/* -- lines --------------------------------------------------------------------------- */

/* The pairs as text. A text that is too long ends before the pair that does not fit. */
PRINTF_LIKE(2, 0)
static size_t print_pairs(char text[LINE_TEXT], const char *fmt, va_list ap)
{
    int n = vsnprintf(text, LINE_TEXT, fmt, ap);
    size_t len = n < 0 ? 0 : (size_t)n;
    size_t i;

    if (len >= LINE_TEXT) {
        const char *end = text + LINE_TEXT - 1;
        const char *p = text;
        struct pair v;

        len = 0;
        while ((p = next_pair(p, end, &v)) != NULL && p < end)
            len = (size_t)(p - text);
    }
    for (i = 0; i < len; i++)
        if (text[i] < ' ' || text[i] > '~')
            text[i] = '?';
    return len;
}

/* Up to the pairs, of which the text form has a space in front of each. */
static void begin_line(struct line *l, bool is_json, enum log_level level,
                       const char *event)
{
    puts_(l, is_json ? "{\"time\":\"" : "");
    put_time(l);
    puts_(l, is_json ? "\",\"level\":\"" : " ");
    puts_(l, LEVEL_NAME[level]);
    puts_(l, is_json ? "\",\"event\":\"" : " event=");
    puts_(l, event);
    puts_(l, is_json ? "\"" : "");
    l->cap -= 2; /* for the end, whatever of the pairs fits */
}

static void end_line(struct line *l, bool is_json)
{
    l->cap += 2;
    puts_(l, is_json ? "}\n" : "\n");
}

static bool is_json_now(void)
{
    return atomic_load_explicit(&json_now, memory_order_relaxed);
}

PRINTF_LIKE(4, 0)
static void put_line(struct line *l, enum log_level level, const char *event,
                     const char *fmt, va_list ap)
{
    bool is_json = is_json_now();
    char text[LINE_TEXT];
    const char *p = text;
    size_t len = print_pairs(text, fmt, ap);
    struct pair v;

    begin_line(l, is_json, level, event);
    if (!is_json) {
        puts_(l, len > 0 ? " " : "");
        put(l, text, len);
    }
    while (is_json && (p = next_pair(p, text + len, &v)) != NULL)
        put_json_pair(l, &v, fmt);
    end_line(l, is_json);
}

/* A writer at a time: a pipe takes only PIPE_BUF bytes in one piece. Somebody who shares
 * our stderr may have made it non-blocking; such a pipe gets a moment, then we go on
 * without. */
static void write_out(const char *p, size_t n)
{
    (void)pthread_mutex_lock(&write_lock);
    while (n > 0) {
        struct pollfd wait = {.fd = STDERR_FILENO, .events = POLLOUT};
        ssize_t done = write(STDERR_FILENO, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno == EAGAIN && poll(&wait, 1, LOG_STALL_MS) > 0)
            continue;
        if (done < 0)
            break; /* there is no place left to say so */
        p += done;
        n -= (size_t)done;
    }
    (void)pthread_mutex_unlock(&write_lock);
}

void log_at(enum log_level level, const char *event, const char *fmt, ...)
{
    char buf[LINE_WHOLE];
    struct line l = {.p = buf, .cap = sizeof(buf)};
    int saved = errno;
    va_list ap;

    if (!log_is_on(level))
        return;
    va_start(ap, fmt);
    put_line(&l, level, event, fmt, ap);
    va_end(ap);
    write_out(l.p, l.len);
    errno = saved;
}

static const char *quote(char *p, size_t max, struct span text);

/* -- access lines -------------------------------------------------------------------- */

static void put_number(struct line *l, uint64_t n)
{
    char digits[20]; /* 2^64 has as many */
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    put(l, digits + at, sizeof(digits) - at);
}

static void put_word(struct line *l, struct span word, bool is_json)
{
    size_t before = l->len;

    puts_(l, is_json ? "\"" : "");
    if (is_json)
        put_json_text(l, (const char *)word.p, word.len, false);
    else
        put(l, (const char *)word.p, word.len);
    for (; before < l->len; before++)
        if (l->p[before] < ' ' || l->p[before] > '~')
            l->p[before] = '?';
    puts_(l, is_json ? "\"" : "");
}

static void put_quoted_text(struct line *l, struct span text, bool is_json)
{
    char place[4 * QUOTED_LONG + 8];
    const char *q = quote(place, QUOTED_LONG, text);

    if (!is_json) {
        puts_(l, q);
        return;
    }
    puts_(l, "\"");
    put_json_text(l, q + 1, strlen(q) - 2, true);
    puts_(l, "\"");
}

static void put_pair(struct line *l, const struct log_pair *p, bool is_json)
{
    size_t before = l->len;

    puts_(l, is_json ? ",\"" : " ");
    puts_(l, p->key);
    puts_(l, is_json ? "\":" : "=");
    switch (p->kind) {
    case LOG_NUMBER:
        put_number(l, p->number);
        break;
    case LOG_WORD:
        put_word(l, p->text, is_json);
        break;
    case LOG_TEXT:
        put_quoted_text(l, p->text, is_json);
        break;
    }
    if (l->is_full) { /* whole or not at all */
        l->len = before;
        l->is_full = false;
    }
}

void log_access(const struct log_pair *pairs, size_t n)
{
    bool is_json = is_json_now();
    struct line l;

    if (!log_is_on(LOG_INFO))
        return;
    if (ACCESS_CAP - access_len < LINE_WHOLE)
        log_flush();
    l = (struct line){.p = access_buf + access_len, .cap = LINE_WHOLE};
    begin_line(&l, is_json, LOG_INFO, "access");
    for (size_t i = 0; i < n; i++)
        put_pair(&l, &pairs[i], is_json);
    end_line(&l, is_json);
    access_len += l.len;
}

void log_flush(void)
{
    if (access_len > 0)
        write_out(access_buf, access_len);
    access_len = 0;
}

/* -- values -------------------------------------------------------------------------- */

static void put_quoted(struct line *l, struct span text)
{
    static const char HEX[] = "0123456789abcdef";
    size_t i;

    puts_(l, "\"");
    for (i = 0; i < text.len; i++) {
        char c = (char)text.p[i];

        if (c == '"' || c == '\\') {
            char esc[2] = {'\\', c};

            put(l, esc, 2);
        } else if (c < ' ' || c > '~') {
            char esc[4] = {'\\', 'x', HEX[text.p[i] >> 4], HEX[text.p[i] & 15]};

            put(l, esc, 4);
        } else {
            put(l, &c, 1);
        }
    }
    puts_(l, "\"");
    put(l, "", 1); /* the NUL */
}

/* Quoted, cut after `max` bytes, into a place of 4 * max + 8. */
static const char *quote(char *p, size_t max, struct span text)
{
    struct line l = {.p = p, .cap = 4 * max + 8};
    bool is_cut = text.len > max;

    put_quoted(&l, span_of(text.p, is_cut ? max : text.len));
    if (is_cut) /* inside the quotes, in place of the last one */
        memcpy(p + l.len - 2, "...\"", 5);
    return p;
}

const char *log_qs(struct span text)
{
    static _Thread_local char slot[QUOTED_SLOTS][4 * QUOTED_MAX + 8];
    static _Thread_local unsigned turn;

    return quote(slot[turn++ % QUOTED_SLOTS], QUOTED_MAX, text);
}

const char *log_q(const char *text)
{
    return log_qs(span_str(text));
}

const char *log_e(const struct err *e)
{
    static _Thread_local char text[4 * sizeof(((struct err *)0)->msg) + 3];
    struct line l = {.p = text, .cap = sizeof(text)};

    put_quoted(&l, span_str(e->msg));
    return text;
}

bool log_rate_ok(struct log_rate *r, uint64_t now_ms, unsigned *ret_dropped)
{
    if (now_ms - r->window_ms >= 1000) {
        r->window_ms = now_ms;
        r->count = 0;
    }
    if (r->count >= LOG_RATE_PER_S) {
        r->dropped++;
        return false;
    }
    r->count++;
    *ret_dropped = r->dropped;
    r->dropped = 0;
    return true;
}
