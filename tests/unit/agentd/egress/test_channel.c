/* SPDX-License-Identifier: MIT */
#include "agentd/egress/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/sock.h"
#include "tests/support/test.h"

/* -- one of each --------------------------------------------------------------------- */

static struct ip_addr ip(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(span_str(text), &a), 0);
    return a;
}

static struct ip_net net(const char *text)
{
    struct ip_net n;

    assert_int_equal(ip_net_parse(span_str(text), &n), 0);
    return n;
}

/* A full record of the type, without descriptors. */
static void fill(struct channel_msg *m, enum channel_type t)
{
    bool is_general = t == CHANNEL_HELLO || t == CHANNEL_READY || t == CHANNEL_FLOOR;

    channel_msg_init(m, t, is_general ? 0 : 65535);
    m->seq = 0xfedcba98;
    switch (t) {
    case CHANNEL_HELLO:
    case CHANNEL_FLOOR:
        m->n_floor = CHANNEL_FLOOR_MAX;
        for (size_t i = 0; i < CHANNEL_FLOOR_MAX; i++)
            m->floor[i] = net(i % 2 == 0 ? "10.1.0.0/17" : "2001:db8::/33");
        memset(m->text, 'x', CHANNEL_TEXT_MAX - 1);
        break;
    case CHANNEL_SANDBOX:
        memset(m->name, 'a', EGRESS_NAME_MAX);
        m->tier = EGRESS_VETH;
        m->tag = 0x46fffffe;
        break;
    case CHANNEL_POLICY:
        m->tag = 0x46000001;
        break;
    case CHANNEL_REPLY:
        m->error = ENOBUFS;
        break;
    case CHANNEL_WHO:
        m->pid = INT32_MAX;
        m->uid = 0;
        memcpy(m->comm, "fifteen \xff\n    ", 14);
        break;
    case CHANNEL_REFUSED:
        memcpy(m->text, "no", 3);
        break;
    case CHANNEL_ASK_WHO:
        m->from = ip("192.0.0.8");
        m->from_port = 40000;
        m->to = ip("198.51.100.1");
        m->to_port = 443;
        m->protocol = IPPROTO_TCP;
        break;
    case CHANNEL_WANT_REPLY:
        m->to = ip("2001:db8::53");
        m->to_port = 53;
        m->protocol = IPPROTO_UDP;
        break;
    case CHANNEL_COUNTS:
        m->counts =
            (struct channel_counts){1, 2, 3, UINT64_MAX, 5, 1ull << 32, 7, UINT32_MAX, 9};
        break;
    default:
        break;
    }
}

/* Which descriptors a type must have, by index. */
static void add_fds(struct channel_msg *m, int fd)
{
    if (m->type == CHANNEL_POLICY || m->type == CHANNEL_PROPOSAL ||
        m->type == CHANNEL_SANDBOX)
        m->fd[CHANNEL_FD_POLICY] = fd;
    if (m->type == CHANNEL_SANDBOX)
        m->fd[CHANNEL_FD_TCP4] = m->fd[CHANNEL_FD_UDP4] = m->fd[CHANNEL_FD_NFLOG] =
            m->fd[CHANNEL_FD_PIN] = fd;
    if (m->type == CHANNEL_HELLO || m->type == CHANNEL_REPLY)
        m->fd[0] = fd;
}

static size_t fds_of(const struct channel_msg *m, int out[CHANNEL_FDS])
{
    size_t n = 0;

    for (size_t i = 0; i < CHANNEL_FDS; i++)
        if (m->fd[i] >= 0)
            out[n++] = m->fd[i];
    return n;
}

static void every_type_comes_out_as_it_went_in(void **state)
{
    UNUSED_ARG(state);
    for (unsigned t = CHANNEL_NONE + 1; t < CHANNEL_TYPE_COUNT; t++) {
        struct channel_msg in, out;
        uint8_t wire[CHANNEL_WIRE_MAX];
        int fds[CHANNEL_FDS], len;
        size_t n_fds;

        fill(&in, (enum channel_type)t);
        add_fds(&in, 100);
        n_fds = fds_of(&in, fds);
        len = channel_encode(&in, wire, NULL);
        assert_in_range(len, 12, CHANNEL_WIRE_MAX);
        assert_int_equal(
            channel_decode(span_of(wire, (size_t)len), fds, n_fds, &out, NULL), 0);
        assert_memory_equal(&in, &out, sizeof(in));
    }
}

