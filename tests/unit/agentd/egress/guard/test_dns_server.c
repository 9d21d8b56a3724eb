/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/dns_server.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/egress/guard/dns_int.h"
#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/pins.h"
#include "tests/support/dns_scene.h"
#include "tests/support/test.h"

#define ALLOW                                                                            \
    "\"allow\":[\"one.test\",\"v4.test\",\"private.test\",\"mixed.test\","               \
    "\"alias.test\",\"nx.test\",\"none.test\",\"servfail.test\",\"silent.test\","        \
    "\"thousand.test\",\"loop.test\",\"*.wild.test\"],\"deny\":[{\"to\":{\"domain\":"    \
    "\"evil.wild.test\"},\"reason\":\"known bad\"}]"

enum {
    FRAMED = 2 + DNSMSG_UDP_MIN /* a question over TCP, at most */
};

struct scene {
    struct dns_scene dns;
    int listener[2]; /* borrowed copies */
    struct sock_addr at[2];
    int client[2];
    struct loop_io *io;
    bool is_ready;
    uint8_t got[4096];
    size_t n;
};

static int udp(const char *addr, struct sock_addr *ret)
{
    int on = 1, fd;

    assert_int_equal(sock_parse_ip(span_str(addr), 0, ret), 0);
    fd = socket(ret->u.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, &ret->u.sa, ret->len) < 0) {
        sock_close(&fd);
        return -1; /* no IPv6 here */
    }
    if (ret->u.sa.sa_family == AF_INET)
        assert_int_equal(setsockopt(fd, SOL_IP, IP_RECVORIGDSTADDR, &on, sizeof(on)), 0);
    else
        assert_int_equal(setsockopt(fd, SOL_IPV6, 74, &on, sizeof(on)), 0);
    assert_int_equal(sock_local(fd, ret), 0);
    return fd;
}

static int setup_with(void **state, const char *policy)
{
    static struct scene scene;
    struct scene *s = &scene;
    struct sock_addr any;
    struct ward *w = &s->dns.ward;
    int take[2];

    memset(s, 0, sizeof(*s));
    dns_scene_open(&s->dns, policy);
    w->names = names_new(w, NULL);
    w->pins = pins_new(w, NULL);
    take[0] = udp("127.0.0.1", &s->at[0]);
    take[1] = udp("::1", &s->at[1]);
    s->dns.reply_fd = s->listener[0] = dup(take[0]);
    s->listener[1] = dup(take[1]);
    w->dns = dns_server_new(w, take, NULL);
    assert_true(w->names && w->pins && w->dns);
    assert_int_equal(take[0], -1);
    s->client[0] = udp("127.0.0.1", &any);
    s->client[1] = udp("::1", &any);
    *state = s;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, "{\"version\":1,\"name\":\"t\"," ALLOW "}");
}

static int teardown(void **state)
{
    struct scene *s = *state;

    dns_server_free(s->dns.ward.dns);
    pins_free(s->dns.ward.pins);
    names_free(s->dns.ward.names);
    for (int i = 0; i < 2; i++) {
        sock_close(&s->listener[i]);
        sock_close(&s->client[i]);
    }
    dns_scene_close(&s->dns);
    return 0;
}

/* -- a client ------------------------------------------------------------------------ */

static void on_ready(void *arg, unsigned events)
{
    struct scene *s = arg;

    UNUSED_ARG(events);
    s->is_ready = true;
    loop_io_want(s->io, 0);
}

static void wait_for(struct scene *s, int fd)
{
    s->is_ready = false;
    s->io = loop_io_start(s->dns.guard.loop, fd, on_ready, s, NULL);
    assert_non_null(s->io);
    loop_io_want(s->io, LOOP_READ);
    dns_scene_until(&s->dns, &s->is_ready);
    loop_io_stop(&s->io);
}

static void send_to(struct scene *s, int family, const void *m, size_t n)
{
    const struct sock_addr *to = &s->at[family == AF_INET6];

    assert_int_equal(sendto(s->client[family == AF_INET6], m, n, 0, &to->u.sa, to->len),
                     n);
}

