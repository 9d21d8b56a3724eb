/* SPDX-License-Identifier: MIT */
#include "agentd/link/resolve.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/link/happy.h"
#include "common/limits.h"
#include "tests/support/child.h"
#include "tests/support/test.h"

struct outcome {
    struct loop *loop;
    struct sock_addr addr[CONNECT_ADDRS_MAX];
    size_t n;
    struct err why;
    unsigned calls;
    int fd;
};

static void on_answer(void *arg, const struct sock_addr *addr, size_t n,
                      const struct err *e)
{
    struct outcome *o = arg;

    o->calls++;
    o->n = n;
    memcpy(o->addr, addr, n * sizeof(*addr));
    if (n == 0)
        o->why = *e;
    loop_stop(o->loop);
}

static struct outcome ask(const char *name, uint16_t dns_port, uint32_t timeout_ms)
{
    struct outcome o = {0};
    char servers[32];
    struct resolve_conf conf = {
        .name = name, .port = 443, .timeout_ms = timeout_ms, .servers = servers};
    struct err e = {0};

    (void)snprintf(servers, sizeof(servers), "127.0.0.1:%u", dns_port);
    o.loop = loop_new(&e);
    assert_non_null(o.loop);
    if (!resolve_start(o.loop, &conf, on_answer, &o, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(o.calls, 0);
    loop_run(o.loop);
    loop_free(o.loop);
    assert_int_equal(o.calls, 1);
    assert_int_equal(mem_live(), 0);
    return o;
}

static const char *text_of(const struct outcome *o, size_t i)
{
    static char text[4][SOCK_TEXT_MAX];

    assert_true(i < o->n);
    return sock_print(&o->addr[i], text[i % 4]);
}

/* In the child: a name server. The first label says what it does: "both", "a" and "aaaa"
 * have such addresses, "slow6" answers A and stays silent on AAAA, "none" has no address,
 * "silent" is not answered, any other does not exist. */
static void serve_dns(int fd, const void *arg)
{
    static const uint8_t a[] = {0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 203, 0, 113, 7};
    static const uint8_t aaaa[] = {0xc0, 0x0c, 0, 28, 0, 1, 0, 0, 0, 9, 0, 16, 0x20, 0x01,
                                   0x0d, 0xb8, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,  0,    1};
    uint8_t m[512];
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    ssize_t n;

    (void)arg;
    while ((n = recvfrom(fd, m, 400, 0, (struct sockaddr *)&from, &len)) > 17) {
        const char *label = (const char *)m + 13;
        bool is_both = m[12] == 4 && memcmp(label, "both", 4) == 0;
        bool is_slow6 = m[12] == 5 && memcmp(label, "slow6", 5) == 0;
        bool is_a = m[12] == 1 && label[0] == 'a';
        bool is_aaaa = m[12] == 4 && memcmp(label, "aaaa", 4) == 0;
        bool is_none = m[12] == 4 && memcmp(label, "none", 4) == 0;
        ssize_t q = 12;
        bool wants6;

        while (q < n && m[q])
            q += m[q] + 1;
        q += 5; /* the root label, type, class */
        wants6 = m[q - 3] == 28;
        if ((m[12] == 6 && memcmp(label, "silent", 6) == 0) || (is_slow6 && wants6))
            continue;
        m[2] |= 0x80;
        m[3] = 0x80;
        memset(m + 6, 0, 6);
        if (wants6 && (is_both || is_aaaa)) {
            m[7] = 1;
            memcpy(m + q, aaaa, sizeof(aaaa));
            q += (ssize_t)sizeof(aaaa);
        } else if (!wants6 && (is_both || is_a || is_slow6)) {
            m[7] = 1;
            memcpy(m + q, a, sizeof(a));
            q += (ssize_t)sizeof(a);
        } else if (!is_both && !is_a && !is_aaaa && !is_none) {
            m[3] |= 3; /* NXDOMAIN */
        }
        (void)sendto(fd, m, (size_t)q, 0, (struct sockaddr *)&from, len);
        len = sizeof(from);
    }
}

static void both_families_are_asked_and_ipv6_comes_first(void **state)
{
    struct child dns;
    struct outcome o;

    (void)state;
    child_udp(&dns, serve_dns, NULL);
    o = ask("both.test", dns.port, 10000);
    assert_int_equal(o.n, 2);
    assert_string_equal(text_of(&o, 0), "[2001:db8::1]:443");
    assert_string_equal(text_of(&o, 1), "203.0.113.7:443");
    o = ask("a.test", dns.port, 10000);
    assert_int_equal(o.n, 1);
    assert_string_equal(text_of(&o, 0), "203.0.113.7:443");
    o = ask("aaaa.test", dns.port, 10000);
    assert_int_equal(o.n, 1);
    assert_string_equal(text_of(&o, 0), "[2001:db8::1]:443");
    /* the deadline is far away: the family that answered does not wait for the other */
    o = ask("slow6.test", dns.port, 3600000);
    assert_int_equal(o.n, 1);
    child_stop(&dns);
}

static void what_went_wrong_is_told_apart(void **state)
{
    struct child dns;
    struct outcome o;

    (void)state;
    child_udp(&dns, serve_dns, NULL);
    o = ask("nxdomain.test", dns.port, 10000);
    assert_int_equal(o.why.code, ERR_NOTFOUND);
    assert_string_equal(o.why.msg, "there is no name \"nxdomain.test\"");
    o = ask("none.test", dns.port, 10000);
    assert_int_equal(o.why.code, ERR_NOTFOUND);
    assert_string_equal(o.why.msg, "the name \"none.test\" has no address");
    o = ask("silent.test", dns.port, 200);
    assert_int_equal(o.why.code, ERR_TIMEOUT);
    child_stop(&dns);
    o = ask("both.test", dns.port, 10000); /* nobody listens there now */
    assert_int_equal(o.n, 0);
    assert_true(o.why.code == ERR_NOTFOUND || o.why.code == ERR_TIMEOUT);
}

static void localhost_and_addresses_are_asked_of_nobody(void **state)
{
    static const char *const local[] = {"localhost", "x.localhost",
                                        "0-demo.preview.localhost", "LOCALHOST"};
    struct outcome o;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(local); i++) {
        o = ask(local[i], 9, 1000);
        assert_int_equal(o.n, 2);
        assert_string_equal(text_of(&o, 0), "[::1]:443");
        assert_string_equal(text_of(&o, 1), "127.0.0.1:443");
    }
    o = ask("192.0.2.1", 9, 1000);
    assert_int_equal(o.n, 1);
    assert_string_equal(text_of(&o, 0), "192.0.2.1:443");
    o = ask("2001:db8::5", 9, 1000);
    assert_string_equal(text_of(&o, 0), "[2001:db8::5]:443");
    assert_false(resolve_is_localhost("notlocalhost"));
    assert_false(resolve_is_localhost("localhost.example"));
    assert_false(resolve_is_localhost(""));
}

static void a_request_may_be_cancelled_with_its_answer_on_the_way(void **state)
{
    struct child dns;
    struct outcome o = {0};
    char servers[32];
    struct resolve_conf conf = {.port = 1, .timeout_ms = 10000, .servers = servers};
    struct resolve *r;
    struct loop_timer t;
    unsigned ms;

    (void)state;
    child_udp(&dns, serve_dns, NULL);
    (void)snprintf(servers, sizeof(servers), "127.0.0.1:%u", dns.port);
    o.loop = loop_new(NULL);
    loop_timer_init(&t, o.loop, (loop_timer_fn *)loop_stop, o.loop);
    for (ms = 0; ms < 3; ms++) {
        conf.name = ms ? "slow6.test" : "localhost";
        r = resolve_start(o.loop, &conf, on_answer, &o, NULL);
        assert_non_null(r);
        if (ms) {
            loop_timer_start(&t, ms);
            loop_run(o.loop);
        }
        resolve_cancel(&r);
        assert_null(r);
    }
    resolve_cancel(&r);
    loop_timer_stop(&t);
    loop_free(o.loop);
    assert_int_equal(o.calls, 0);
    assert_int_equal(mem_live(), 0);
    child_stop(&dns);
}

/* -- connecting ------------------------------------------------------------------------------- */

static void on_connected(void *arg, int *take_fd, const struct sock_addr *to,
                         const struct err *e)
{
    struct outcome *o = arg;

    o->calls++;
    o->fd = *take_fd;
    *take_fd = -1;
    if (o->fd >= 0)
        o->addr[0] = *to;
    else
        o->why = *e;
    loop_stop(o->loop);
}

static struct outcome connect_any(const struct sock_addr *addr, size_t n,
                                  uint32_t timeout_ms)
{
    struct outcome o = {0};
    struct happy_conf conf = {.timeout_ms = timeout_ms, .fn = on_connected, .arg = &o};

    o.loop = loop_new(NULL);
    assert_non_null(happy_start(o.loop, addr, n, &conf, NULL));
    assert_int_equal(o.calls, 0);
    loop_run(o.loop);
    loop_free(o.loop);
    assert_int_equal(o.calls, 1);
    assert_int_equal(mem_live(), 0);
    return o;
}

static struct sock_addr at(const char *ip, uint16_t port)
{
    struct sock_addr a;

