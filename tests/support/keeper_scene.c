/* SPDX-License-Identifier: MIT */
#include "tests/support/keeper_scene.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/egress/audit.h"
#include "agentd/egress/egress.h"
#include "common/log.h"
#include "common/sock.h"
#include "tests/support/own_ns.h"
#include "tests/support/test.h"

static void die(const char *what)
{
    perror(what);
    abort();
}

/* -- namespaces ---------------------------------------------------------------------- */

int keeper_scene_program(pid_t pid, const char *const argv[])
{
    char path[64];
    int status = 0;
    pid_t child = fork();

    if (child < 0)
        die("fork");
    if (child == 0) {
        int null = open("/dev/null", O_RDWR), ns = -1;

        if (pid != 0) {
            (void)snprintf(path, sizeof path, "/proc/%ld/ns/net", (long)pid);
            ns = open(path, O_RDONLY | O_CLOEXEC);
            if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
                _exit(126);
        }
        dup2(null, 1);
        dup2(null, 2);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool keeper_scene_main(int argc, char **argv, int *ret_code)
{
    static const char *const ip[] = {"ip", "link", NULL};
    static const char *const nft[] = {"nft", "list", "ruleset", NULL};

    *ret_code = 0;
    if (argc > 1 && strcmp(argv[1], "egress") == 0) {
        *ret_code = egress_main(argc - 1, argv + 1);
        return true;
    }
    log_setup(false, getenv("KEEPER_SCENE_LOG") ? LOG_DEBUG : LOG_ERR);
    if (own_ns_enter(CLONE_NEWNET) < 0 || !own_ns_lo_up()) {
        printf("skipped: the kernel gives no namespace here: %s\n", strerror(errno));
        *ret_code = 1;
    } else if (keeper_scene_program(0, ip) != 0 || keeper_scene_program(0, nft) != 0) {
        printf("skipped: ip(8) or nft(8) is not here\n");
        *ret_code = 1;
    }
    return false;
}

/* -- the world ----------------------------------------------------------------------- */

static int bind_world(int type, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        (type == SOCK_STREAM && listen(fd, 64) < 0))
        die("world");
    return fd;
}

/* The question back, with one address when it is for A. */
static void answer_dns(int fd)
{
    static const uint8_t tail[] = {0xc0, 12, 0, 1, 0,   1,  0,   0,
                                   0,    60, 0, 4, 198, 51, 100, 7};
    uint8_t p[1024];
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(fd, p, 512, 0, (struct sockaddr *)&from, &len);
    size_t at = 12;
    bool is_a;

    while (n > 12 && at < (size_t)n && p[at] != 0)
        at += p[at] + 1u;
    at += 5; /* the root's label, type, class */
    if (n < 12 || at > (size_t)n)
        return;
    is_a = p[at - 4] == 0 && p[at - 3] == 1;
    p[2] = 0x81;
    p[3] = 0x80;
    memset(p + 6, 0, 6);
    if (is_a) {
        p[7] = 1;
        memcpy(p + at, tail, sizeof tail);
        at += sizeof tail;
    }
    (void)sendto(fd, p, at, 0, (struct sockaddr *)&from, len);
}

static void say_hello(int fd)
{
    int c = accept(fd, NULL, NULL);

    if (c >= 0) {
        (void)send(c, "hello", 5, MSG_NOSIGNAL);
        shutdown(c, SHUT_WR);
        close(c);
    }
}

_Noreturn static void be_world(int ready)
{
    struct pollfd p[3];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWNET) < 0 || !own_ns_lo_up())
        die("world");
    p[0].fd = bind_world(SOCK_STREAM, 8080);
    p[1].fd = bind_world(SOCK_STREAM, 5432);
    p[2].fd = bind_world(SOCK_DGRAM, 53);
    for (size_t i = 0; i < 3; i++)
        p[i].events = POLLIN;
    if (write(ready, "x", 1) != 1)
        die("world");
    for (;;) {
        if (poll(p, 3, -1) < 0)
            die("world");
        for (size_t i = 0; i < 2; i++)
            if (p[i].revents)
                say_hello(p[i].fd);
        if (p[2].revents)
            answer_dns(p[2].fd);
    }
}

static void run_ip(pid_t pid, const char *const argv[])
{
    if (keeper_scene_program(pid, argv) != 0)
        die("ip");
}
/* @pid  in whose network; 0: ours */
#define IP(pid, ...) run_ip(pid, (const char *const[]){"ip", __VA_ARGS__, NULL})