/* The reply's code. */
static int receive(struct scene *s, int family)
{
    int fd = s->client[family == AF_INET6];
    ssize_t n;

    wait_for(s, fd);
    n = recv(fd, s->got, sizeof(s->got), 0);
    assert_true(n >= 12);
    s->n = (size_t)n;
    assert_int_equal(s->got[2] & 0x84, 0x80); /* QR, not AA */
    assert_int_equal(s->got[3] & 0x80, 0x80); /* RA */
    return s->got[3] & 0xf;
}

static int ask(struct scene *s, const char *name, uint16_t type)
{
    uint8_t m[DNSMSG_UDP_MIN];
    size_t n = dnsmsg_ask(name, type, 0x4242, m);

    send_to(s, AF_INET, m, n);
    return receive(s, AF_INET);
}

static unsigned answers(const struct scene *s)
{
    return s->got[7];
}

/* Is this text in the reply? */
static bool says(const struct scene *s, const char *text)
{
    return memmem(s->got, s->n, text, strlen(text)) != NULL;
}

static int ede(const struct scene *s)
{
    const uint8_t *opt = memmem(s->got, s->n, "\0\0\x29\x04\xd0", 5);

    assert_non_null(opt);
    if (s->got + s->n < opt + 17)
        return -1;
    assert_memory_equal(opt + 11, "\0\x0f", 2);
    return opt[15] << 8 | opt[16];
}

/* -- tests --------------------------------------------------------------------------- */

static void an_allowed_name_is_answered_after_its_pins(void **state)
{
    struct scene *s = *state;
    struct dns_answer a;

    assert_int_equal(ask(s, "one.test", DNS_A), DNS_NOERROR);
    assert_int_equal(pin_sink_life(&s->dns.pins, "203.0.113.7", 443),
                     pin_sink_as(300 + NAMES_GRACE_S));
    assert_int_equal(
        dnsmsg_parse_answer(span_of(s->got, s->n), 0x4242, "one.test", DNS_A, &a), 0);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.ttl_s, 300);
    assert_int_equal(ask(s, "one.test", DNS_AAAA), DNS_NOERROR);
    assert_int_equal(pin_sink_life(&s->dns.pins, "2001:db8::7", 443),
                     pin_sink_as(300 + NAMES_GRACE_S));
    assert_int_equal(ask(s, "n.wild.test", DNS_A), DNS_NOERROR);
    assert_int_equal(answers(s), 1);
    assert_int_equal(s->dns.ward.counts.questions, 3);
    assert_int_equal(s->dns.ward.counts.names_refused, 0);
    assert_int_equal(s->dns.n_wants, 1); /* one reply socket for all */
}

static void the_names_between_are_not_told(void **state)
{
    struct scene *s = *state;
    struct dns_answer a;

    assert_int_equal(ask(s, "alias.test", DNS_A), DNS_NOERROR);
    assert_int_equal(answers(s), 1);
    assert_int_equal(
        dnsmsg_parse_answer(span_of(s->got, s->n), 0x4242, "alias.test", DNS_A, &a), 0);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.ttl_s, 60);
    assert_false(says(s, "real"));
}

static void a_name_that_is_not_allowed_does_not_exist_and_is_not_asked_for(void **state)
{
    static const char *const name[] = {"two.test",      "test",       "wild.test",
                                       "one.test.evil", "xone.test",  "localhost",
                                       "one.test.lan",  "example.com"};
    struct scene *s = *state;
    char room[65536];

    for (size_t i = 0; i < COUNT_OF(name); i++) {
        assert_int_equal(ask(s, name[i], i % 2 ? DNS_A : 16), DNS_NXDOMAIN);
        assert_int_equal(ede(s), DNS_EDE_PROHIBITED);
        assert_true(says(s, "default deny"));
        assert_non_null(strstr(dns_scene_records(&s->dns, room), name[i]));
    }
    assert_int_equal(ask(s, "evil.wild.test", DNS_A), DNS_NXDOMAIN);
    assert_int_equal(ede(s), DNS_EDE_BLOCKED);
    assert_true(says(s, "known bad"));
    assert_non_null(strstr(dns_scene_records(&s->dns, room), "known bad"));
    assert_int_equal(s->dns.up.asked, 0);
    assert_int_equal(s->dns.ward.counts.names_refused, COUNT_OF(name) + 1);
}

