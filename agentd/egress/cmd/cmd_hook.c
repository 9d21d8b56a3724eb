/* SPDX-License-Identifier: MIT */
/* agentd egress hook (agentd-oci-hook(8)). It ends well only when the keeper has
 * said that the sandbox is enforced: in all other cases the runtime aborts the
 * container's start. */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "agentd/egress/cmd/cmd.h"
#include "agentd/egress/cmd/cmd_options.h"
#include "agentd/egress/keeper/control_socket.h"
#include "agentd/egress/keeper/oci.h"
#include "agentd/egress/keeper/veth.h"
#include "agentd/egress/tell.h"
#include "common/loop.h"

#define HOOK_STDIN_MS 10000 /* the runtime writes the state at once */

/* Read fd to its end. */
static int read_all(int fd, size_t max, struct buf *ret, struct err *e)
{
    const uint64_t end_us = clock_us() + HOOK_STDIN_MS * 1000ull;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char piece[16384];
    ssize_t n;

    for (;;) {
        const uint64_t now = clock_us();
        int rc = now < end_us ? poll(&p, 1, (int)((end_us - now) / 1000) + 1) : 0;

        if (rc < 0 && errno == EINTR)
            continue;
        if (rc <= 0)
            return err_set(e, ERR_TIMEOUT, "no end of the state on stdin in %d ms",
                           HOOK_STDIN_MS);
        n = read(fd, piece, sizeof piece);
        if (n == 0)
            return 0;
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return err_sys(e, "read the state from stdin");
        if (ret->len + (size_t)n > max)
            return err_set(e, ERR_LIMIT, "a state of more than %zu bytes", max);
        if (buf_add(ret, piece, (size_t)n) < 0)
            return err_set(e, ERR_NOMEM, "no memory for the state");
    }
}

/* What can be seen from here before anybody is asked: the keeper looks again. */
static int look_at_namespace(const struct oci_state *s, struct err *e)
{
    struct netns *ns = netns_open(NULL, s->pid, e);
    int rc;

    if (!ns)
        return -1;
    rc = s->tier == EGRESS_SEALED ? veth_none(ns, e) : veth_any(ns, e);
    netns_free(ns);
    return rc;
}

static int read_policy(const char *name, struct buf *ret, struct err *e)
{
    struct policy_faults faults = {.n = 0};
    struct policy *p;
    int rc;

    if (name[0] == '/' && oci_trusted_file(name, geteuid(), e) < 0)
        return err_wrap(e, "the policy");
    p = policy_load(name, &faults);
    if (!p) {
        (void)policy_faults_err(&faults, e); /* told below */
        return err_wrap(e, "policy %.60s", name);
    }
    rc = policy_print(p, ret);
    policy_unref(p);
    return rc < 0 ? err_set(e, ERR_NOMEM, "no memory for policy %.60s", name) : 0;
}

static int attach(const char *socket, struct err *e)
{
    AUTO(buf_done)
    struct buf state = BUF_INIT;
    AUTO(buf_done)
    struct buf policy = BUF_INIT;
    AUTO(buf_done)
    struct buf request = BUF_INIT;
    AUTO(buf_done)
    struct buf answer = BUF_INIT;
    struct oci_state s;

    if (read_all(STDIN_FILENO, OCI_STATE_MAX, &state, e) < 0 ||
        oci_state_read(buf_span(&state), &s, e) < 0)
        return -1;
    if (look_at_namespace(&s, e) < 0 || read_policy(s.policy, &policy, e) < 0 ||
        oci_request(&s, buf_span(&policy), &request, e) < 0 ||
        control_call(socket, buf_span(&request), &answer, e) < 0)
        return err_wrap(e, "sandbox %s", s.name);
    return 0;
}

int cmd_hook(int argc, char **argv)
{
    const char *socket = NULL;
    const struct cmd_option takes[] = {{.name = "--socket", .value = &socket}};
    struct err e;

    if (cmd_options_only(argc, argv, takes, COUNT_OF(takes)) < 0)
        return EXIT_USAGE;
    if (attach(socket ? socket : CONTROL_SERVE_PATH, &e) < 0) {
        tell(argv[0], "%s", e.msg);
        return EXIT_FAIL; /* whatever it was: the start is off */
    }
    return EXIT_DONE;
}
