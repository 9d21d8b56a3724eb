/* SPDX-License-Identifier: MIT */
/*
 * A pin before its reply: what the guard does between having an answer's addresses and
 * being allowed to send it. The keeper is the real one with SANDBOXES sealed namespaces;
 * it starts its guard as /proc/self/exe, which is this program again, and that plays a
 * guard's part with the guard's own end of the channel: it says READY, takes the
 * sandboxes with their sockets and tags, and pins, in one after the other. Needs root.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "agentd/egress/guard/keeper_link.h"
#include "agentd/egress/keeper/keeper.h"
#include "agentd/egress/kernel/pin.h"
#include "common/log.h"
#include "tests/support/samples.h"

enum {
    SANDBOXES = 1000,
    PINS = 10000,
    CHANNEL_AT = 3,
};

static void need(bool ok, const char *what, const struct err *e)
{
    if (ok)
        return;
    (void)fprintf(stderr, "bench_pin: %s: %s\n", what, e != NULL ? e->msg : "");
    exit(1);
}

/* -- the guard's part ---------------------------------------------------------------- */

struct pinner {
    struct loop *loop;
    struct keeper_link *keeper;
    struct loop_job pin;
    unsigned given, n;
    struct {
        int fd;
        uint32_t tag;
    } box[SANDBOXES];
    uint64_t took[PINS];
};

static void report(struct pinner *a)
{
    samples_print("guard.pin.1000_sandboxes", a->took, PINS);
    (void)fflush(stdout);
}

/* One a turn of the loop, as a guard does it that is woken by an answer. */
static void on_pin(void *arg)
{
    struct pinner *a = arg;
    unsigned box = a->n * 7919 % SANDBOXES;
    struct pin p = {.addr = {.family = AF_INET,
                             .bytes = {93, 1, (uint8_t)(a->n >> 8), (uint8_t)a->n}},
                    .port = 443,
                    .life_s = 60};
    uint64_t start;
    int error;

    if (a->n == PINS) {
        report(a);
        return;
    }
    start = samples_now();
    error = pin_put(a->box[box].fd, a->box[box].tag, &p);
    a->took[a->n++] = samples_now() - start;
    need(error == 0, strerror(error), NULL);
    loop_job_defer(&a->pin);
}

static void take(struct pinner *a, struct channel_msg *m)
{
    need(m->fd[CHANNEL_FD_PIN] >= 0 && m->tag != 0, "no socket for pins", NULL);
    a->box[a->given].fd = m->fd[CHANNEL_FD_PIN];
    a->box[a->given++].tag = m->tag;
    m->fd[CHANNEL_FD_PIN] = -1;
}

static void on_message(void *arg, struct channel_msg *m)
{
    struct pinner *a = arg;
    struct channel_msg r;
    struct err e = {0};

    if (m->type == CHANNEL_SANDBOX)
        take(a, m);
    if (m->type != CHANNEL_SANDBOX && m->type != CHANNEL_HELLO)
        return;
    channel_msg_init(&r, m->type == CHANNEL_HELLO ? CHANNEL_READY : CHANNEL_IN_FORCE,
                     m->sandbox);
    r.seq = m->seq;
    need(keeper_link_send(a->keeper, &r, &e) == 0, "send", &e);
    if (a->given == SANDBOXES)
        loop_job_defer(&a->pin);
}

static void on_gone(void *arg)
{
    struct pinner *a = arg;

    loop_stop(a->loop);
}

static int be_guard(void)
{
    static struct pinner a;
    struct err e = {0};
    int fd = CHANNEL_AT;

    a.loop = loop_new(&e);
    need(a.loop != NULL, "loop", &e);
    loop_job_init(&a.pin, a.loop, on_pin, &a);
    a.keeper = keeper_link_new(a.loop, &fd, on_message, on_gone, &a, &e);
    need(a.keeper != NULL, "channel", &e);
    loop_run(a.loop);
    return 0;
}

/* -- the keeper ---------------------------------------------------------------------- */

struct bench {
    struct loop *loop;
    struct keeper *keeper;
    struct policy *policy;
    struct loop_job add;
    unsigned n;
    int home, out;
};

static void on_added(void *arg, const struct err *e)
{
    struct bench *b = arg;

    need(e == NULL, "add", e);
    if (++b->n < SANDBOXES)
        loop_job_defer(&b->add);
}

static void on_add(void *arg)
{
    struct bench *b = arg;
    struct netns *ns;
    struct err e = {0};
    char name[16], path[32];
    int fd;
    struct keeper_add add = {
        .name = name, .tier = EGRESS_SEALED, .policy = b->policy, .take_ns = &ns};

    (void)snprintf(name, sizeof(name), "s%u", b->n);
    need(unshare(CLONE_NEWNET) == 0, "unshare", NULL);
    fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    need(fd >= 0 && setns(b->home, CLONE_NEWNET) == 0, "come back", NULL);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ns = netns_open(path, 0, &e);
    need(ns != NULL, "namespace", &e);
    (void)close(fd);
    need(keeper_add(b->keeper, &add, on_added, b, &e) == 0, "add", &e);
}

/* The guard has spoken: it is over. */
static void on_out(void *arg, unsigned events)
{
    struct bench *b = arg;
    char line[256];
    ssize_t n = read(b->out, line, sizeof(line) - 1);

    UNUSED_ARG(events);
    if (n <= 0)
        return;
    line[n] = '\0';
    (void)fputs(line, stdout);
    loop_stop(b->loop);
}

static void start(struct bench *b)
{
    static const char text[] = "{\"version\":1,\"allow\":[\"*.example.com:443\"]}";
    static struct policy_faults faults;
    struct keeper_conf conf = {.audit_fd = -1, .guard_uid = keeper_guard_uid()};
    struct loop_io *io;
    struct err e = {0};
    int real, pair[2];

    b->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    b->policy = policy_compile(span_str(text), NULL, &faults);
    b->loop = loop_new(&e);
    need(b->home >= 0 && b->policy != NULL && b->loop != NULL, "start", &e);
    /* What the guard prints comes here first. */
    real = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10);
    need(real >= 0 && pipe2(pair, O_CLOEXEC) == 0 && dup2(pair[1], STDOUT_FILENO) >= 0,
         "pipe", NULL);
    b->out = pair[0];
    (void)fcntl(b->out, F_SETFL, O_NONBLOCK);
    conf.loop = b->loop;
    b->keeper = keeper_new(&conf, &e);
    need(b->keeper != NULL, "keeper", &e);
    need(dup2(real, STDOUT_FILENO) >= 0, "stdout", NULL);
    io = loop_io_start(b->loop, b->out, on_out, b, &e);
    need(io != NULL, "watch", &e);
    loop_io_want(io, LOOP_READ);
    loop_job_init(&b->add, b->loop, on_add, b);
    loop_job_defer(&b->add);
}

int main(int argc, char **argv)
{
    struct rlimit l = {65536, 65536};
    static struct bench b;

    if (argc == 3 && strcmp(argv[2], "guard") == 0)
        return be_guard();
    if (geteuid() != 0) {
        (void)printf("bench_pin: left out: a thousand namespaces need root\n");
        return 0;
    }
    (void)setrlimit(RLIMIT_NOFILE, &l);
    log_setup(false, LOG_ERR);
    /* Not the machine's own network. */
    need(unshare(CLONE_NEWNET) == 0, "unshare", NULL);
    start(&b);
    loop_run(b.loop);
    keeper_free(b.keeper);
    return 0; /* the process's end gives back the rest */
}