static void names_that_no_host_has_do_not_exist(void **state)
{
    static const struct {
        const char *wire;
        size_t len;
    } row[] = {
        {"\4_tcp\4wild\4test", 16},
        {"\3a.b\4wild\4test", 15},
        {"\3a\0b\4wild\4test", 15},
        {"\3\xc3\xbc\xc3\4wild\4test", 15},
        {"", 1},
    };
    struct scene *s = *state;

    for (size_t i = 0; i < COUNT_OF(row); i++) {
        uint8_t m[128] = "\x42\x42\x01\0\0\1\0\0\0\0\0\0";
        size_t n = 12 + row[i].len;

        memcpy(m + 12, row[i].wire, row[i].len); /* with its NUL */
        memcpy(m + n, "\0\1\0\1", 4);
        send_to(s, AF_INET, m, n + 4);
        assert_int_equal(receive(s, AF_INET), DNS_NXDOMAIN);
        assert_memory_equal(s->got + 12, m + 12, n + 4 - 12);
    }
    assert_int_equal(s->dns.up.asked, 0);
}

static void other_types_of_an_allowed_name_have_no_answer(void **state)
{
    static const uint16_t type[] = {2,  5,  6,  10, 12,  15,  16,
                                    33, 43, 64, 65, 252, 255, 65280};
    struct scene *s = *state;

    for (size_t i = 0; i < COUNT_OF(type); i++) {
        assert_int_equal(ask(s, "one.test", type[i]), DNS_NOERROR);
        assert_int_equal(answers(s), 0);
        assert_int_equal(ede(s), DNS_EDE_FILTERED);
    }
    assert_int_equal(s->dns.up.asked, 0);
}

static void what_upstream_says_is_told_apart(void **state)
{
    struct scene *s = *state;

    assert_int_equal(ask(s, "nx.test", DNS_A), DNS_NXDOMAIN);
    assert_int_equal(ede(s), -1);
    assert_int_equal(ask(s, "none.test", DNS_A), DNS_NOERROR);
    assert_int_equal(answers(s), 0);
    assert_int_equal(ask(s, "servfail.test", DNS_A), DNS_SERVFAIL);
    assert_int_equal(ede(s), DNS_EDE_UNREACHABLE);
    assert_int_equal(ask(s, "loop.test", DNS_A), DNS_SERVFAIL);
}

static void private_answers_are_refused_and_recorded(void **state)
{
    struct scene *s = *state;
    char room[65536];

    assert_int_equal(ask(s, "private.test", DNS_A), DNS_NOERROR);
    assert_int_equal(answers(s), 0);
    assert_int_equal(ede(s), DNS_EDE_FILTERED);
    assert_true(says(s, "floor"));
    assert_non_null(strstr(dns_scene_records(&s->dns, room), "private.test"));
    assert_int_equal(ask(s, "mixed.test", DNS_A), DNS_NOERROR);
    assert_int_equal(answers(s), 1);
    assert_int_equal(pin_sink_count(&s->dns.pins), 1);
    assert_int_equal(pin_sink_life(&s->dns.pins, "10.0.0.1", 443), 0);
    assert_int_equal(pin_sink_life(&s->dns.pins, "169.254.169.254", 443), 0);
}

static void without_pins_there_is_no_answer(void **state)
{
    struct scene *s = *state;

    s->dns.ward.pin_fd = -1;
    assert_int_equal(ask(s, "one.test", DNS_A), DNS_SERVFAIL);
    assert_int_equal(answers(s), 0);
    assert_true(says(s, "could not be pinned"));
    s->dns.ward.pin_fd = s->dns.pins.fd;
    assert_int_equal(ask(s, "one.test", DNS_A), DNS_NOERROR);
    assert_int_equal(answers(s), 1);
}

static void what_is_no_question_gets_its_code_or_nothing(void **state)
{
    static const struct {
        const char *msg;
        size_t len;
        int rcode;
    } row[] = {
        {"\x42\x42\x01\0\0\2\0\0\0\0\0\0\3one\4test\0\0\1\0\1", 26, DNS_FORMERR},
        {"\x42\x42\x01\0\0\1\0\0\0\0\0\0\3one\4test\0\0\1\0\1x", 27, DNS_FORMERR},
        {"\x42\x42\x01\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", 18, DNS_FORMERR},
        {"\x42\x42\x11\0\0\1\0\0\0\0\0\0\3one\4test\0\0\1\0\1", 26, DNS_NOTIMP},
        {"\x42\x42\x01\0\0\1\0\0\0\0\0\0\3one\4test\0\0\1\0\3", 26, DNS_REFUSED},
    };
    struct scene *s = *state;
    static uint8_t big[4000];

    send_to(s, AF_INET, "short", 5);
    send_to(s, AF_INET, "\x42\x42\x81\0\0\1\0\0\0\0\0\0\3one\4test\0\0\1\0\1", 26);
    send_to(s, AF_INET, "", 0);
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        send_to(s, AF_INET, row[i].msg, row[i].len);
        assert_int_equal(receive(s, AF_INET), row[i].rcode); /* and nothing before it */
    }
    memcpy(big, row[0].msg, row[0].len);
    big[5] = 1;
    send_to(s, AF_INET, big, sizeof(big));
    assert_int_equal(receive(s, AF_INET), DNS_FORMERR);
}

