/* SPDX-License-Identifier: MIT */
/* Notes as bytes, and a sealed namespace's sets told by them. */
#include "agentd/egress/kernel/pin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "agentd/egress/kernel/nft_int.h"
#include "tests/support/egress_ns.h"
#include "tests/support/test.h"

static struct pin pin_of(const char *addr, uint16_t port, uint32_t life_s)
{
    struct pin p = {.port = port, .life_s = life_s};

    if (ip_parse(span_str(addr), &p.addr) < 0)
        (void)fprintf(stderr, "%s is no address\n", addr);
    return p;
}

/* -- as bytes ------------------------------------------------------------------------ */

static void a_note_is_laid_out_as_the_rules_read_it(void **state)
{
    static const uint8_t note4[] = {4,   5, 0, 0, 0, 0, 0,    0,    203, 0,
                                    113, 7, 6, 0, 0, 0, 0x1f, 0x90, 0,   0};
    static const uint8_t note6[] = {6,    0, 0, 0, 0, 0, 0, 0, 0x20, 1, 0x0d,
                                    0xb8, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0,
                                    0,    9, 6, 0, 0, 0, 0, 1, 0,    0};
    const uint32_t tag = 0x46000102;
    uint8_t want[PIN_NOTE_MAX], got[PIN_NOTE_MAX];
    struct pin p = pin_of("203.0.113.7", 8080, 200);

    UNUSED_ARG(state);
    assert_int_equal(sizeof(note4), PIN_KEY_AT + PIN_KEY4_LEN);
    assert_int_equal(sizeof(note6), PIN_NOTE_MAX);
    memset(got, 0xff, sizeof(got));
    assert_int_equal(pin_note(got, tag, &p), sizeof(note4));
    memcpy(want, note4, sizeof(note4));
    memcpy(want + PIN_KEY_AT, &tag, sizeof(tag));
    assert_memory_equal(got, want, sizeof(note4));
    memset(got, 0xff, sizeof(got));
    p = pin_of("2001:db8::9", 1, 0);
    assert_int_equal(pin_note(got, tag, &p), sizeof(note6));
    memcpy(want, note6, sizeof(note6));
    memcpy(want + PIN_KEY_AT, &tag, sizeof(tag));
    assert_memory_equal(got, want, sizeof(note6));
}

static void a_pin_has_the_first_life_that_is_not_shorter(void **state)
{
    static const struct {
        uint32_t life_s;
        uint8_t n;
    } row[] = {{0, 0},   {1, 1},    {2, 2},    {4, 2},    {5, 3},
               {16, 3},  {17, 4},   {64, 4},   {65, 5},   {256, 5},
               {257, 6}, {1024, 6}, {1025, 7}, {4095, 7}, {4096, 7}};
    uint8_t note[PIN_NOTE_MAX];

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        struct pin p = pin_of("203.0.113.7", 443, row[i].life_s);

        assert_true(pin_note(note, 1, &p) > 0);
        assert_int_equal(note[1], row[i].n);
        if (row[i].n > 0)
            assert_true(pin_life_s(row[i].n - 1U) >= row[i].life_s);
    }
    assert_int_equal(pin_life_s(0), 1);
    assert_int_equal(pin_life_s(PIN_LIVES - 1), PIN_LIFE_MAX_S);
}

static void what_is_no_pin_has_no_note(void **state)
{
    struct pin bad[] = {
        pin_of("203.0.113.7", 0, 60),
        pin_of("2001:db8::9", 0, 0),
        pin_of("203.0.113.7", 443, PIN_LIFE_MAX_S + 1),
        pin_of("2001:db8::9", 443, UINT32_MAX),
        pin_of("203.0.113.7", 443, 60),
        pin_of("203.0.113.7", 443, 60),
    };
    uint8_t note[PIN_NOTE_MAX];

    UNUSED_ARG(state);
    bad[4].addr.family = 0;
    bad[5].addr.family = AF_UNIX;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(pin_note(note, 1, &bad[i]), 0);
        assert_int_equal(pin_put(-1, 1, &bad[i]), EINVAL);
    }
    bad[0].port = 443;
    assert_int_equal(pin_put(-1, 1, &bad[0]), EBADF);
}

