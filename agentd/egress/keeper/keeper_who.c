/* SPDX-License-Identifier: MIT */
/*
 * Whose connection is it: sock_diag in the sandbox's namespace gives the socket's inode
 * and user for exactly this connection, /proc gives the process. The work is bounded,
 * since a sandbox can have as many processes and descriptors as it likes: what is not
 * found soon is "not known".
 */
#include "agentd/egress/keeper/keeper_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/forward/process.h"
#include "common/sock.h"

enum {
    WHO_ALL_PER_S = 200, /* all of them */
    PIDS_MAX = 4096,     /* looked at for one question */
    FDS_MAX = 2000,
    DIAG_MS = 100,
    TREE_MAX = 512, /* of these, the sandbox's own */
    CHILDREN_TEXT = 4096,
    SCAN_US = 5000,   /* one question's, since pins wait meanwhile */
    SPEND_US = 50000, /* all questions' in a second: the rest is "not known" */
};

/* -- the socket ---------------------------------------------------------------------- */

struct question {
    struct nlmsghdr head;
    struct inet_diag_req_v2 req;
};

static void fill_question(const struct channel_msg *ask, uint32_t seq, struct question *q)
{
    memset(q, 0, sizeof *q);
    q->head.nlmsg_len = sizeof *q;
    q->head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    q->head.nlmsg_flags = NLM_F_REQUEST;
    q->head.nlmsg_seq = seq;
    q->req.sdiag_family = ask->from.family;
    q->req.sdiag_protocol = ask->protocol;
    q->req.idiag_states = ~0U;
    q->req.id.idiag_sport = htons(ask->from_port);
    q->req.id.idiag_dport = htons(ask->to_port);
    memcpy(q->req.id.idiag_src, ask->from.bytes, 16);
    memcpy(q->req.id.idiag_dst, ask->to.bytes, 16);
    q->req.id.idiag_cookie[0] = q->req.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
}

/* 1: found; 0: no such socket; -1: no answer that can be read. */
static int read_answer(int fd, uint32_t seq, uint32_t *ret_inode, uint32_t *ret_uid)
{
    _Alignas(8) uint8_t room[4096];
    struct sockaddr_nl from = {0};
    struct nlmsghdr h;
    struct inet_diag_msg d;

    for (unsigned i = 0; i < 8; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        socklen_t len = sizeof from;
        ssize_t n =
            recvfrom(fd, room, sizeof room, MSG_DONTWAIT, (struct sockaddr *)&from, &len);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (poll(&p, 1, DIAG_MS) == 0)
                return -1;
            continue;
        }
        if (n < (ssize_t)sizeof h || from.nl_pid != 0)
            return -1;
        memcpy(&h, room, sizeof h);
        if (h.nlmsg_seq != seq)
            continue; /* of a question that was given up */
        if (h.nlmsg_type != SOCK_DIAG_BY_FAMILY || n < (ssize_t)(sizeof h + sizeof d))
            return h.nlmsg_type == NLMSG_ERROR ? 0 : -1;
        memcpy(&d, room + sizeof h, sizeof d);
        *ret_inode = d.idiag_inode;
        *ret_uid = d.idiag_uid;
        return 1;
    }
    return -1;
}

static bool find_socket(struct kept *s, const struct channel_msg *ask,
                        uint32_t *ret_inode, uint32_t *ret_uid)
{
    struct question q;
    int rc;

    if (s->diag_fd < 0)
        s->diag_fd = netns_socket(s->ns, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, NULL);
    if (s->diag_fd < 0)
        return false;
    fill_question(ask, ask->seq | 1, &q);
    if (send(s->diag_fd, &q, sizeof q, MSG_DONTWAIT) != (ssize_t)sizeof q)
        return false;
    rc = read_answer(s->diag_fd, q.head.nlmsg_seq, ret_inode, ret_uid);
    if (rc < 0) /* whatever is in it now: begin anew */
        sock_close(&s->diag_fd);
    return rc == 1;
}

/* -- the process --------------------------------------------------------------------- */

struct look {
    char want[32]; /* "socket:[INODE]" */
    unsigned fds, pids;
    struct stat ns;
    uint64_t end_us;
};

static bool is_over(const struct look *l)
{
    return l->pids >= PIDS_MAX || l->fds >= FDS_MAX || clock_us() >= l->end_us;
}

static bool is_in_sandbox(const struct look *l, pid_t pid)
{
    char path[64];
    struct stat st;

    (void)snprintf(path, sizeof path, "/proc/%ld/ns/net", (long)pid);
    return stat(path, &st) == 0 && st.st_ino == l->ns.st_ino && st.st_dev == l->ns.st_dev;
}