static void without_edns_an_answer_is_cut_at_512_bytes(void **state)
{
    uint8_t m[DNSMSG_UDP_MIN];
    struct scene *s = *state;
    size_t n = dnsmsg_ask("thousand.test", DNS_A, 0x4242, m);

    assert_int_equal(ask(s, "thousand.test", DNS_A), DNS_NOERROR);
    assert_int_equal(answers(s), NAMES_ADDRS_MAX);
    m[11] = 0;
    send_to(s, AF_INET, m, n - DNSMSG_OPT_SIZE);
    assert_int_equal(receive(s, AF_INET), DNS_NOERROR);
    assert_int_equal(s->got[2] & 2, 2);
    assert_in_range(s->n, 400, 512);
    assert_int_equal(pin_sink_count(&s->dns.pins), NAMES_ADDRS_MAX);
}

static void over_the_rate_questions_are_refused(void **state)
{
    struct scene *s = *state;
    unsigned refused = 0;
    uint8_t m[DNSMSG_UDP_MIN];
    size_t n = dnsmsg_ask("one.test", DNS_A, 1, m);

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"limits\":"
                              "{\"questions_per_s\":5}," ALLOW "}");
    assert_int_equal(ask(s, "one.test", DNS_A), DNS_NOERROR); /* from now on at once */
    for (int i = 0; i < 20; i++)
        send_to(s, AF_INET, m, n);
    for (int i = 0; i < 20; i++)
        if (receive(s, AF_INET) == DNS_REFUSED) {
            assert_int_equal(ede(s), DNS_EDE_PROHIBITED);
            assert_true(says(s, "5 questions a second"));
            refused++;
        }
    assert_in_range(refused, 10, 19);
    while (ask(s, "one.test", DNS_A) == DNS_REFUSED) /* the bucket fills again */
        dns_scene_for(&s->dns, 20);
}

static void in_audit_mode_what_would_be_refused_is_answered_and_recorded(void **state)
{
    struct scene *s = *state;
    char room[65536];

    dns_scene_policy(&s->dns,
                     "{\"version\":1,\"name\":\"t\",\"mode\":\"audit\"," ALLOW "}");
    assert_int_equal(ask(s, "any.thing", DNS_A), DNS_NOERROR);
    assert_int_equal(answers(s), 1);
    assert_non_null(strstr(dns_scene_records(&s->dns, room), "any.thing"));
    assert_non_null(strstr(room, "would_refuse"));
    assert_int_equal(ask(s, "private.thing", DNS_A), DNS_NOERROR); /* the floor stays */
    assert_int_equal(answers(s), 0);
}

static void a_policy_replaced_meanwhile_decides(void **state)
{
    struct scene *s = *state;
    uint8_t m[DNSMSG_UDP_MIN];

    loop_io_want(s->dns.up.udp_io, 0); /* upstream takes its time */
    send_to(s, AF_INET, m, dnsmsg_ask("v4.test", DNS_A, 1, m));
    while (s->dns.ward.counts.questions == 0)
        dns_scene_for(&s->dns, 0);
    loop_io_want(s->dns.up.udp_io, LOOP_READ);
    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"allow\":[\"one.test\"]}");
    assert_int_equal(receive(s, AF_INET), DNS_NXDOMAIN);
}

static void ipv6_questions_are_answered_too(void **state)
{
    uint8_t m[DNSMSG_UDP_MIN];
    struct scene *s = *state;

    if (s->client[1] < 0) {
        print_message("no IPv6 on this machine\n");
        skip();
    }
    s->dns.reply_fd = s->listener[1];
    send_to(s, AF_INET6, m, dnsmsg_ask("one.test", DNS_AAAA, 1, m));
    assert_int_equal(receive(s, AF_INET6), DNS_NOERROR);
    assert_int_equal(answers(s), 1);
}

