/* SPDX-License-Identifier: MIT */
#include "tests/support/flows_scene.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agentd/egress/guard/flow.h"
#include "agentd/egress/guard/keeper_link.h"
#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

/* -- the name server ----------------------------------------------------------------- */

static size_t question_len(const uint8_t *p, size_t n, char name[256])
{
    size_t at = 12, out = 0;

    while (at < n && p[at] != 0) {
        size_t len = p[at++];

        if (out > 0)
            name[out++] = '.';
        while (len-- > 0 && at < n && out < 254)
            name[out++] = (char)p[at++];
    }
    name[out] = '\0';
    return at + 5;
}

static void answer(struct flows_scene *s, uint8_t *m, size_t n, const struct sockaddr *to,
                   socklen_t to_len)
{
    char name[256];
    size_t len = question_len(m, n, name);
    bool is_known = false;
    uint8_t count = 0;
    int family;

    assert_true(len <= n);
    family = m[len - 3] == 1 ? AF_INET : AF_INET6;
    for (size_t i = 0; i < s->n_names; i++) {
        struct ip_addr *a = &s->name[i].addr;
        uint8_t size = ip_bytes(a->family);

        if (strcasecmp(s->name[i].name, name) != 0)
            continue;
        is_known = true;
        if (a->family != family)
            continue;
        memcpy(m + len, "\xc0\x0c\0", 3);
        m[len + 3] = family == AF_INET ? 1 : 28;
        memcpy(m + len + 4, "\0\1\0\0\1\54\0", 7); /* IN, 300 s */
        m[len + 11] = size;
        memcpy(m + len + 12, a->bytes, size);
        len += 12u + size;
        count++;
    }
    m[2] = 0x81;
    m[3] = is_known ? 0x80 : 0x83;
    memset(m + 6, 0, 6);
    m[7] = count;
    (void)sendto(s->dns_fd, m, len, 0, to, to_len);
}

static void on_question(void *arg, unsigned events)
{
    struct flows_scene *s = arg;
    struct sockaddr_storage from;
    socklen_t from_len = sizeof(from);
    uint8_t m[2048];
    ssize_t n = recvfrom(s->dns_fd, m, 512, 0, (struct sockaddr *)&from, &from_len);

    (void)events;
    if (n < 17)
        return;
    s->questions++;
    answer(s, m, (size_t)n, (struct sockaddr *)&from, from_len);
}

static void open_dns(struct flows_scene *s)
{
    struct sock_addr a;
    struct err e = {0};

    assert_int_equal(sock_parse("198.51.100.53:0", &a, &e), 0);
    s->dns_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(s->dns_fd >= 0);
    assert_int_equal(bind(s->dns_fd, &a.u.sa, a.len), 0);
    assert_int_equal(sock_local(s->dns_fd, &a), 0);
    (void)sock_print(&a, s->guard.resolvers);
    s->dns_io = loop_io_start(s->loop, s->dns_fd, on_question, s, &e);
    loop_io_want(s->dns_io, LOOP_READ);
}

void flows_scene_name(struct flows_scene *s, const char *name, const char *addr)
{
    assert_true(s->n_names < SCENE_NAMES);
    (void)snprintf(s->name[s->n_names].name, 64, "%s", name);
    assert_int_equal(ip_parse(span_str(addr), &s->name[s->n_names].addr), 0);
    s->n_names++;
}

/* -- the keeper's end ---------------------------------------------------------------- */

static void on_keeper(void *arg, unsigned events)
{
    struct flows_scene *s = arg;
    struct channel_msg m, r;
    struct err e = {0};

    (void)events;
    while (channel_recv(s->keeper_fd, &m, &e) == 1) {
        channel_msg_init(&r, CHANNEL_WHO, m.sandbox);
        r.seq = m.seq;
        if (m.type == CHANNEL_ASK_WHO) {
            r.pid = 4242;
            r.uid = 1000;
            memcpy(r.comm, "curl", 5);
        }
        (void)channel_send(s->keeper_fd, &r, &e);
        channel_msg_done(&m);
    }
}

static void on_message(void *arg, struct channel_msg *m)
{
    (void)arg;
    (void)m;
}

static void on_gone(void *arg)
{
    (void)arg;
}

static void open_keeper(struct flows_scene *s)
{
    struct err e = {0};
    int two[2];

    assert_int_equal(channel_pair(two, &e), 0);
    s->guard.keeper = keeper_link_new(s->loop, &two[0], on_message, on_gone, s, &e);
    assert_non_null(s->guard.keeper);
    s->keeper_fd = two[1];
    s->keeper_io = loop_io_start(s->loop, s->keeper_fd, on_keeper, s, &e);
    loop_io_want(s->keeper_io, LOOP_READ);
}

/* -- opening and closing ------------------------------------------------------------- */