/* -- in a kernel --------------------------------------------------------------------- */

static const char plain[] =
    "{\"version\":1,\"name\":\"t\",\"allow\":[\"db.example.com:5432\"]}";

#define ADDR  "93.184.216.34"
#define OTHER "93.184.216.35"
#define ADDR6 "2606:2800:220:1::1"

struct world {
    struct egress_ns s;
    int fd;
    uint32_t tag;
};

static void enter(struct world *w)
{
    egress_ns_seal(&w->s, plain);
    w->tag = nft_tag(w->s.nft, 1);
    NEED(w->tag != 0 && nft_tag(w->s.nft, 2) == 0);
    w->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    NEED_OK(pin_tie(w->fd, nft_pin_mark(w->s.nft), &e));
}

static void leave(struct world *w)
{
    (void)close(w->fd);
    egress_ns_done(&w->s);
}

static int put(const struct world *w, const char *addr, uint32_t life_s)
{
    struct pin p = pin_of(addr, 5432, life_s);

    return pin_put(w->fd, w->tag, &p);
}

static bool is_shut(const char *to)
{
    int error = egress_ns_connect(to, NULL);

    return error == ECONNREFUSED || error == EHOSTUNREACH || error == EACCES ||
           error == EPERM;
}

static void in_force(void)
{
    struct world w;

    enter(&w);
    NEED(is_shut(ADDR ":5432") && is_shut("[" ADDR6 "]:5432"));
    NEED(put(&w, ADDR, 60) == 0);
    NEED(egress_ns_lands(&w.s, ADDR ":5432"));
    NEED(put(&w, ADDR6, PIN_LIFE_MAX_S) == 0);
    NEED(egress_ns_lands(&w.s, "[" ADDR6 "]:5432"));
    NEED(is_shut(ADDR ":5433") && is_shut(OTHER ":5432"));
    NEED(put(&w, ADDR, 0) == 0);
    NEED(is_shut(ADDR ":5432"));
    NEED(egress_ns_lands(&w.s, "[" ADDR6 "]:5432"));
    NEED(put(&w, ADDR6, 0) == 0);
    NEED(is_shut("[" ADDR6 "]:5432"));
    /* What is not there, or no longer; and once more from the beginning. */
    NEED(put(&w, ADDR, 0) == 0 && put(&w, OTHER, 0) == 0 && put(&w, ADDR6, 0) == 0);
    NEED(put(&w, ADDR, 60) == 0);
    NEED(egress_ns_lands(&w.s, ADDR ":5432"));
    leave(&w);
}

/* A life of a second may be over before anybody looks: then once more. */
static bool lands_for_a_second(const struct world *w, const char *addr, const char *to)
{
    bool has_landed = false;

    for (int i = 0; i < 20 && !has_landed; i++)
        has_landed = put(w, addr, 1) == 0 && egress_ns_lands(&w->s, to);
    return has_landed;
}

static void lives(void)
{
    static const struct timespec wait = {.tv_sec = 2, .tv_nsec = 100000000};
    struct world w;

    enter(&w);
    NEED(lands_for_a_second(&w, "93.184.216.1", "93.184.216.1:5432"));
    NEED(put(&w, "93.184.216.2", 1) == 0 && put(&w, "93.184.216.2", 60) == 0);
    NEED(put(&w, "93.184.216.3", PIN_LIFE_MAX_S) == 0);
    NEED(egress_ns_lands(&w.s, "93.184.216.3:5432"));
    NEED(put(&w, "93.184.216.3", 1) == 0);
    for (unsigned i = 1; i < PIN_LIVES; i++) { /* each is one of the rules' */
        char addr[24], to[32];

        (void)snprintf(addr, sizeof(addr), "93.184.217.%u", i);
        (void)snprintf(to, sizeof(to), "%s:5432", addr);
        NEED(put(&w, addr, pin_life_s(i)) == 0);
        NEED(egress_ns_lands(&w.s, to));
    }
    NEED(nanosleep(&wait, NULL) == 0);
    NEED(is_shut("93.184.216.1:5432"));
    NEED(egress_ns_lands(&w.s, "93.184.216.2:5432"));
    NEED(is_shut("93.184.216.3:5432"));
    NEED(egress_ns_lands(&w.s, "93.184.217.4:5432"));
    leave(&w);
}

