/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agentd/egress/keeper/control_socket.h"
#include "agentd/localpath.h"
#include "common/json.h"
#include "common/sock.h"

int control_run_dir(char *ret, size_t cap, struct err *e)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");
    int n;

    if (geteuid() == 0)
        n = snprintf(ret, cap, "/run/agentd/egress");
    else if (dir && dir[0] == '/')
        n = snprintf(ret, cap, "%s/agentd/egress", dir);
    else
        n = snprintf(ret, cap, "/tmp/agentd-%lu/egress", (unsigned long)geteuid());
    if (n < 0 || (size_t)n >= cap)
        return err_set(e, ERR_CONFIG, "the runtime directory's name is too long");
    return 0;
}

int control_run_path(const char *name, char *ret, size_t cap, struct err *e)
{
    char dir[CONTROL_PATH_MAX];
    int n;

    if (control_run_dir(dir, sizeof dir, e) < 0)
        return -1;
    n = snprintf(ret, cap, "%s/%s.sock", dir, name);
    if (n < 0 || (size_t)n >= cap || n >= CONTROL_PATH_MAX)
        return err_set(e, ERR_CONFIG, "the runtime directory's name is too long");
    return 0;
}

void control_run_sweep(void)
{
    char dir[CONTROL_PATH_MAX];

    if (control_run_dir(dir, sizeof dir, NULL) == 0)
        localpath_sweep(dir, CONTROL_SWEEP_MAX);
}

/* -- asking -------------------------------------------------------------------------- */

struct call {
    const char *path;
    int fd;
    uint64_t end_us;
};

static int wait_for(const struct call *c, short events, struct err *e)
{
    struct pollfd p = {.fd = c->fd, .events = events};
    uint64_t now = clock_us();
    int r;

    if (now >= c->end_us)
        return err_set(e, ERR_TIMEOUT, "%s does not answer", c->path);
    r = poll(&p, 1, (int)((c->end_us - now) / 1000) + 1);
    if (r < 0 && errno != EINTR)
        return err_sys(e, "wait for %s", c->path);
    return 0;
}

/* What the other side does not want to hear it says in its answer. */
static int send_all(const struct call *c, struct span s, struct err *e)
{
    while (s.len > 0) {
        ssize_t n = send(c->fd, s.p, s.len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return 0;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return err_sys(e, "send to %s", c->path);
        if (n < 0 && wait_for(c, POLLOUT, e) < 0)
            return -1;
        s = span_skip(s, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

static int receive_all(const struct call *c, struct buf *ret, struct err *e)
{
    for (;;) {
        ssize_t n;

        if (buf_reserve(ret, 65536, CONTROL_ANSWER_MAX) < 0)
            return err_set(e, ERR_LIMIT, "%s answers with more than %d bytes", c->path,
                           CONTROL_ANSWER_MAX);
        n = recv(c->fd, ret->p + ret->len, 65536, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return 0;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return err_sys(e, "receive from %s", c->path);
        if (n > 0)
            ret->len += (size_t)n;
        else if (wait_for(c, POLLIN, e) < 0)
            return -1;
    }
}

static enum err_code code_of(const char *text)
{
    if (strcmp(text, "not-found") == 0)
        return ERR_NOTFOUND;
    if (strcmp(text, "refused") == 0)
        return ERR_DENIED;
    return strcmp(text, "config") == 0 ? ERR_CONFIG : ERR_SYS;
}

static int read_answer(const char *path, const struct buf *answer, struct err *e)
{
    struct json *o = json_parse(buf_span(answer), CONTROL_ANSWER_MAX, NULL);
    const struct json *ok = o ? json_get(o, "ok") : NULL;
    int rc = 0;

    if (!ok || json_type(ok) != JSON_BOOL)
        rc = err_set(e, ERR_PROTO, "%s gives no answer that can be read", path);
    else if (!json_bool(ok))
        rc = err_set(e, code_of(json_get_str(o, "code", "")), "%.190s",
                     json_get_str(o, "error", ""));
    json_free(o);
    return rc;
}

/* A line: in JSON a line's end stands between tokens only, where a blank does as well. */
static int make_line(struct span request, struct buf *ret, struct err *e)
{
    if (buf_add(ret, request.p, request.len) < 0 || buf_adds(ret, "\n") < 0)
        return err_set(e, ERR_NOMEM, "no memory for a request");
    for (size_t i = 0; i + 1 < ret->len; i++)
        if (ret->p[i] == '\n')
            ret->p[i] = ' ';
    return 0;
}

bool control_is_absent(const struct err *e)
{
    return e->code == ERR_SYS && (e->sys == ECONNREFUSED || e->sys == ENOENT);
}

/* What a `run` had is not for its caller to start; who asks by name says so. */
static int say_absent(const char *path, int sys, struct err *e)
{
    bool is_usual = strcmp(path, CONTROL_SERVE_PATH) == 0, is_there = sys == ECONNREFUSED;

    return err_set_at(e, ERR_SYS, is_there ? ECONNREFUSED : ENOENT, ERR_WHERE,
                      "%s %.80s (start `agentd egress serve%s`)",
                      is_there ? "nobody listens at" : "there is no socket", path,
                      is_usual ? "" : " --socket ...");
}

int control_call(const char *path, struct span request, struct buf *ret_answer,
                 struct err *e)
{
    return control_call_within(path, request, CONTROL_CALL_MS, ret_answer, e);
}

int control_call_within(const char *path, struct span request, unsigned ms,
                        struct buf *ret_answer, struct err *e)
{
    struct call c = {.path = path};
    AUTO(buf_done)
    struct buf line = BUF_INIT;
    bool is_absent = false;
    struct err why = {0};
    int rc;

    if (make_line(request, &line, e) < 0)
        return -1;
    c.end_us = clock_us() + (uint64_t)ms * 1000;
    c.fd = localpath_connect(path, ms, &is_absent, &why);
    if (c.fd < 0 && is_absent)
        return say_absent(path, why.sys, e);
    if (c.fd < 0) {
        if (e)
            *e = why;
        return -1;
    }
    ret_answer->len = 0;
    rc = send_all(&c, buf_span(&line), e);
    if (rc == 0)
        rc = receive_all(&c, ret_answer, e);
    sock_close(&c.fd);
    return rc < 0 ? -1 : read_answer(path, ret_answer, e);
}