static void on_stop(void *arg)
{
    loop_stop(((struct flows_scene *)arg)->loop);
}

void flows_scene_open(struct flows_scene *s, const char *policy)
{
    struct err e = {0};
    int none[2] = {-1, -1};

    memset(s, 0, sizeof(*s));
    s->loop = loop_new(&e);
    assert_non_null(s->loop);
    loop_timer_init(&s->stop, s->loop, on_stop, s);
    s->audit_fd = memfd_create("audit", MFD_CLOEXEC);
    (void)fcntl(s->audit_fd, F_SETFL, O_APPEND);
    s->guard.loop = s->loop;
    s->guard.audit = audit_new(s->audit_fd);
    open_dns(s);
    open_keeper(s);
    s->ward.guard = &s->guard;
    s->ward.index = 1;
    pin_sink_open(&s->pin_sink);
    s->ward.pin_fd = s->pin_sink.fd;
    s->ward.tag = PIN_SINK_TAG;
    (void)snprintf(s->ward.name, sizeof(s->ward.name), "box");
    s->ward.policy = policy_text(policy);
    s->ward.pins = pins_new(&s->ward, &e);
    s->ward.names = names_new(&s->ward, &e);
    s->ward.flows = flows_new(&s->ward, none, &e);
    assert_non_null(s->ward.flows);
}

void flows_scene_close(struct flows_scene *s)
{
    flows_free(s->ward.flows);
    names_free(s->ward.names);
    pins_free(s->ward.pins);
    pin_sink_close(&s->pin_sink);
    policy_unref(s->ward.policy);
    loop_io_stop(&s->keeper_io);
    loop_io_stop(&s->dns_io);
    keeper_link_free(s->guard.keeper);
    sock_close(&s->keeper_fd);
    sock_close(&s->dns_fd);
    audit_free(s->guard.audit);
    sock_close(&s->audit_fd);
    buf_done(&s->records);
    loop_free(s->loop);
}

void flows_scene_policy(struct flows_scene *s, const char *policy)
{
    struct policy *old = s->ward.policy;

    s->ward.policy = policy_text(policy);
    names_reload(s->ward.names);
    pins_reload(s->ward.pins);
    flows_reload(s->ward.flows);
    policy_unref(old);
}

void flows_scene_turn(struct flows_scene *s, unsigned ms)
{
    loop_timer_start(&s->stop, ms);
    loop_run(s->loop);
}

void flows_scene_pin(struct flows_scene *s, const char *name, const char *addr)
{
    struct ip_addr a;
    struct err e = {0};

    assert_int_equal(ip_parse(span_str(addr), &a), 0);
    if (pins_add(s->ward.pins, &(struct pins_answer){name, &a, 1, 300}, &e) < 0)
        fail_msg("%s", e.msg);
}

/* -- connections --------------------------------------------------------------------- */

int flows_scene_listen(const char *at)
{
    struct sock_addr a;
    struct err e = {0};
    int fd;

    assert_int_equal(sock_parse(at, &a, &e), 0);
    fd = sock_listen(&a, &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    return fd;
}

int flows_scene_connect(struct flows_scene *s, const char *to)
{
    int listener = flows_scene_listen("127.0.0.1:0"), fd, taken;
    struct sock_addr at, from, meant;
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    struct err e = {0};

    assert_int_equal(sock_parse(to, &meant, &e), 0);
    assert_int_equal(sock_local(listener, &at), 0);
    fd = sock_connect(&at, &e);
    assert_int_equal(poll(&ready, 1, 1000), 1);
    taken = sock_accept(listener, &from);
    assert_true(fd >= 0 && taken >= 0);
    sock_close(&listener);
    flows_take(s->ward.flows, &taken, &from, &meant);
    assert_int_equal(taken, -1);
    return fd;
}

static bool is_ready(struct flows_scene *s, int fd, short events, unsigned ms)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (unsigned i = 0; i <= ms; i++) {
        if (poll(&p, 1, 0) == 1)
            return true;
        flows_scene_turn(s, 1);
    }
    return false;
}

int flows_scene_accept(struct flows_scene *s, int listener)
{
    if (!is_ready(s, listener, POLLIN, 1000))
        return -1;
    return sock_accept(listener, NULL);
}

void flows_scene_write(struct flows_scene *s, int fd, const void *p, size_t n)
{
    const uint8_t *at = p;

    while (n > 0) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);

        if (sent < 0 && errno == EAGAIN) {
            assert_true(is_ready(s, fd, POLLOUT, 5000));
            continue;
        }
        assert_true(sent > 0);
        at += sent;
        n -= (size_t)sent;
    }
}

void flows_scene_say(struct flows_scene *s, int fd, const char *text)
{
    flows_scene_write(s, fd, text, strlen(text));
}