static void other_tags(void)
{
    const uint32_t tags[] = {0, 1, NFT_TAG, NFT_TAG | 0xffffff, EGRESS_MARK};
    struct world w;
    struct pin p = pin_of(ADDR, 5432, 60);

    enter(&w);
    for (size_t i = 0; i < COUNT_OF(tags); i++) {
        NEED(tags[i] != w.tag && pin_put(w.fd, tags[i], &p) == 0);
        NEED(is_shut(ADDR ":5432"));
    }
    /* And takes out nothing. */
    NEED(put(&w, ADDR, 60) == 0);
    p.life_s = 0;
    for (size_t i = 0; i < COUNT_OF(tags); i++)
        NEED(pin_put(w.fd, tags[i], &p) == 0);
    NEED(egress_ns_lands(&w.s, ADDR ":5432"));
    leave(&w);
}

/* -- full ---------------------------------------------------------------------------- */

static int put_nth(const struct world *w, unsigned i, uint32_t life_s)
{
    struct pin p = {.port = 5432, .life_s = life_s};

    p.addr = (struct ip_addr){AF_INET, {11, 0, (uint8_t)(i >> 8), (uint8_t)i}};
    return pin_put(w->fd, w->tag, &p);
}

static void full(void)
{
    static const struct timespec wait = {.tv_nsec = 50000000};
    struct world w;
    int rc = EPERM;

    enter(&w);
    for (unsigned i = 0; i < NFT_PINS_SEALED; i++)
        NEED(put_nth(&w, i, PIN_LIFE_MAX_S) == 0);
    NEED(put_nth(&w, NFT_PINS_SEALED, 60) == EPERM);
    NEED(put(&w, ADDR, 60) == EPERM);
    NEED(is_shut(ADDR ":5432"));
    /* What is in it stays, and may have another life. */
    NEED(egress_ns_lands(&w.s, "11.0.0.0:5432"));
    NEED(egress_ns_lands(&w.s, "11.0.255.254:5432")); /* the last */
    NEED(put_nth(&w, 7, 60) == 0);
    NEED(egress_ns_lands(&w.s, "11.0.0.7:5432"));
    /* The other family has its own. */
    NEED(put(&w, ADDR6, 60) == 0);
    NEED(egress_ns_lands(&w.s, "[" ADDR6 "]:5432"));
    /* What is taken out makes room, once the kernel has collected it. */
    for (unsigned i = 0; i < 100; i++)
        NEED(put_nth(&w, i, 0) == 0);
    for (int i = 0; i < EGRESS_NS_MS / 50 && (rc = put(&w, ADDR, 60)) == EPERM; i++)
        NEED(nanosleep(&wait, NULL) == 0);
    NEED(rc == 0);
    NEED(egress_ns_lands(&w.s, ADDR ":5432"));
    leave(&w);
}

/* -- what is no note ----------------------------------------------------------------- */

static struct sockaddr_in discard(void)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(9),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int listen_at_discard(void)
{
    const struct sockaddr_in at = discard();
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    NEED(fd >= 0 && bind(fd, (const struct sockaddr *)&at, sizeof(at)) == 0);
    return fd;
}

/* The next datagram there is this one: nothing came before it. */
static void next_is(int listener, const void *bytes, size_t len)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    uint8_t got[256];

    NEED(poll(&p, 1, EGRESS_NS_MS) == 1);
    NEED(recv(listener, got, sizeof(got), 0) == (ssize_t)len);
    NEED(memcmp(got, bytes, len) == 0);
}

