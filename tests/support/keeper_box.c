/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/sock.h"
#include "tests/support/keeper_scene.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

enum {
    WAIT_MS = 5000,
    LINGER_MS = 500
};

struct order {
    char what; /* 'c' connect, 'l' and linger, 's' send, 'a' ask */
    uint16_t port;
    char addr[64], name[128];
};
struct answer {
    int code;
    char text[64];
};

static void die(const char *what)
{
    perror(what);
    abort();
}

/* -- inside -------------------------------------------------------------------------- */

static int wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    int r = poll(&p, 1, WAIT_MS);

    return r == 1 ? 0 : r == 0 ? ETIMEDOUT : errno;
}

static int try_connect(const struct order *o, int fd, const struct sock_addr *a)
{
    char got[8];
    int err;

    if (connect(fd, &a->u.sa, a->len) < 0 && errno != EINPROGRESS)
        return errno;
    err = wait_for(fd, POLLOUT);
    if (err == 0)
        err = sock_error(fd);
    if (err == 0)
        err = wait_for(fd, POLLIN);
    if (err != 0)
        return err;
    if (o->what == 'l')
        (void)poll(NULL, 0, LINGER_MS);
    switch (recv(fd, got, sizeof got, 0)) {
    case -1:
        return errno;
    case 5:
        return memcmp(got, "hello", 5) == 0 ? 0 : EBADMSG;
    default:
        return ENODATA;
    }
}

static int try_ask(const struct order *o, int fd, const struct sock_addr *a, char *text)
{
    uint8_t q[512] = {0x12, 0x34, 1, 0, 0, 1};
    size_t at = 12;
    ssize_t n;
    int err;

    for (const char *p = o->name; *p;) {
        size_t len = strcspn(p, ".");

        q[at++] = (uint8_t)len;
        memcpy(q + at, p, len);
        at += len;
        p += len + (p[len] == '.');
    }
    at++;
    q[at + 1] = 1;
    q[at + 3] = 1;
    at += 4;
    if (sendto(fd, q, at, 0, &a->u.sa, a->len) < 0)
        return errno;
    err = wait_for(fd, POLLIN);
    if (err != 0)
        return err;
    n = recv(fd, q, sizeof q, 0);
    if (n < 12)
        return n < 0 ? errno : EBADMSG;
    if ((q[3] & 15) != 0)
        return 1000 + (q[3] & 15);
    if (q[7] == 0 || (size_t)n < at + 16)
        return ENODATA;
    (void)snprintf(text, 64, "%u.%u.%u.%u", q[at + 12], q[at + 13], q[at + 14],
                   q[at + 15]);
    return 0;
}

static void obey(const struct order *o, struct answer *ret)
{
    struct sock_addr a;
    int fd;

    memset(ret, 0, sizeof *ret);
    if (sock_parse_ip(span_str(o->addr), o->port, &a) < 0)
        abort();
    fd = socket(a.u.sa.sa_family,
                (o->what != 's' && o->what != 'a' ? SOCK_STREAM : SOCK_DGRAM) |
                    SOCK_NONBLOCK | SOCK_CLOEXEC,
                0);
    if (fd < 0)
        die("socket");
    if (o->what == 'c' || o->what == 'l')
        ret->code = try_connect(o, fd, &a);
    else if (o->what == 's')
        ret->code = sendto(fd, "x", 1, 0, &a.u.sa, a.len) < 0 ? errno : 0;
    else
        ret->code = try_ask(o, fd, &a, ret->text);
    close(fd);
}

_Noreturn static void be_box(int fd)
{
    struct order o;
    struct answer a;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "boxed");
    if (unshare(CLONE_NEWNET) < 0)
        die("unshare");
    memset(&a, 0, sizeof a);
    if (write(fd, &a, sizeof a) != sizeof a)
        _exit(1);
    while (read(fd, &o, sizeof o) == sizeof o) {
        obey(&o, &a);
        if (write(fd, &a, sizeof a) != sizeof a)
            break;
    }
    _exit(0);
}

/* -- outside ------------------------------------------------------------------------- */

