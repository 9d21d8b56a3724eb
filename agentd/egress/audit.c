/* SPDX-License-Identifier: MIT */
/*
 * Theory. The guard writes from its loop, so a write must not block: a regular file does
 * not, and what is no regular file is asked before. A line that was cut (a full disk) is
 * ended by a newline before the next one, so that one lost record does not spoil another.
 *
 * Refusals are what a sandbox can cause without end. They are limited a sandbox and
 * kind; the table of limits holds only what was written in the last second or has
 * something left to tell.
 */
#include "agentd/egress/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/egress/sandbox_name.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"

enum {
    RATES_MAX = 16384, /* two kinds for twice as many sandboxes as a keeper has */
    BUCKETS = 1024,
    WINDOW_MS = 1000,
};

struct rate {
    struct rate *next;
    char sandbox[EGRESS_NAME_MAX + 1];
    enum audit_kind kind;
    uint64_t window_ms;
    uint32_t count, dropped;
};

struct audit {
    int fd;
    bool is_file, is_cut;
    uint64_t lost;
    struct log_rate rate;
    size_t n_rates;
    struct rate *rates[BUCKETS];
};

/* -- how many of one kind ------------------------------------------------------------ */

static struct rate **bucket_of(struct audit *a, const char *sandbox, enum audit_kind kind)
{
    uint32_t h = 2166136261u ^ kind;

    for (; *sandbox != '\0'; sandbox++)
        h = (h ^ (uint8_t)*sandbox) * 16777619u;
    return &a->rates[h % BUCKETS];
}

/* What a sandbox that says nothing more has left to tell is counted as lost. */
static void sweep(struct audit *a, uint64_t now_ms, bool everything)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        struct rate **p = &a->rates[i];

        while (*p != NULL) {
            struct rate *r = *p;

            if (!everything && now_ms - r->window_ms < WINDOW_MS) {
                p = &r->next;
                continue;
            }
            a->lost += r->dropped;
            *p = r->next;
            a->n_rates--;
            mem_free(r);
        }
    }
}

/* NULL: no memory, or more sandboxes in one second than there can be. */
static struct rate *rate_of(struct audit *a, const char *sandbox, enum audit_kind kind,
                            uint64_t now_ms)
{
    struct rate **p = bucket_of(a, sandbox, kind), *r;

    for (r = *p; r != NULL; r = r->next)
        if (r->kind == kind && strcmp(r->sandbox, sandbox) == 0)
            return r;
    if (a->n_rates >= RATES_MAX)
        sweep(a, now_ms, false);
    if (a->n_rates >= RATES_MAX || strlen(sandbox) > EGRESS_NAME_MAX)
        return NULL;
    r = mem_zalloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    memcpy(r->sandbox, sandbox, strlen(sandbox) + 1);
    r->kind = kind;
    r->window_ms = now_ms;
    r->next = *p;
    *p = r;
    a->n_rates++;
    return r;
}

/* May it be written, and how many like it were left out before? */
static bool may_write(struct audit *a, const struct audit_record *r,
                      uint32_t *ret_repeated)
{
    bool is_limited = r->kind == AUDIT_REFUSED || r->kind == AUDIT_NAME;
    uint64_t now = clock_wall_ms();
    struct rate *rate;

    *ret_repeated = r->repeated;
    if (!is_limited || r->sandbox == NULL)
        return true;
    rate = rate_of(a, r->sandbox, r->kind, now);
    if (rate == NULL) {
        a->lost++;
        return false;
    }
    if (now - rate->window_ms >= WINDOW_MS) { /* also when the clock was set back */
        rate->window_ms = now;
        rate->count = 0;
    }
    if (rate->count >= AUDIT_RATE_PER_S) {
        rate->dropped += rate->dropped < UINT32_MAX - r->repeated ? 1 + r->repeated : 0;
        return false;
    }
    rate->count++;
    *ret_repeated += rate->dropped;
    rate->dropped = 0;
    return true;
}

/* -- writing ------------------------------------------------------------------------- */

static bool can_write(const struct audit *a, size_t n)
{
    struct pollfd p = {.fd = a->fd, .events = POLLOUT};

    /* A pipe that is ready has room for PIPE_BUF bytes. */
    return a->is_file ||
           (n <= PIPE_BUF && poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) != 0);
}

static void lost_one(struct audit *a, const char *why)
{
    unsigned dropped;

    a->lost++;
    if (log_rate_ok(&a->rate, clock_wall_ms(), &dropped))
        log_err("audit.lost", "lost=%llu why=%s", (unsigned long long)a->lost,
                log_q(why));
}

static void write_line(struct audit *a, const struct buf *line)
{
    size_t skip =
        a->is_cut ? 0 : 1; /* line begins with the newline that ends a cut one */
    ssize_t n;

    if (!can_write(a, line->len)) {
        lost_one(a, "the reader does not read");
        return;
    }
    do
        n = write(a->fd, line->p + skip, line->len - skip);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)(line->len - skip)) {
        a->is_cut = false;
        return;
    }
    a->is_cut |= n > 0;
    lost_one(a, n < 0 ? strerrordesc_np(errno) : "no room");
}

void audit_write(struct audit *a, const struct audit_record *r)
{
    AUTO(buf_done)
    struct buf line = BUF_INIT;
    struct audit_record full = *r;

    if (a == NULL || a->fd < 0 || !may_write(a, r, &full.repeated))
        return;
    if (full.ended_ms == 0)
        full.ended_ms = clock_wall_ms();
    if (full.started_ms == 0)
        full.started_ms = full.ended_ms;
    if (buf_adds(&line, "\n") < 0 || audit_print(&full, &line) < 0)
        lost_one(a, "no memory");
    else
        write_line(a, &line);
}

uint64_t audit_lost(const struct audit *a)
{
    return a->lost;
}

struct audit *audit_new(int fd)
{
    struct audit *a = mem_zalloc(1, sizeof(*a));
    struct stat st;

    if (a == NULL)
        return NULL;
    a->fd = fd;
    a->is_file = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    return a;
}

void audit_free(struct audit *a)
{
    if (a == NULL)
        return;
    sweep(a, 0, true);
    mem_free(a);
}

/* Where a sandbox may write it may put a link to what only we may, and its records have
 * names in them that it chose. */
static int check_link(const char *path, struct err *e)
{
    struct stat st;

    if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode) || st.st_uid == 0 ||
        st.st_uid == geteuid())
        return 0; /* open() says what else is wrong */
    return err_set(e, ERR_DENIED, "the audit file %.100s is a link of user %u", path,
                   (unsigned)st.st_uid);
}

int audit_open(const char *path, struct err *e)
{
    bool is_stdout = strcmp(path, "-") == 0;
    int fd;

    if (!is_stdout && check_link(path, e) < 0)
        return -1;
    /* O_NONBLOCK: a FIFO that nobody reads is an error, not a wait. */
    fd = is_stdout
             ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)
             : open(path,
                    O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                    0640);

    return fd < 0 ? err_sys(e, "open the audit file %s", path) : fd;
}