static void broken(void)
{
    const struct sockaddr_in at = discard();
    struct world w;
    struct pin p = pin_of(ADDR, 5432, 60);
    uint8_t note[256] = {0}, bad[256];
    size_t len;
    int listener, plain_fd;

    enter(&w);
    listener = listen_at_discard();
    plain_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    len = pin_note(note, w.tag, &p);
    for (size_t cut = 0; cut < len; cut++)
        NEED(send(w.fd, note, cut, 0) < 0 && errno == EPERM);
    for (unsigned head = 0; head < 0x10000; head += head < 0x700 ? 1 : 0xff) {
        unsigned family = head >> 8, life = head & 0xff;

        if ((family == 4 || family == 6) && life <= PIN_LIVES)
            continue;
        memcpy(bad, note, sizeof(bad));
        bad[0] = (uint8_t)family;
        bad[1] = (uint8_t)life;
        NEED(send(w.fd, bad, len, 0) < 0 && errno == EPERM);
        NEED(send(w.fd, bad, sizeof(bad), 0) < 0 && errno == EPERM);
    }
    memcpy(bad, note, sizeof(bad));
    bad[0] = 6; /* an IPv4 key is too short for it */
    NEED(send(w.fd, bad, len, 0) < 0 && errno == EPERM);
    NEED(is_shut(ADDR ":5432"));
    /* A good one does not get there, either; one that anybody sends does, and is no
     * note. */
    NEED(put(&w, OTHER, 60) == 0 && put(&w, OTHER, 0) == 0);
    NEED(connect(plain_fd, (const struct sockaddr *)&at, sizeof(at)) == 0);
    NEED(send(plain_fd, note, len, 0) == (ssize_t)len);
    next_is(listener, note, len);
    NEED(is_shut(ADDR ":5432"));
    note[1] = 0;
    NEED(put(&w, ADDR, 60) == 0);
    NEED(send(plain_fd, note, len, 0) == (ssize_t)len);
    next_is(listener, note, len);
    NEED(egress_ns_lands(&w.s, ADDR ":5432"));
    (void)close(plain_fd);
    (void)close(listener);
    leave(&w);
}

static void too_long(void)
{
    struct world w;
    struct pin p4 = pin_of(ADDR, 5432, 60), p6 = pin_of(ADDR6, 5432, 60);
    uint8_t note[PIN_NOTE_MAX + 8] = {0};
    size_t len;

    enter(&w);
    len = pin_note(note, w.tag, &p4);
    NEED(send(w.fd, note, len + 1, 0) < 0 && errno == EPERM);
    NEED(send(w.fd, note, PIN_NOTE_MAX, 0) < 0 && errno == EPERM);
    NEED(is_shut(ADDR ":5432"));
    len = pin_note(note, w.tag, &p6);
    NEED(send(w.fd, note, len + 1, 0) < 0 && errno == EPERM);
    NEED(is_shut("[" ADDR6 "]:5432"));
    leave(&w);
}

/* -- who may, and when there are no rules -------------------------------------------- */

/* All of this process's but these. */
static void keep_capabilities(uint32_t bits)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct few[2] = {{bits, bits, 0}};

    NEED(syscall(SYS_capset, &head, few) == 0);
}

/* A packet socket that sees what has any of these bits in its mark. */
static int sniff(uint32_t bits)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_MARK)),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog f = {.len = COUNT_OF(code), .filter = code};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_ll all = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};

    NEED(fd >= 0);
    NEED(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &f, sizeof(f)) == 0);
    NEED(bind(fd, (struct sockaddr *)&all, sizeof(all)) == 0);
    return fd;
}

/* What Docker lets root of a container have: it may mark a socket, and catch packets; what
 * mark it needs no packet shows. */
static void only_raw(void)
{
    const uint32_t marks[] = {EGRESS_PIN_MARK, EGRESS_MARK, NFT_PIN_MARK, 0};
    struct pin p = pin_of(ADDR, 5432, 60);
    uint8_t packet[256];
    struct world w;
    int by_chance, as_on_a_host;

    enter(&w);
    keep_capabilities(UINT32_C(1) << CAP_NET_RAW);
    by_chance = sniff(NFT_PIN_MARK);
    as_on_a_host = sniff(EGRESS_PIN_MARK);
    NEED(put(&w, OTHER, 60) == 0);
    NEED(recv(as_on_a_host, packet, sizeof(packet), 0) > 0); /* caught, but */
    NEED(recv(by_chance, packet, sizeof(packet), 0) < 0 && errno == EAGAIN);
    for (size_t i = 0; i < COUNT_OF(marks); i++) {
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        NEED_OK(pin_tie(fd, marks[i], &e));
        (void)pin_put(fd, w.tag, &p);
        (void)close(fd);
        NEED(is_shut(ADDR ":5432"));
    }
    (void)close(by_chance);
    (void)close(as_on_a_host);
    leave(&w);
}