static pid_t start_world(void)
{
    char pid[16], byte;
    int ready[2];
    pid_t world;

    if (pipe2(ready, O_CLOEXEC) < 0)
        die("pipe");
    world = fork();
    if (world == 0)
        be_world(ready[1]);
    close(ready[1]);
    if (world < 0 || read(ready[0], &byte, 1) != 1)
        die("world");
    close(ready[0]);
    (void)snprintf(pid, sizeof pid, "%ld", (long)world);
    IP(0, "link", "add", "cable", "type", "veth", "peer", "name", "world");
    IP(0, "link", "set", "world", "netns", pid);
    IP(0, "addr", "add", "198.51.100.1/24", "dev", "cable");
    IP(0, "link", "set", "cable", "up");
    IP(world, "addr", "add", "198.51.100.7/24", "dev", "world");
    IP(world, "link", "set", "world", "up");
    return world;
}

/* -- the scene ----------------------------------------------------------------------- */

static void on_limit(void *arg)
{
    struct keeper_scene *s = arg;

    loop_stop(s->loop);
}

static void start_keeper(struct keeper_scene *s, const char *state_dir)
{
    struct keeper_conf c = {
        .loop = s->loop, .audit_fd = s->audit, .state_dir = state_dir};
    struct err e;

    s->keeper = keeper_new(&c, &e);
    if (!s->keeper) {
        fprintf(stderr, "keeper: %s\n", e.msg);
        abort();
    }
}

void keeper_scene_open(struct keeper_scene *s, const char *state_dir)
{
    memset(s, 0, sizeof *s);
    s->world = start_world();
    s->loop = loop_new(NULL);
    s->audit = memfd_create("audit", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    /* The guard may be one that writes there as the keeper does: a memory file's position
     * is not kept for them. */
    if (!s->loop || s->audit < 0 || fcntl(s->audit, F_SETFL, O_APPEND) < 0)
        die("scene");
    loop_timer_init(&s->limit, s->loop, on_limit, s);
    start_keeper(s, state_dir);
}

void keeper_scene_restart(struct keeper_scene *s, const char *state_dir)
{
    keeper_free(s->keeper);
    start_keeper(s, state_dir);
}

void keeper_scene_close(struct keeper_scene *s)
{
    keeper_free(s->keeper);
    loop_timer_stop(&s->limit);
    loop_free(s->loop);
    close(s->audit);
    kill(s->world, SIGKILL);
    while (waitpid(s->world, NULL, 0) < 0 && errno == EINTR)
        ;
    /* The cable ends with the world's namespace, but a little later: the next scene's
     * has its name. */
    for (int i = 0; i < 5000 && if_nametoindex("cable") != 0; i++)
        (void)poll(NULL, 0, 1);
}

static void on_tick(void *arg)
{
    loop_stop(arg);
}

void keeper_scene_run(struct keeper_scene *s, unsigned ms, const bool *flag)
{
    uint64_t end = clock_us() + (uint64_t)ms * 1000;
    struct loop_timer tick = {0};

    loop_timer_init(&tick, s->loop, on_tick, s->loop);
    while (clock_us() < end && !(flag && *flag)) {
        loop_timer_start(&tick, 5);
        loop_run(s->loop);
    }
    loop_timer_stop(&tick);
}

const char *keeper_scene_records(struct keeper_scene *s, char out[65536])
{
    ssize_t n = pread(s->audit, out, 65535, 0);

    out[n > 0 ? n : 0] = '\0';
    return out;
}

const char *keeper_scene_status(struct keeper_scene *s, const char *name, char out[16384])
{
    struct buf b = BUF_INIT;
    struct err e;

    if (keeper_status(s->keeper, name, &b, &e) < 0)
        (void)snprintf(out, 16384, "error %d: %s", (int)e.code, e.msg);
    else
        (void)snprintf(out, 16384, "%.*s", SPAN_FMT(buf_span(&b)));
    buf_done(&b);
    return out;
}

void keeper_scene_until_status(struct keeper_scene *s, const char *name, const char *text)
{
    char got[16384];

    for (int i = 0; i < 1000; i++) {
        if (strstr(keeper_scene_status(s, name, got), text))
            return;
        keeper_scene_run(s, 10, NULL);
    }
    fail_msg("no %s in %s", text, got);
}
