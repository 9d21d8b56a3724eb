/* SPDX-License-Identifier: MIT */
#include "agentd/forward/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"

struct netns {
    int home, target; /* -1: not open */
};

void netns_free(struct netns *n)
{
    if (!n)
        return;
    if (n->home >= 0)
        (void)close(n->home); /* opened for reading: nothing can be lost */
    if (n->target >= 0)
        (void)close(n->target);
    mem_free(n);
}

struct netns *netns_open(const char *path, pid_t pid, struct err *e)
{
    char text[64];
    struct netns *n = mem_alloc(sizeof *n);

    if (!n) {
        (void)err_set(e, ERR_NOMEM, "no memory for a namespace");
        return NULL;
    }
    if (!path) {
        (void)snprintf(text, sizeof text, "/proc/%ld/ns/net", (long)pid);
        path = text;
    }
    n->target = -1;
    n->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (n->home < 0) {
        (void)err_sys(e, "open our own network namespace");
        goto fail;
    }
    n->target = open(path, O_RDONLY | O_CLOEXEC);
    if (n->target < 0) {
        (void)err_sys(e, "open network namespace %s", path);
        goto fail;
    }
    if (netns_enter(n, e) < 0) {
        (void)err_wrap(e, "%s", path);
        goto fail;
    }
    netns_leave(n);
    return n;
fail:
    netns_free(n);
    return NULL;
}

int netns_enter(struct netns *n, struct err *e)
{
    if (n && setns(n->target, CLONE_NEWNET) < 0)
        return err_sys(e, "enter the network namespace");
    return 0;
}

void netns_leave(struct netns *n)
{
    if (n && setns(n->home, CLONE_NEWNET) < 0) {
        log_err("netns.leave", "errno=%d", errno);
        abort();
    }
}