void keeper_box_open(struct keeper_box *b)
{
    struct answer hello;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        die("socketpair");
    b->pid = fork();
    if (b->pid < 0)
        die("fork");
    if (b->pid == 0) {
        close(pair[0]);
        be_box(pair[1]);
    }
    close(pair[1]);
    b->fd = pair[0];
    if (read(b->fd, &hello, sizeof hello) != sizeof hello)
        die("box");
}

void keeper_box_close(struct keeper_box *b)
{
    if (b->pid > 0) {
        kill(b->pid, SIGKILL);
        while (waitpid(b->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        close(b->fd);
    }
    b->pid = 0;
}

static void on_done(void *arg, const struct err *e)
{
    struct keeper_scene *s = arg;

    s->is_done = true;
    if (e)
        s->e = *e;
}

static int end_of(struct keeper_scene *s, int rc)
{
    if (rc < 0)
        return -1;
    keeper_scene_run(s, 30000, &s->is_done);
    assert_true(s->is_done);
    return s->e.code == ERR_NONE ? 0 : -1;
}

int keeper_box_add(struct keeper_scene *s, struct keeper_box *b, const char *name,
                   const char *policy)
{
    struct policy *p = policy_text(policy);
    struct netns *ns = netns_open(NULL, b->pid, &s->e);
    struct keeper_add a = {
        .name = name, .tier = EGRESS_SEALED, .policy = p, .take_ns = &ns, .pid = b->pid};
    int rc;

    if (!ns)
        die("netns");
    s->is_done = false;
    memset(&s->e, 0, sizeof s->e);
    rc = end_of(s, keeper_add(s->keeper, &a, on_done, s, &s->e));
    policy_unref(p);
    return rc;
}

int keeper_box_reload(struct keeper_scene *s, const char *name, const char *policy)
{
    struct policy *p = policy_text(policy);
    int rc;

    s->is_done = false;
    memset(&s->e, 0, sizeof s->e);
    rc = end_of(s, keeper_reload(s->keeper, name, p, on_done, s, &s->e));
    policy_unref(p);
    return rc;
}

static void on_answer(void *arg, unsigned events)
{
    (void)events;
    *(bool *)arg = true;
}

static int give(struct keeper_scene *s, struct keeper_box *b, const struct order *o,
                char *out)
{
    struct answer a;
    bool is_there = false;
    struct loop_io *io;

    if (write(b->fd, o, sizeof *o) != sizeof *o)
        die("box");
    io = loop_io_start(s->loop, b->fd, on_answer, &is_there, NULL);
    loop_io_want(io, LOOP_READ);
    keeper_scene_run(s, 30000, &is_there);
    loop_io_stop(&io);
    if (!is_there || read(b->fd, &a, sizeof a) != sizeof a)
        die("box");
    if (out)
        memcpy(out, a.text, sizeof a.text);
    return a.code;
}

int keeper_box_connect(struct keeper_scene *s, struct keeper_box *b, const char *addr,
                       uint16_t port)
{
    struct order o = {.what = 'c', .port = port};

    (void)snprintf(o.addr, sizeof o.addr, "%s", addr);
    return give(s, b, &o, NULL);
}

int keeper_box_linger(struct keeper_scene *s, struct keeper_box *b, const char *addr,
                      uint16_t port)
{
    struct order o = {.what = 'l', .port = port};

    (void)snprintf(o.addr, sizeof o.addr, "%s", addr);
    return give(s, b, &o, NULL);
}

int keeper_box_send(struct keeper_scene *s, struct keeper_box *b, const char *addr,
                    uint16_t port)
{
    struct order o = {.what = 's', .port = port};

    (void)snprintf(o.addr, sizeof o.addr, "%s", addr);
    return give(s, b, &o, NULL);
}

int keeper_box_ask(struct keeper_scene *s, struct keeper_box *b, const char *addr,
                   const char *name, char out[64])
{
    struct order o = {.what = 'a', .port = 53};

    (void)snprintf(o.addr, sizeof o.addr, "%s", addr);
    (void)snprintf(o.name, sizeof o.name, "%s", name);
    return give(s, b, &o, out);
}