    assert_int_equal(sock_parse_ip(span_str(ip), port, &a), 0);
    return a;
}

/* A listener whose queue is full: connecting hangs there, as behind a silent firewall. */
static void make_stuck(int fd[3], struct sock_addr *ret)
{
    int i;

    *ret = at("127.0.0.1", 0);
    fd[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd[0], &ret->u.sa, ret->len), 0);
    assert_int_equal(listen(fd[0], 0), 0);
    assert_int_equal(sock_local(fd[0], ret), 0);
    for (i = 1; i < 3; i++) {
        fd[i] = sock_connect(ret, NULL);
        assert_true(fd[i] >= 0);
    }
}

static void idle(int fd, const void *arg)
{
    char c;

    (void)arg;
    (void)child_read(fd, &c, 1);
}

static void the_first_address_that_takes_us_wins(void **state)
{
    struct sock_addr addr[3], stuck;
    struct child server;
    struct outcome o;
    int fd[3], i;

    (void)state;
    child_tcp(&server, idle, NULL);
    make_stuck(fd, &stuck);

    addr[0] = at("127.0.0.1", child_free_port()); /* refuses */
    addr[1] = at("127.0.0.1", server.port);
    o = connect_any(addr, 2, 10000);
    assert_true(o.fd >= 0);
    assert_int_equal(sock_port(&o.addr[0]), server.port);
    sock_close(&o.fd);

    addr[0] = stuck; /* hangs; the deadline is far away, the next is tried beside it */
    o = connect_any(addr, 2, 3600000);
    assert_true(o.fd >= 0);
    assert_int_equal(sock_port(&o.addr[0]), server.port);
    sock_close(&o.fd);

    o = connect_any(&stuck, 1, 300);
    assert_int_equal(o.fd, -1);
    assert_int_equal(o.why.code, ERR_TIMEOUT);

    addr[0] = at("127.0.0.1", child_free_port());
    addr[1] = at("127.0.0.1", child_free_port());
    o = connect_any(addr, 2, 10000);
    assert_int_equal(o.fd, -1);
    assert_int_equal(o.why.code, ERR_SYS);
    assert_non_null(strstr(o.why.msg, ": Connection refused"));
    for (i = 0; i < 3; i++)
        sock_close(&fd[i]);
    child_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_families_are_asked_and_ipv6_comes_first),
        cmocka_unit_test(what_went_wrong_is_told_apart),
        cmocka_unit_test(localhost_and_addresses_are_asked_of_nobody),
        cmocka_unit_test(a_request_may_be_cancelled_with_its_answer_on_the_way),
        cmocka_unit_test(the_first_address_that_takes_us_wins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