static void not_privileged(void)
{
    struct err e = {0};
    struct world w;
    int fd;

    enter(&w);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    keep_capabilities(0);
    NEED(pin_tie(fd, nft_pin_mark(w.s.nft), &e) < 0);
    NEED(e.code == ERR_SYS && e.sys == EPERM && strstr(e.msg, "mark") != NULL);
    /* A socket that was tied before is good for it. */
    NEED(put(&w, ADDR, 60) == 0);
    NEED(egress_ns_lands(&w.s, ADDR ":5432"));
    (void)close(fd);
    leave(&w);
}

/* Nobody takes the notes while another program has flushed the rules; that the kernel
 * says so late is no failure of the first one after they are back. */
static void rules_anew(void)
{
    const struct nft_base base = {.tier = EGRESS_SEALED};
    struct world w;

    enter(&w);
    NEED(put(&w, ADDR, 60) == 0);
    NEED_OK(nft_uninstall(w.s.nft, &e));
    (void)put(&w, OTHER, 60);
    NEED_OK(nft_restore(w.s.nft, &base, &w.s.sandbox, 1, &e));
    NEED(is_shut(ADDR ":5432") && is_shut(OTHER ":5432"));
    NEED(nft_tag(w.s.nft, 1) != w.tag);
    NEED(put(&w, ADDR, 60) == 0); /* with the tag of before */
    NEED(is_shut(ADDR ":5432"));
    w.tag = nft_tag(w.s.nft, 1);
    NEED(put(&w, ADDR, 60) == 0);
    NEED(egress_ns_lands(&w.s, ADDR ":5432"));
    /* Made anew in one step: the tag stays, for who pins meanwhile, and no pin does. */
    NEED_OK(nft_restore(w.s.nft, &base, &w.s.sandbox, 1, &e));
    NEED(nft_tag(w.s.nft, 1) == w.tag && is_shut(ADDR ":5432"));
    NEED(put(&w, ADDR, 60) == 0);
    NEED(egress_ns_lands(&w.s, ADDR ":5432"));
    leave(&w);
}

BOTH(a_pin_is_in_force_when_the_call_returns, in_force)
BOTH(a_longer_and_a_shorter_life_replace_the_one_that_is_there, lives)
BOTH(another_tags_pin_opens_nothing, other_tags)
BOTH(a_full_set_refuses_and_keeps_what_is_in_it, full)
BOTH(what_is_no_note_puts_nothing_in_and_reaches_nobody, broken)
BOTH(a_note_that_is_too_long_puts_nothing_in, too_long)
BOTH(with_net_raw_alone_nobody_pins, only_raw)
BOTH(without_privileges_no_socket_is_tied, not_privileged)
BOTH(after_the_rules_were_gone_pins_are_put_in_again, rules_anew)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_note_is_laid_out_as_the_rules_read_it),
        cmocka_unit_test(a_pin_has_the_first_life_that_is_not_shorter),
        cmocka_unit_test(what_is_no_pin_has_no_note),
        cmocka_unit_test(a_pin_is_in_force_when_the_call_returns),
        cmocka_unit_test(a_longer_and_a_shorter_life_replace_the_one_that_is_there),
        cmocka_unit_test(another_tags_pin_opens_nothing),
        cmocka_unit_test(a_full_set_refuses_and_keeps_what_is_in_it),
        cmocka_unit_test(what_is_no_note_puts_nothing_in_and_reaches_nobody),
        cmocka_unit_test(a_note_that_is_too_long_puts_nothing_in),
        cmocka_unit_test(with_net_raw_alone_nobody_pins),
        cmocka_unit_test(without_privileges_no_socket_is_tied),
        cmocka_unit_test(after_the_rules_were_gone_pins_are_put_in_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