static void without_a_reply_socket_nothing_is_sent_and_it_is_asked_for_again(void **state)
{
    struct scene *s = *state;
    uint8_t m[DNSMSG_UDP_MIN];
    uint64_t start, passed_s;

    s->dns.reply_fd = -1;
    send_to(s, AF_INET, m, dnsmsg_ask("one.test", DNS_A, 1, m));
    dns_scene_for(&s->dns, 50);
    assert_int_equal(s->dns.n_wants, 1);
    s->dns.reply_fd = s->listener[0];
    assert_int_equal(ask(s, "one.test", DNS_A), DNS_NOERROR);
    assert_int_equal(s->dns.n_wants, 2);
    /* a new one has no socket yet; it does not ask without end */
    dns_server_free(s->dns.ward.dns);
    s->dns.reply_fd = -1;
    s->dns.ward.dns =
        dns_server_new(&s->dns.ward, (int[2]){dup(s->listener[0]), -1}, NULL);
    assert_non_null(s->dns.ward.dns);
    start = loop_now(s->dns.guard.loop);
    for (int i = 0; i < 100; i++) {
        send_to(s, AF_INET, m, dnsmsg_ask("one.test", DNS_A, 1, m));
        dns_scene_for(&s->dns, 1);
    }
    passed_s = (loop_now(s->dns.guard.loop) - start) / 1000;
    assert_in_range(s->dns.n_wants, 3, 2 + (passed_s + 1) * DNS_SOCKETS_PER_S);
}

/* -- over TCP ------------------------------------------------------------------------ */

static int connect_to(struct scene *s)
{
    int pair[2];

    assert_int_equal(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    dns_server_take_tcp(s->dns.ward.dns, &pair[1]);
    assert_int_equal(pair[1], -1);
    return pair[0];
}

/* @out  FRAMED bytes */
static size_t framed(const char *name, uint16_t type, uint16_t id, uint8_t *out)
{
    size_t n = dnsmsg_ask(name, type, id, out + 2);

    out[0] = (uint8_t)(n >> 8);
    out[1] = (uint8_t)n;
    return n + 2;
}

/* One message into s->got. False at the end. */
static bool read_message(struct scene *s, int fd)
{
    size_t have = 0, want = 2;

    while (have < want) {
        ssize_t n;

        wait_for(s, fd);
        n = recv(fd, s->got + have, want - have, 0);
        if (n <= 0)
            return false;
        have += (size_t)n;
        if (have == 2)
            want = 2 + ((size_t)s->got[0] << 8 | s->got[1]);
    }
    memmove(s->got, s->got + 2, want - 2);
    s->n = want - 2;
    return true;
}

static void over_tcp_questions_may_come_in_one_piece_or_in_bytes(void **state)
{
    struct scene *s = *state;
    uint8_t m[3 * FRAMED];
    int fd = connect_to(s);
    size_t n = framed("one.test", DNS_A, 1, m);

    n += framed("thousand.test", DNS_A, 2, m + n);
    n += framed("no.test", DNS_A, 3, m + n);
    assert_int_equal(send(fd, m, n, 0), n);
    for (unsigned seen = 0; seen != 0xe;) {
        assert_true(read_message(s, fd));
        assert_in_range(s->got[1], 1, 3);
        assert_int_equal(answers(s), s->got[1] == 1 ? 1 : s->got[1] == 2 ? 32 : 0);
        seen |= 1u << s->got[1];
    }
    n = framed("one.test", DNS_AAAA, 4, m);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(send(fd, m + i, 1, 0), 1);
        dns_scene_for(&s->dns, 0);
    }
    assert_true(read_message(s, fd));
    assert_int_equal(s->got[1], 4);
    /* half-closed: what is in work is answered */
    n = framed("v4.test", DNS_A, 5, m);
    assert_int_equal(send(fd, m, n, 0), n);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_true(read_message(s, fd));
    assert_int_equal(s->got[1], 5);
    assert_false(read_message(s, fd));
    sock_close(&fd);
}

