/* SPDX-License-Identifier: MIT */
/* localmsg -- requests of the local socket as text, and asking one. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/localpath.h"
#include "agentd/localsock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/sock.h"

/* A string member into a fixed array; absent leaves it "". */
static int text(const struct json *root, const char *key, char *ret, size_t cap,
                struct err *e)
{
    const struct json *v = json_get(root, key);
    size_t n;

    ret[0] = '\0';
    if (!v)
        return 0;
    if (json_type(v) != JSON_STRING)
        return err_set(e, ERR_PROTO, "%s must be a string", key);
    n = strlen(json_str(v));
    if (n >= cap)
        return err_set(e, ERR_PROTO, "%s is longer than %zu bytes", key, cap - 1);
    memcpy(ret, json_str(v), n + 1);
    return 0;
}

static int parse_http(const struct json *root, struct localsock_request *r, struct err *e)
{
    const struct json *v = json_get(root, "port");
    char id[HOST_ID_MAX + 1];

    if (!v || json_type(v) != JSON_INT || json_int(v) < 1 || json_int(v) > 65535)
        return err_set(e, ERR_PROTO, "port must be 1 to 65535");
    r->port = (uint16_t)json_int(v);
    v = json_get(root, "public");
    if (v && json_type(v) != JSON_BOOL)
        return err_set(e, ERR_PROTO, "public must be true or false");
    r->is_public = v && json_bool(v);
    if (text(root, "name", r->name, sizeof r->name, e) < 0 ||
        text(root, "server", r->server, sizeof r->server, e) < 0 ||
        text(root, "sandbox", r->sandbox, sizeof r->sandbox, e) < 0)
        return -1;
    if (r->name[0] && !host_name_is_claimable(span_str(r->name)))
        return err_set(e, ERR_PROTO, "%s cannot be a name", log_q(r->name));
    if (r->sandbox[0] && host_id_parse(span_str(r->sandbox), id) < 0)
        return err_set(e, ERR_PROTO, "%s is no sandbox id", log_q(r->sandbox));
    return 0;
}

static int parse_root(const struct json *root, struct localsock_request *r, struct err *e)
{
    static const char *const known[] = {"op",   "port",   "public",
                                        "name", "server", "sandbox"};
    const struct json *v;
    const char *key;
    size_t pos = 0, i;

    if (json_type(root) != JSON_OBJECT)
        return err_set(e, ERR_PROTO, "a request is an object");
    while (json_next(root, &pos, &key, &v)) {
        for (i = 0; i < COUNT_OF(known) && strcmp(known[i], key) != 0; i++)
            ;
        if (i == COUNT_OF(known))
            return err_set(e, ERR_PROTO, "there is no member %s", log_q(key));
    }
    v = json_get(root, "op");
    if (!v || json_type(v) != JSON_STRING)
        return err_set(e, ERR_PROTO, "op must be a string");
    if (strcmp(json_str(v), "ports") == 0) {
        r->op = LOCALSOCK_PORTS;
        return 0;
    }
    if (strcmp(json_str(v), "http") != 0)
        return err_set(e, ERR_PROTO, "there is no op %s", log_q(json_str(v)));
    r->op = LOCALSOCK_HTTP;
    return parse_http(root, r, e);
}

int localsock_parse(struct span line, struct localsock_request *ret, struct err *e)
{
    struct localsock_request r;
    struct json *root = json_parse(line, LOCALSOCK_LINE_MAX, e);
    int result;

    if (!root)
        return -1;
    memset(&r, 0, sizeof r);
    result = parse_root(root, &r, e);
    json_free(root);
    if (result == 0)
        *ret = r;
    return result;
}

static int member(struct buf *out, const char *key, const char *value)
{
    if (!value[0])
        return 0;
    if (buf_addf(out, ",\"%s\":", key) < 0)
        return -1;
    return json_put_str(out, span_str(value));
}

int localsock_print(const struct localsock_request *r, struct buf *out)
{
    if (r->op == LOCALSOCK_PORTS)
        return buf_adds(out, "{\"op\":\"ports\"}");
    if (buf_addf(out, "{\"op\":\"http\",\"port\":%u", r->port) < 0 ||
        (r->is_public && buf_adds(out, ",\"public\":true") < 0) ||
        member(out, "name", r->name) < 0 || member(out, "server", r->server) < 0 ||
        member(out, "sandbox", r->sandbox) < 0)
        return -1;
    return buf_adds(out, "}");
}

/* -- asking -------------------------------------------------------------------------------- */

static int send_all(int fd, struct span bytes, struct err *e)
{
    ssize_t n;

    while (bytes.len > 0) {
        n = send(fd, bytes.p, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "ask the running agent");
        bytes = span_skip(bytes, (size_t)n);
    }
    return 0;
}

static int receive_line(int fd, struct buf *ret, struct err *e)
{
    uint64_t until = clock_us() + LOCALSOCK_MS * UINT64_C(1000), now;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n;

    for (;;) {
        now = clock_us();
        if (now >= until)
            return err_set(e, ERR_TIMEOUT, "the running agent did not answer");
        if (poll(&p, 1, (int)((until - now) / 1000) + 1) <= 0)
            continue; /* the deadline, or a signal */
        if (buf_reserve(ret, 4096, LOCALSOCK_ANSWER_MAX) < 0)
            return err_set(e, ERR_LIMIT, "the running agent's answer is too long");
        n = recv(fd, ret->p + ret->len, 4096, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "hear the running agent");
        if (n == 0)
            return err_set(e, ERR_PROTO, "the running agent closed without an answer");
        ret->len += (size_t)n;
        if (ret->p[ret->len - 1] == '\n') {
            ret->len--;
            return 0;
        }
    }
}

int localsock_ask(const char *path, const struct localsock_request *r, struct buf *ret,
                  struct err *e)
{
    AUTO(buf_done)
    struct buf out = BUF_INIT;
    bool is_absent;
    int fd, result = -1;

    if (localsock_print(r, &out) < 0 || buf_adds(&out, "\n") < 0)
        return err_set(e, ERR_NOMEM, "no memory to ask the running agent");
    fd = localpath_connect(path, 0, &is_absent, e);
    if (fd < 0)
        return is_absent ? 1 : -1;
    ret->len = 0;
    if (send_all(fd, buf_span(&out), e) == 0)
        result = receive_line(fd, ret, e);
    sock_close(&fd);
    return result;
}