static void no_record_can_be_cut_or_longer(void **state)
{
    UNUSED_ARG(state);
    for (unsigned t = CHANNEL_NONE + 1; t < CHANNEL_TYPE_COUNT; t++) {
        struct channel_msg in, out;
        uint8_t wire[CHANNEL_WIRE_MAX + 1] = {0};
        int fds[CHANNEL_FDS], len;
        size_t n_fds;

        fill(&in, (enum channel_type)t);
        add_fds(&in, 100);
        n_fds = fds_of(&in, fds);
        len = channel_encode(&in, wire, NULL);
        for (size_t n = 0; n <= (size_t)len + 1; n++)
            if (n != (size_t)len)
                assert_int_equal(channel_decode(span_of(wire, n), fds, n_fds, &out, NULL),
                                 -1);
        /* and with other descriptors than it says */
        assert_int_equal(
            channel_decode(span_of(wire, (size_t)len), fds, n_fds + 1, &out, NULL), -1);
        for (unsigned mask = 0; mask < 1u << CHANNEL_FDS; mask++) {
            int all[CHANNEL_FDS] = {100, 100, 100, 100, 100, 100, 100};
            struct channel_msg m;

            wire[2] = (uint8_t)mask;
            if (channel_decode(span_of(wire, (size_t)len), all,
                               (size_t)__builtin_popcount(mask), &m, NULL) < 0)
                continue;
            if (t != CHANNEL_SANDBOX && t != CHANNEL_HELLO && t != CHANNEL_REPLY)
                assert_int_equal(n_fds, __builtin_popcount(mask));
            assert_int_equal(fds_of(&m, all), __builtin_popcount(mask));
        }
        wire[2] = (uint8_t)(1u << CHANNEL_FDS);
        assert_int_equal(channel_decode(span_of(wire, (size_t)len), fds, 1, &out, NULL),
                         -1);
    }
}

/* -- what no record has -------------------------------------------------------------- */

static void text_is_made_fit_to_print(void **state)
{
    struct channel_msg in, out;
    uint8_t wire[CHANNEL_WIRE_MAX];
    int len;

    UNUSED_ARG(state);
    channel_msg_init(&in, CHANNEL_REFUSED, 1);
    memcpy(in.text, "a\x1b[2J\nb", 7);
    len = channel_encode(&in, wire, NULL);
    assert_int_equal(channel_decode(span_of(wire, (size_t)len), NULL, 0, &out, NULL), 0);
    assert_string_equal(out.text, "a?[2J?b");
}

static const struct {
    const char *rule;
    enum channel_type type;
    size_t at; /* this byte of a full record */
    uint8_t is;
} bad[] = {
    {"version", CHANNEL_READY, 0, CHANNEL_VERSION - 1},
    {"type 0", CHANNEL_READY, 1, 0},
    {"type past the last", CHANNEL_READY, 1, CHANNEL_TYPE_COUNT},
    {"a type with other parts", CHANNEL_READY, 1, CHANNEL_REFUSED},
    {"the zero byte", CHANNEL_READY, 3, 1},
    {"READY is no sandbox's", CHANNEL_READY, 7, 1},
    {"index over 65535", CHANNEL_REMOVE, 5, 1},
    {"tier", CHANNEL_SANDBOX, 12, 2},
    {"name of 255", CHANNEL_SANDBOX, 13, 255},
    {"name of 0", CHANNEL_SANDBOX, 13, 0},
    {"name with upper case", CHANNEL_SANDBOX, 14, 'A'},
    {"name with a slash", CHANNEL_SANDBOX, 15, '/'},
    {"name with NUL", CHANNEL_SANDBOX, 15, 0},
    {"name that begins with -", CHANNEL_SANDBOX, 14, '-'},
    {"errno over 4095", CHANNEL_REPLY, 12, 0x10},
    {"family 5", CHANNEL_WANT_REPLY, 12, 5},
    {"family 4 where 16 bytes follow", CHANNEL_WANT_REPLY, 12, 4},
    {"negative pid", CHANNEL_WHO, 12, 0x80},
    {"comm of 16", CHANNEL_WHO, 20, 16},
    {"comm with NUL", CHANNEL_WHO, 22, 0},
    {"host bits set", CHANNEL_FLOOR, 17, 2}, /* 10.1.0.0/17 */
    {"33 bits of IPv4", CHANNEL_FLOOR, 19, 33},
    {"257 networks", CHANNEL_FLOOR, 13, 1},
    {"control byte in a text", CHANNEL_REFUSED, 14, '\n'},
    {"DEL in a text", CHANNEL_REFUSED, 14, 0x7f},
    {"NUL in a text", CHANNEL_REFUSED, 14, 0},
    {"a text of 1024", CHANNEL_REFUSED, 12, 4},
};