static void over_tcp_what_is_no_message_ends_the_connection(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } row[] = {{"\0\0", 2}, {"\0\x0b", 2}, {"\xff\xff", 2}, {"\4\xd1", 2}};
    struct scene *s = *state;

    for (size_t i = 0; i < COUNT_OF(row); i++) {
        int fd = connect_to(s);

        assert_int_equal(send(fd, row[i].bytes, row[i].n, 0), row[i].n);
        assert_false(read_message(s, fd));
        sock_close(&fd);
    }
}

static void connections_are_bounded(void **state)
{
    struct scene *s = *state;
    int fd[DNS_TCP_MAX + 1];
    uint8_t m[FRAMED];
    size_t n = framed("one.test", DNS_A, 1, m);

    for (int i = 0; i <= DNS_TCP_MAX; i++)
        fd[i] = connect_to(s);
    assert_false(read_message(s, fd[DNS_TCP_MAX]));
    sock_close(&fd[3]);
    dns_scene_for(&s->dns, 50);
    sock_close(&fd[DNS_TCP_MAX]);
    fd[DNS_TCP_MAX] = connect_to(s);
    assert_int_equal(send(fd[DNS_TCP_MAX], m, n, 0), n);
    assert_true(read_message(s, fd[DNS_TCP_MAX]));
    for (int i = 0; i <= DNS_TCP_MAX; i++)
        sock_close(&fd[i]);
}

/* Many questions and no reading: what is kept is bounded, and all of it is
 * answered in the end. */
static void a_client_that_does_not_read_is_not_read(void **state)
{
    struct scene *s = *state;
    int fd = connect_to(s), sent = 0, got = 0;
    uint8_t m[FRAMED];
    size_t n = framed("thousand.test", DNS_A, 1, m);

    dns_scene_policy(&s->dns, "{\"version\":1,\"name\":\"t\",\"limits\":"
                              "{\"questions_per_s\":100000}," ALLOW "}");
    for (int idle = 0; idle < 50; idle++) {
        while (send(fd, m, n, MSG_NOSIGNAL) == (ssize_t)n) {
            sent++;
            idle = 0;
        }
        dns_scene_for(&s->dns, 1);
    }
    assert_true(sent > DNS_TCP_PIPELINE);
    assert_true(s->dns.ward.counts.questions < (unsigned)sent);
    while (got < sent && read_message(s, fd))
        got++;
    assert_int_equal(got, sent);
    sock_close(&fd);
}

static void a_client_that_leaves_with_questions_in_work_is_forgotten(void **state)
{
    struct scene *s = *state;
    int fd = connect_to(s);
    uint8_t m[FRAMED];
    size_t n = framed("silent.test", DNS_A, 1, m);

    assert_int_equal(send(fd, m, n, 0), n);
    while (s->dns.up.asked == 0)
        dns_scene_for(&s->dns, 1);
    sock_close(&fd);
    fd = connect_to(s);
    n = framed("one.test", DNS_A, 1, m);
    assert_int_equal(send(fd, m, n, 0), n);
    assert_true(read_message(s, fd));
    sock_close(&fd);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_allowed_name_is_answered_after_its_pins),
        TEST(the_names_between_are_not_told),
        TEST(a_name_that_is_not_allowed_does_not_exist_and_is_not_asked_for),
        TEST(names_that_no_host_has_do_not_exist),
        TEST(other_types_of_an_allowed_name_have_no_answer),
        TEST(what_upstream_says_is_told_apart),
        TEST(private_answers_are_refused_and_recorded),
        TEST(without_pins_there_is_no_answer),
        TEST(what_is_no_question_gets_its_code_or_nothing),
        TEST(without_edns_an_answer_is_cut_at_512_bytes),
        TEST(over_the_rate_questions_are_refused),
        TEST(in_audit_mode_what_would_be_refused_is_answered_and_recorded),
        TEST(a_policy_replaced_meanwhile_decides),
        TEST(ipv6_questions_are_answered_too),
        TEST(without_a_reply_socket_nothing_is_sent_and_it_is_asked_for_again),
        TEST(over_tcp_questions_may_come_in_one_piece_or_in_bytes),
        TEST(over_tcp_what_is_no_message_ends_the_connection),
        TEST(connections_are_bounded),
        TEST(a_client_that_does_not_read_is_not_read),
        TEST(a_client_that_leaves_with_questions_in_work_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