static bool has_socket(struct look *l, pid_t pid)
{
    char path[64], text[64];
    const struct dirent *de;
    bool found = false;
    DIR *d;

    (void)snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
    d = opendir(path);
    if (!d)
        return false;
    while (!found && !is_over(l) && (de = readdir(d)) != NULL) {
        ssize_t n;

        if (de->d_name[0] == '.')
            continue;
        l->fds++;
        n = readlinkat(dirfd(d), de->d_name, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
        found = strcmp(text, l->want) == 0;
    }
    (void)closedir(d); /* opened for reading */
    return found;
}

static pid_t scan(struct look *l)
{
    const struct dirent *de;
    pid_t found = 0;
    DIR *d = opendir("/proc");

    if (!d)
        return 0;
    while (found == 0 && !is_over(l) && (de = readdir(d)) != NULL) {
        long pid = de->d_name[0] >= '1' && de->d_name[0] <= '9'
                       ? strtol(de->d_name, NULL, 10)
                       : 0;

        if (pid <= 0)
            continue;
        l->pids++;
        if (is_in_sandbox(l, (pid_t)pid) && has_socket(l, (pid_t)pid))
            found = (pid_t)pid;
    }
    (void)closedir(d); /* opened for reading */
    return found;
}

/* The numbers in a file of /proc, a descendant's each. How many. */
static size_t read_children(pid_t pid, pid_t *ret, size_t cap)
{
    char path[64], text[CHILDREN_TEXT];
    size_t n = 0;
    ssize_t len;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", (long)pid,
                   (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    len = read(fd, text, sizeof text - 1);
    (void)close(fd); /* opened for reading */
    text[len > 0 ? len : 0] = '\0';
    for (char *at = text, *end; n < cap; at = end) {
        long v = strtol(at, &end, 10);

        if (end == at || v <= 0)
            break;
        ret[n++] = (pid_t)v;
    }
    return n;
}

/* The sandbox's first process and what came of it, in the order of their birth: far
 * fewer than all of the machine. What an engine put there later (`podman exec`) is
 * not among them. */
static pid_t scan_tree(struct look *l, pid_t first)
{
    pid_t queue[TREE_MAX] = {first};
    size_t n = first > 0 ? 1 : 0;

    for (size_t i = 0; i < n && !is_over(l); i++) {
        l->pids++;
        if (is_in_sandbox(l, queue[i]) && has_socket(l, queue[i]))
            return queue[i];
        n += read_children(queue[i], queue + n, TREE_MAX - n);
    }
    return 0;
}

static pid_t find_process(struct kept *s, uint32_t inode)
{
    struct look l = {.ns = s->ns_stat, .end_us = clock_us() + SCAN_US};

    if (inode == 0 || l.ns.st_ino == 0)
        return 0;
    (void)snprintf(l.want, sizeof l.want, "socket:[%u]", inode);
    /* Most often it is the program that was asked for last. */
    if (s->last_pid != 0 && is_in_sandbox(&l, s->last_pid) && has_socket(&l, s->last_pid))
        return s->last_pid;
    s->last_pid = scan_tree(&l, s->pid);
    if (s->last_pid == 0)
        s->last_pid = scan(&l);
    return s->last_pid;
}

/* As find_process(), while there is time for it in this second. */
static pid_t find_in_time(struct kept *s, uint32_t inode, uint64_t now_ms)
{
    struct keeper *k = s->keeper;
    uint64_t began = clock_us();
    pid_t pid;

    if (now_ms - k->who_window_ms >= 1000) {
        k->who_window_ms = now_ms;
        k->who_spent_us = 0;
    }
    if (k->who_spent_us >= SPEND_US)
        return 0;
    pid = find_process(s, inode);
    k->who_spent_us += clock_us() - began;
    return pid;
}

void keeper_who(struct kept *s, const struct channel_msg *ask, struct channel_msg *ret)
{
    uint64_t now = loop_now(s->keeper->loop);
    char name[PROCESS_NAME_MAX + 1];
    uint32_t inode, uid;

    if ((ask->protocol != IPPROTO_TCP && ask->protocol != IPPROTO_UDP) ||
        ask->from.family != ask->to.family)
        return;
    if (!kept_rate_ok(&s->who_rate, now, CHANNEL_WHO_PER_S) ||
        !kept_rate_ok(&s->keeper->who_rate, now, WHO_ALL_PER_S))
        return;
    if (!find_socket(s, ask, &inode, &uid))
        return;
    ret->uid = uid;
    ret->pid = find_in_time(s, inode, now);
    if (ret->pid == 0)
        return;
    process_name(ret->pid, name);
    (void)snprintf(ret->comm, sizeof ret->comm, "%.15s", name);
}