static void fields_out_of_their_range_are_no_record(void **state)
{
    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct channel_msg m;
        struct err e = {0};
        uint8_t wire[CHANNEL_WIRE_MAX];
        int fds[CHANNEL_FDS], len;
        size_t n;

        fill(&m, bad[i].type);
        add_fds(&m, 100);
        n = fds_of(&m, fds);
        len = channel_encode(&m, wire, NULL);
        assert_true(len > (int)bad[i].at);
        assert_int_not_equal(wire[bad[i].at], bad[i].is);
        wire[bad[i].at] = bad[i].is;
        if (channel_decode(span_of(wire, (size_t)len), fds, n, &m, &e) == 0)
            fail_msg("accepted: %s", bad[i].rule);
        assert_int_equal(e.code, ERR_PROTO);
    }
}

static void what_no_record_has_is_not_sent(void **state)
{
    struct channel_msg m;
    uint8_t wire[CHANNEL_WIRE_MAX];
    struct err e = {0};

    UNUSED_ARG(state);
    fill(&m, CHANNEL_WANT_REPLY); /* a mapped address */
    m.to = (struct ip_addr){AF_INET6, {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1}};
    assert_int_equal(channel_encode(&m, wire, &e), -1);
    fill(&m, CHANNEL_FLOOR);
    m.n_floor = CHANNEL_FLOOR_MAX + 1;
    assert_int_equal(channel_encode(&m, wire, &e), -1);
    fill(&m, CHANNEL_SANDBOX); /* no policy */
    assert_int_equal(channel_encode(&m, wire, &e), -1);
    fill(&m, CHANNEL_READY);
    m.fd[3] = 5;
    assert_int_equal(channel_encode(&m, wire, &e), -1);
    assert_int_equal(e.code, ERR_PROTO);
}

static void each_type_has_a_side_and_a_name(void **state)
{
    unsigned n = 0;

    UNUSED_ARG(state);
    for (unsigned t = 1; t < CHANNEL_TYPE_COUNT; t++) {
        assert_true(strlen(channel_type_name((enum channel_type)t)) > 1);
        n += channel_is_keepers((enum channel_type)t);
    }
    assert_int_equal(n, 8);
    assert_string_equal(channel_type_name((enum channel_type)99), "?");
}

/* -- sockets ------------------------------------------------------------------------- */

static int n_open(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void descriptors_arrive_at_their_place(void **state)
{
    int pair[2], file = open("/dev/null", O_RDWR | O_CLOEXEC), before = n_open();
    struct channel_msg in, out;
    struct err e = {0};

    UNUSED_ARG(state);
    assert_int_equal(channel_pair(pair, NULL), 0);
    fill(&in, CHANNEL_SANDBOX);
    add_fds(&in, file);
    assert_int_equal(channel_recv(pair[1], &out, &e), 0); /* none waits */
    assert_int_equal(channel_send(pair[0], &in, &e), 0);
    assert_int_equal(channel_recv(pair[1], &out, &e), 1);
    assert_string_equal(out.name, in.name);
    for (size_t i = 0; i < CHANNEL_FDS; i++) {
        assert_int_equal(out.fd[i] >= 0, in.fd[i] >= 0);
        if (out.fd[i] >= 0)
            assert_true((fcntl(out.fd[i], F_GETFD) & FD_CLOEXEC) != 0);
    }
    channel_msg_done(&out);
    assert_int_equal(out.fd[CHANNEL_FD_POLICY], -1);
    (void)close(pair[0]);
    assert_int_equal(channel_recv(pair[1], &out, &e), -1);
    assert_int_equal(e.code, ERR_NOTFOUND); /* closed */
    assert_int_equal(channel_send(pair[1], &in, &e), -1);
    assert_int_equal(e.sys, EPIPE);
    (void)close(pair[1]);
    assert_int_equal(n_open(), before);
    (void)close(file);
}

/* Raw bytes with so many descriptors. */
static void send_raw(int fd, const void *p, size_t len, int what, size_t n_fds)
{
    _Alignas(struct cmsghdr) uint8_t room[CMSG_SPACE(64 * sizeof(int))] = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = len};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *c = (void *)room;

    if (n_fds > 0) {
        h.msg_control = room;
        h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        for (size_t i = 0; i < n_fds; i++)
            memcpy(CMSG_DATA(c) + i * sizeof(int), &what, sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &h, MSG_NOSIGNAL), (ssize_t)len);
}