void flows_scene_read(struct flows_scene *s, int fd, size_t n, struct buf *ret)
{
    uint8_t bytes[65536];

    while (ret->len < n && is_ready(s, fd, POLLIN, 5000)) {
        size_t want = n - ret->len < sizeof(bytes) ? n - ret->len : sizeof(bytes);
        ssize_t got = recv(fd, bytes, want, 0);

        if (got <= 0)
            return;
        assert_int_equal(buf_add(ret, bytes, (size_t)got), 0);
    }
}

void flows_scene_expect(struct flows_scene *s, int fd, const char *text)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    flows_scene_read(s, fd, strlen(text), &b);
    if (!span_eq(buf_span(&b), span_str(text)))
        fail_msg("got <%.*s>, want <%s>; records: %s", SPAN_FMT(buf_span(&b)), text,
                 flows_scene_records(s));
}

const char *flows_scene_end(struct flows_scene *s, int fd)
{
    uint8_t bytes[65536];

    while (is_ready(s, fd, POLLIN, 1000)) {
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

        if (n <= 0)
            return n == 0 ? "eof" : "reset";
    }
    return "open";
}

bool flows_scene_is_quiet(struct flows_scene *s, int fd)
{
    return !is_ready(s, fd, POLLIN, 60);
}

/* -- records ------------------------------------------------------------------------- */

const char *flows_scene_records(struct flows_scene *s)
{
    off_t n = lseek(s->audit_fd, 0, SEEK_END);

    s->records.len = 0;
    assert_int_equal(buf_reserve(&s->records, (size_t)n + 1, SIZE_MAX), 0);
    assert_int_equal(pread(s->audit_fd, s->records.p, (size_t)n, 0), n);
    s->records.p[n] = '\0';
    return (const char *)s->records.p;
}

static bool line_has_all(const char *line, size_t len, va_list want)
{
    const char *w;

    while ((w = va_arg(want, const char *)) != NULL)
        if (!memmem(line, len, w, strlen(w)))
            return false;
    return true;
}

void flows_scene_recorded(struct flows_scene *s, ...)
{
    for (int i = 0; i < 1000; i++) {
        const char *line = flows_scene_records(s), *end;
        va_list want;

        for (; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            bool has_all;

            va_start(want, s);
            has_all = line_has_all(line, (size_t)(end - line), want);
            va_end(want);
            if (has_all)
                return;
        }
        flows_scene_turn(s, 1);
    }
    fail_msg("no such record in: %s", flows_scene_records(s));
}

/* -- ClientHellos -------------------------------------------------------------------- */

static void put16(struct buf *b, size_t n)
{
    uint8_t two[2] = {(uint8_t)(n >> 8), (uint8_t)n};

    assert_int_equal(buf_add(b, two, 2), 0);
}

static void put_extensions(struct buf *b, const char *name, size_t size)
{
    size_t len = strlen(name), i;

    if (len > 0) {
        put16(b, 0);
        put16(b, len + 5);
        put16(b, len + 3);
        assert_int_equal(buf_add(b, "", 1), 0);
        put16(b, len);
        assert_int_equal(buf_add(b, name, len), 0);
    }
    /* An encrypted client hello that says something else: of no interest. */
    put16(b, 0xfe0d);
    put16(b, 4);
    assert_int_equal(buf_add(b, "evil", 4), 0);
    if (size > b->len + 4) {
        size_t pad = size - b->len - 4;

        put16(b, 21);
        put16(b, pad);
        for (i = 0; i < pad; i++)
            assert_int_equal(buf_add(b, "", 1), 0);
    }
}

void flows_scene_hello(const char *name, size_t size, size_t record, struct buf *ret)
{
    AUTO(buf_done)
    struct buf ext = BUF_INIT;
    AUTO(buf_done)
    struct buf m = BUF_INIT;
    size_t body;

    put_extensions(&ext, name, size);
    body = 2 + 32 + 1 + 4 + 2 + 2 + ext.len;
    assert_int_equal(buf_add(&m, "\1\0", 2), 0);
    put16(&m, body);
    assert_int_equal(buf_add(&m, "\3\3", 2), 0);
    assert_int_equal(buf_add(&m, "0123456789abcdef0123456789abcdef", 32), 0);
    assert_int_equal(buf_add(&m, "\0\0\2\x13\1\1\0", 7), 0);
    put16(&m, ext.len);
    assert_int_equal(buf_add(&m, ext.p, ext.len), 0);
    for (size_t at = 0; at < m.len; at += record) {
        size_t n = record < m.len - at ? record : m.len - at;

        assert_int_equal(buf_add(ret, "\x16\3\1", 3), 0);
        put16(ret, n);
        assert_int_equal(buf_add(ret, m.p + at, n), 0);
    }
}