static void a_broken_record_leaves_no_descriptor_behind(void **state)
{
    static const uint8_t ready[12] = {CHANNEL_VERSION, CHANNEL_READY};
    static uint8_t long_one[CHANNEL_WIRE_MAX + 1] = {CHANNEL_VERSION, CHANNEL_READY};
    static const struct {
        const uint8_t *p;
        size_t len, n_fds;
    } rows[] = {
        {ready, 12, 1},
        {ready, 12, CHANNEL_FDS},
        {ready, 12, CHANNEL_FDS + 1},
        {ready, 12, 60},
        {ready, 11, 0},
        {ready, 11, 2},
        {ready, 0, 1},
        {long_one, 13, 1},
        {long_one, 8193, 0},
        {long_one, 8193, CHANNEL_FDS},
    };
    int file = open("/dev/null", O_RDWR | O_CLOEXEC);

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int before = n_open(), pair[2];
        struct channel_msg m;
        struct err e = {0};

        assert_int_equal(channel_pair(pair, NULL), 0);
        send_raw(pair[0], rows[i].p, rows[i].len, file, rows[i].n_fds);
        assert_int_equal(channel_recv(pair[1], &m, &e), -1);
        assert_int_equal(e.code, ERR_PROTO);
        assert_int_equal(m.type, CHANNEL_NONE);
        channel_msg_done(&m); /* legal in every state */
        (void)close(pair[0]);
        (void)close(pair[1]);
        assert_int_equal(n_open(), before);
    }
    (void)close(file);
}

static void a_reader_that_does_not_read_is_told(void **state)
{
    int pair[2];
    struct channel_msg m;
    struct err e = {0};

    UNUSED_ARG(state);
    assert_int_equal(channel_pair(pair, NULL), 0);
    fill(&m, CHANNEL_READY);
    while (channel_send(pair[0], &m, &e) == 0)
        ;
    assert_int_equal(e.sys, EAGAIN);
    while (channel_recv(pair[1], &m, &e) == 1)
        ;
    fill(&m, CHANNEL_READY);
    assert_int_equal(channel_send(pair[0], &m, &e), 0);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

/* -- texts --------------------------------------------------------------------------- */

static void a_text_is_read_again_and_cannot_be_changed(void **state)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct err e = {0};
    int fd = channel_text_out("{\"version\":1}", 13, &e);

    UNUSED_ARG(state);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(ftruncate(fd, 3), -1);
    assert_int_equal(ftruncate(fd, 300), -1);
    assert_int_equal(buf_adds(&b, "before "), 0);
    assert_int_equal(channel_text_in(fd, 13, &b, &e), 0);
    assert_int_equal(channel_text_in(fd, 13, &b, &e), 0); /* the offset does not matter */
    assert_true(span_eq(buf_span(&b), span_str("before {\"version\":1}{\"version\":1}")));
    assert_int_equal(channel_text_in(fd, 12, &b, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    (void)close(fd);
    fd = channel_text_out("", 0, &e);
    assert_int_equal(channel_text_in(fd, 0, &b, &e), 0);
    (void)close(fd);
}

static void what_is_not_sealed_is_not_read(void **state)
{
    static const unsigned partial[] = {0, F_SEAL_WRITE, F_SEAL_WRITE | F_SEAL_GROW,
                                       F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK,
                                       F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK};
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    struct err e = {0};
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

    UNUSED_ARG(state);
    assert_int_equal(channel_text_in(fd, 100, &b, &e), -1);
    (void)close(fd);
    assert_int_equal(channel_text_in(-1, 100, &b, &e), -1);
    for (size_t i = 0; i < COUNT_OF(partial); i++) {
        fd = memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, partial[i]), 0);
        e.code = ERR_NONE;
        assert_int_equal(channel_text_in(fd, 100, &b, &e), -1);
        assert_int_equal(e.code, ERR_PROTO);
        (void)close(fd);
    }
    assert_int_equal(b.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_comes_out_as_it_went_in),
        cmocka_unit_test(no_record_can_be_cut_or_longer),
        cmocka_unit_test(text_is_made_fit_to_print),
        cmocka_unit_test(fields_out_of_their_range_are_no_record),
        cmocka_unit_test(what_no_record_has_is_not_sent),
        cmocka_unit_test(each_type_has_a_side_and_a_name),
        cmocka_unit_test(descriptors_arrive_at_their_place),
        cmocka_unit_test(a_broken_record_leaves_no_descriptor_behind),
        cmocka_unit_test(a_reader_that_does_not_read_is_told),
        cmocka_unit_test(a_text_is_read_again_and_cannot_be_changed),
        cmocka_unit_test(what_is_not_sealed_is_not_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
