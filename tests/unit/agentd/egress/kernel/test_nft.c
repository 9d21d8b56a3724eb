/* SPDX-License-Identifier: MIT */
/* A sealed namespace's rules against real packets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "agentd/egress/kernel/nflog.h"
#include "agentd/egress/kernel/nft_int.h"
#include "tests/support/egress_ns.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

static const char plain[] =
    "{\"version\":1,\"name\":\"t\",\"allow\":[\"api.example.com\","
    "\"db.example.com:5432\",\"203.0.113.0/24:8000-8999\","
    "\"10.1.0.0/16:8080\",\"2001:db8:5::/48:8080\"],"
    "\"deny\":[\"203.0.113.7:8000-8999\"]}";

static bool is_refused(int error)
{
    return error == ECONNREFUSED || error == EHOSTUNREACH || error == EACCES ||
           error == EPERM;
}

/* -- what lands and what does not ---------------------------------------------------- */

static void ports_with_a_name_check(void)
{
    struct egress_ns s;

    egress_ns_seal(&s, plain);
    NEED(egress_ns_lands(&s, "93.184.216.34:443"));
    NEED(egress_ns_lands(&s, "93.184.216.34:80"));
    NEED(egress_ns_lands(&s, "[2606:2800:220:1::1]:443"));
    egress_ns_done(&s);
}

static void unpinned_and_floor(void)
{
    static const char *const to[] = {
        "93.184.216.34:5432",      "93.184.216.34:22",      "169.254.169.254:80",
        "169.254.169.254:443",     "[fd00:ec2::254]:80",    "10.0.0.1:443",
        "192.168.1.1:80",          "172.17.0.1:443",        "100.64.0.1:443",
        "[fc00::1]:443",           "0.1.2.3:443",           "240.0.0.1:443",
        "192.0.0.9:443",           "10.1.2.3:443",          "203.0.113.9:7999",
        "203.0.113.7:8000",        "[2001:db8:5::1]:22",    "[64:ff9b::a9fe:a9fe]:80",
        "[2002:a00:1::1]:443",     "[::ffff:10.0.0.1]:443", "203.0.113.7:8999",
        "[2606:2800:220:1::1]:22", "[fec0::1]:443",
    };
    struct egress_ns s;

    egress_ns_seal(&s, plain);
    for (size_t i = 0; i < COUNT_OF(to); i++) {
        int error = egress_ns_connect(to[i], NULL);

        if (!is_refused(error))
            (void)fprintf(stderr, "%s: %s\n", to[i], strerror(error));
        NEED(is_refused(error));
    }
    egress_ns_done(&s);
}

static void networks(void)
{
    struct egress_ns s;

    egress_ns_seal(&s, plain);
    NEED(egress_ns_lands(&s, "203.0.113.9:8000"));
    NEED(egress_ns_lands(&s, "203.0.113.6:8999"));
    NEED(egress_ns_lands(&s, "10.1.255.3:8080"));
    NEED(egress_ns_lands(&s, "[2001:db8:5:1::9]:8080"));
    egress_ns_done(&s);
}

static void pins(void)
{
    struct egress_ns s;

    egress_ns_seal(&s, plain);
    egress_ns_pin(s.nft, 1, "93.184.216.34:5432", 60);
    egress_ns_pin(s.nft, 1, "[2606:2800:220:1::1]:5432", 60);
    NEED(egress_ns_lands(&s, "93.184.216.34:5432"));
    NEED(egress_ns_lands(&s, "[2606:2800:220:1::1]:5432"));
    /* Neither its neighbours nor other ports. */
    NEED(is_refused(egress_ns_connect("93.184.216.34:5433", NULL)));
    NEED(is_refused(egress_ns_connect("93.184.216.35:5432", NULL)));
    egress_ns_pin(s.nft, 1, "93.184.216.34:5432", 0);
    NEED(is_refused(egress_ns_connect("93.184.216.34:5432", NULL)));
    egress_ns_pin(s.nft, 1, "93.184.216.34:5432", 0); /* it is not there: fine */
    /* A pin opens neither the floor nor a denied network. */
    egress_ns_pin(s.nft, 1, "169.254.169.254:80", 60);
    egress_ns_pin(s.nft, 1, "203.0.113.7:8000", 60);
    egress_ns_pin(s.nft, 1, "10.0.0.1:5432", 60);
    NEED(is_refused(egress_ns_connect("169.254.169.254:80", NULL)));
    NEED(is_refused(egress_ns_connect("203.0.113.7:8000", NULL)));
    NEED(is_refused(egress_ns_connect("10.0.0.1:5432", NULL)));
    egress_ns_done(&s);
}

/* A pin that ended refuses new connections; one that is renewed in time does not. */
static void pins_end(void)
{
    struct egress_ns s;
    struct timespec wait = {.tv_sec = 2, .tv_nsec = 100000000};

    egress_ns_seal(&s, plain);
    egress_ns_pin(s.nft, 1, "93.184.216.34:5432", 1);
    egress_ns_pin(s.nft, 1, "93.184.216.35:5432", 1);
    egress_ns_pin(s.nft, 1, "93.184.216.35:5432", 60);
    NEED(egress_ns_lands(&s, "93.184.216.34:5432"));
    NEED(nanosleep(&wait, NULL) == 0);
    NEED(is_refused(egress_ns_connect("93.184.216.34:5432", NULL)));
    NEED(egress_ns_lands(&s, "93.184.216.35:5432"));
    egress_ns_done(&s);
}

/* -- the rest of the world ----------------------------------------------------------- */

static void other_protocols(void)
{
    static const int protocols[] = {IPPROTO_ICMP, IPPROTO_SCTP, IPPROTO_GRE, 253};
    struct egress_ns s;
    struct sock_addr to;

    egress_ns_seal(&s, plain);
    NEED(is_refused(egress_ns_send("93.184.216.34:443", NULL)));
    NEED(is_refused(egress_ns_send("[2606:2800:220:1::1]:443", NULL)));
    NEED(is_refused(egress_ns_send("10.1.2.3:8080", NULL)));
    NEED(is_refused(egress_ns_send("224.0.0.251:5353", NULL)));
    NEED(is_refused(egress_ns_send("203.0.113.9:8000", NULL)));
    NEED_OK(sock_parse("93.184.216.34:0", &to, &e));
    for (size_t i = 0; i < COUNT_OF(protocols); i++) {
        struct icmphdr echo = {.type = ICMP_ECHO, .checksum = htons(0xf7ff)};
        int fd = socket(AF_INET, SOCK_RAW, protocols[i]);

        NEED(fd >= 0);
        NEED(sendto(fd, &echo, sizeof(echo), 0, &to.u.sa, to.len) < 0);
        NEED(errno == EPERM);
        (void)close(fd);
    }
    NEED_OK(sock_parse("[2606:2800:220:1::1]:0", &to, &e));
    {
        struct icmp6_hdr echo = {.icmp6_type = ICMP6_ECHO_REQUEST};
        int fd = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);

        NEED(fd >= 0);
        NEED(sendto(fd, &echo, sizeof(echo), 0, &to.u.sa, to.len) < 0 && errno == EPERM);
        (void)close(fd);
    }
    egress_ns_done(&s);
}

/* Where a datagram at the guard's listener was meant for; then answer from there. */
static void answer_dns(const struct egress_ns *s, const char *to)
{
    struct sock_addr want, meant = {0}, from = {0};
    uint8_t in[16], control[128];
    struct iovec iov = {in, sizeof(in)};
    struct msghdr m = {.msg_name = &from.u,
                       .msg_namelen = sizeof(from.u),
                       .msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};
    struct pollfd p = {.events = POLLIN};
    bool is_6;
    int fd, one = 1;

    NEED_OK(sock_parse(to, &want, &e));
    is_6 = want.u.sa.sa_family == AF_INET6;
    p.fd = s->udp[is_6];
    NEED(poll(&p, 1, EGRESS_NS_MS) == 1);
    NEED(recvmsg(p.fd, &m, 0) == 1);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_type == (is_6 ? IPV6_ORIGDSTADDR : IP_ORIGDSTADDR)) {
            meant.len = want.len;
            memcpy(&meant.u, CMSG_DATA(c), meant.len);
        }
    NEED(sock_port(&meant) == 53 && meant.u.sa.sa_family == want.u.sa.sa_family);
    NEED(is_6 ? memcmp(&meant.u.in6.sin6_addr, &want.u.in6.sin6_addr, 16) == 0
              : meant.u.in.sin_addr.s_addr == want.u.in.sin_addr.s_addr);
    fd = socket(want.u.sa.sa_family, SOCK_DGRAM, 0);
    NEED(setsockopt(fd, is_6 ? IPPROTO_IPV6 : IPPROTO_IP,
                    is_6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &one, sizeof(one)) == 0);
    NEED(bind(fd, &want.u.sa, want.len) == 0);
    NEED(sendto(fd, "yes", 3, 0, &from.u.sa, m.msg_namelen) == 3);
    (void)close(fd);
}

static void dns(void)
{
    static const char *const to[] = {
        "8.8.8.8:53",        "127.0.0.53:53", "127.0.0.1:53",
        "192.0.0.8:53",      "10.0.0.1:53",   "169.254.169.254:53",
        "[2001:db8::53]:53", "[::1]:53",      "[100::8]:53"};
    struct egress_ns s;

    egress_ns_seal(&s, plain);
    for (size_t i = 0; i < COUNT_OF(to); i++) {
        struct pollfd p = {.events = POLLIN};
        char in[8];

        NEED(egress_ns_send(to[i], &p.fd) == 0);
        answer_dns(&s, to[i]);
        NEED(poll(&p, 1, EGRESS_NS_MS) == 1);
        NEED(recv(p.fd, in, sizeof(in), 0) == 3);
        (void)close(p.fd);
        NEED(egress_ns_lands(&s, to[i])); /* by TCP */
    }
    NEED(is_refused(egress_ns_send("224.0.0.251:53", NULL)));
    egress_ns_done(&s);
}

static void own_loopback(void)
{
    static const char *const at[] = {"127.0.0.1", "127.8.9.10", EGRESS_SEALED_IP4, "::1",
                                     EGRESS_SEALED_IP6};
    struct egress_ns s;

    egress_ns_seal(&s, "{\"version\":1,\"name\":\"t\",\"allow\":[]}");
    for (size_t i = 0; i < COUNT_OF(at); i++) {
        struct sock_addr a;
        char text[SOCK_TEXT_MAX], in[4];
        int fd, client;
        struct pollfd p = {.events = POLLIN};

        NEED(sock_parse_ip(span_str(at[i]), 0, &a) == 0);
        NEED_OK(fd = sock_listen(&a, &e));
        NEED(sock_local(fd, &a) == 0);
        NEED(egress_ns_connect(sock_print(&a, text), &client) == 0);
        (void)close(client);
        (void)close(fd);
        p.fd = socket(a.u.sa.sa_family, SOCK_DGRAM, 0);
        NEED(bind(p.fd, &a.u.sa, a.len) == 0);
        NEED(egress_ns_send(text, NULL) == 0);
        NEED(poll(&p, 1, EGRESS_NS_MS) == 1 && recv(p.fd, in, sizeof(in), 0) == 1);
        (void)close(p.fd);
        /* The guard's own doors. */
        (void)snprintf(text, sizeof(text), strchr(at[i], ':') ? "[%s]:%u" : "%s:%u",
                       at[i], s.sandbox.tcp_port);
        NEED(is_refused(egress_ns_connect(text, NULL)));
        (void)snprintf(text, sizeof(text), strchr(at[i], ':') ? "[%s]:%u" : "%s:%u",
                       at[i], s.sandbox.udp_port);
        NEED(is_refused(egress_ns_send(text, NULL)));
    }
    NEED(is_refused(egress_ns_connect("93.184.216.34:22", NULL)));
    egress_ns_done(&s);
}

/* Bytes both ways over a connection that was let through; still after its pin is gone,
 * and with another policy in its place: to cut it is the guard's. */
static void established(void)
{
    struct egress_ns s;
    int fd, guard;
    char in[8];
    struct pollfd p = {.events = POLLIN};

    egress_ns_seal(&s, plain);
    egress_ns_pin(s.nft, 1, "93.184.216.34:5432", 60);
    NEED(egress_ns_connect("93.184.216.34:5432", &fd) == 0);
    guard = egress_ns_accept(&s, "93.184.216.34:5432");
    NEED(guard >= 0);
    egress_ns_pin(s.nft, 1, "93.184.216.34:5432", 0);
    egress_ns_policy(&s, "{\"version\":1,\"name\":\"t\",\"allow\":[]}");
    for (int i = 0; i < 3; i++) {
        NEED(send(fd, "ping", 4, 0) == 4);
        p.fd = guard;
        NEED(poll(&p, 1, EGRESS_NS_MS) == 1 && recv(guard, in, sizeof(in), 0) == 4);
        NEED(send(guard, "pong", 4, 0) == 4);
        p.fd = fd;
        NEED(poll(&p, 1, EGRESS_NS_MS) == 1 && recv(fd, in, sizeof(in), 0) == 4);
    }
    (void)close(fd);
    (void)close(guard);
    egress_ns_done(&s);
}

/* Nothing gets out before there is a sandbox, and after it is dropped. */
static void without_a_sandbox(void)
{
    struct egress_ns s;

    egress_ns_seal(&s, plain);
    NEED_OK(nft_sandbox_drop(s.nft, &s.sandbox, &e));
    NEED(is_refused(egress_ns_connect("93.184.216.34:443", NULL)));
    NEED(is_refused(egress_ns_send("8.8.8.8:53", NULL)));
    NEED(is_refused(egress_ns_connect("127.0.0.1:9", NULL)));
    NEED_OK(nft_sandbox_set(s.nft, &s.sandbox, &e));
    NEED(egress_ns_lands(&s, "93.184.216.34:443"));
    egress_ns_done(&s);
}

/* With the guard gone the kernel lets nobody else have the packets. */
static void without_a_guard(void)
{
    struct egress_ns s;
    struct sock_addr a;
    int fd;

    egress_ns_seal(&s, plain);
    for (int i = 0; i < 2; i++) {
        sock_close(&s.tcp[i]);
        sock_close(&s.udp[i]);
    }
    /* A program of the sandbox that has the address itself: every address is local
     * here. */
    NEED_OK(sock_parse("93.184.216.34:443", &a, &e));
    NEED_OK(fd = sock_listen(&a, &e));
    NEED(egress_ns_connect("93.184.216.34:443", NULL) != 0);
    (void)close(fd);
    egress_ns_done(&s);
}

static void too_many_connections(void)
{
    struct egress_ns s;
    int fd[3];

    egress_ns_seal(&s, "{\"version\":1,\"name\":\"t\",\"allow\":[\"a.example\"],"
                       "\"limits\":{\"connections\":2}}");
    NEED(egress_ns_connect("93.184.216.34:443", &fd[0]) == 0);
    NEED(egress_ns_connect("93.184.216.34:443", &fd[1]) == 0);
    NEED(is_refused(egress_ns_connect("93.184.216.34:443", &fd[2])));
    egress_ns_done(&s);
}

/* -- changes ------------------------------------------------------------------------- */

static void replacing_keeps(void)
{
    struct egress_ns s;
    struct nft_counts before, after;

    egress_ns_seal(&s, plain);
    egress_ns_pin(s.nft, 1, "93.184.216.34:5432", 60);
    NEED(egress_ns_lands(&s, "93.184.216.34:5432"));
    NEED(is_refused(egress_ns_connect("93.184.216.34:22", NULL)));
    NEED_OK(nft_counts(s.nft, 1, &before, &e));
    NEED(before.guarded_packets > 0 && before.refused_packets > 0);
    egress_ns_policy(&s,
                     "{\"version\":1,\"name\":\"t\",\"allow\":[\"db.example.com:5432\"],"
                     "\"limits\":{\"bytes\":1000}}");
    NEED_OK(nft_counts(s.nft, 1, &after, &e));
    NEED(after.guarded_packets >= before.guarded_packets);
    NEED(after.refused_packets >= before.refused_packets);
    NEED(egress_ns_lands(&s, "93.184.216.34:5432"));
    NEED(is_refused(egress_ns_connect("203.0.113.9:8000", NULL)));
    /* Another sandbox by the same number does not inherit them. */
    NEED_OK(nft_sandbox_drop(s.nft, &s.sandbox, &e));
    NEED_OK(nft_sandbox_set(s.nft, &s.sandbox, &e));
    NEED(is_refused(egress_ns_connect("93.184.216.34:5432", NULL)));
    NEED_OK(nft_counts(s.nft, 1, &after, &e));
    NEED(after.guarded_packets == 0);
    egress_ns_done(&s);
}

static struct policy *many_networks(unsigned n)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct policy *p;

    NEED(buf_adds(&text, "{\"version\":1,\"name\":\"t\",\"allow\":[") == 0);
    for (unsigned i = 0; i < n; i++)
        NEED(buf_addf(&text, "%s\"203.%u.%u.%u:%u\",\"n%u.example.com:8443\"",
                      i == 0 ? "" : ",", i >> 16 & 255, i >> 8 & 255, i & 255,
                      1000 + i % 7, i) == 0);
    NEED(buf_adds(&text, "]}") == 0 && buf_add(&text, "", 1) == 0);
    p = policy_text((const char *)text.p);
    return p;
}

static void a_thousand(void)
{
    struct egress_ns s;
    struct nft_base base = {.tier = EGRESS_SEALED};

    egress_ns_seal(&s, plain);
    for (int round = 0; round < 3; round++) {
        struct policy *p = many_networks(round == 1 ? 1 : 1000);

        s.sandbox.policy = p;
        NEED_OK(nft_sandbox_set(s.nft, &s.sandbox, &e));
        NEED_OK(nft_verify(s.nft, &base, &s.sandbox, 1, &e));
        NEED(egress_ns_lands(&s, "203.0.0.0:1000"));
        NEED((round != 1) == egress_ns_lands(&s, "203.0.3.231:1005"));
        NEED(is_refused(egress_ns_connect("203.0.3.232:1000", NULL)));
        policy_unref(s.policy);
        s.policy = p;
    }
    egress_ns_done(&s);
}

/* What the kernel takes at once is bounded for an ordinary user: said, and the old rules
 * stay. */
static void too_large(void)
{
    struct egress_ns s;
    struct policy *p = many_networks(20000);
    struct err why = {0};

    egress_ns_seal(&s, plain);
    s.sandbox.policy = p;
    if (nft_sandbox_set(s.nft, &s.sandbox, &why) < 0) {
        NEED(why.code == ERR_LIMIT && strstr(why.msg, "net.core.wmem_max") != NULL);
        NEED(egress_ns_lands(&s, "203.0.113.9:8000"));
    } else {
        NEED(egress_ns_lands(&s, "203.0.78.31:1000")); /* the last: 19999 */
        NEED(is_refused(egress_ns_connect("203.0.113.9:8000", NULL)));
    }
    NEED(is_refused(egress_ns_connect("93.184.216.34:22", NULL)));
    policy_unref(p);
    egress_ns_done(&s);
}

static void default_allow(void)
{
    struct egress_ns s;

    egress_ns_seal(
        &s, "{\"version\":1,\"name\":\"t\",\"default\":\"allow\","
            "\"allow\":[\"10.1.0.0/16:8080\"],\"deny\":[\"203.0.113.0/24:1-65535\"]}");
    NEED(egress_ns_lands(&s, "93.184.216.34:22"));
    NEED(egress_ns_lands(&s, "93.184.216.34:65535"));
    NEED(egress_ns_lands(&s, "[2606:2800:220:1::1]:1"));
    NEED(egress_ns_lands(&s, "10.1.2.3:8080"));
    NEED(is_refused(egress_ns_connect("10.1.2.3:8081", NULL)));
    NEED(is_refused(egress_ns_connect("203.0.113.1:22", NULL)));
    NEED(is_refused(egress_ns_connect("169.254.169.254:80", NULL)));
    NEED(is_refused(egress_ns_send("93.184.216.34:443", NULL)));
    egress_ns_done(&s);
}

/* Root of the namespace with sockets that may have any address, and marks: no way past
 * the judgement. */
static void privileges(void)
{
    struct egress_ns s;
    struct sock_addr to;
    char text[SOCK_TEXT_MAX];
    int fd, one = 1, mark = (int)EGRESS_MARK;

    egress_ns_seal(&s, plain);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one)) == 0);
    NEED(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0);
    NEED_OK(sock_parse("169.254.169.254:80", &to, &e));
    NEED(connect(fd, &to.u.sa, to.len) < 0 && is_refused(errno));
    (void)close(fd);
    /* To the guard's own port at an address of the world: it is judged as that port
     * there. */
    fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one)) == 0);
    (void)snprintf(text, sizeof(text), "93.184.216.34:%u", s.sandbox.tcp_port);
    NEED_OK(sock_parse(text, &to, &e));
    NEED(connect(fd, &to.u.sa, to.len) < 0 && is_refused(errno));
    (void)close(fd);
    /* A mark is no way to the guard for what goes to the sandbox's own address. */
    fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0);
    NEED_OK(sock_parse("127.0.0.1:9", &to, &e));
    NEED(connect(fd, &to.u.sa, to.len) < 0 && errno == ECONNREFUSED);
    (void)close(fd);
    egress_ns_done(&s);
}

static void failing_batch(void)
{
    struct egress_ns s;
    struct nft_batch b;
    struct nft_link link;
    struct err e = {0};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

    egress_ns_seal(&s, plain);
    NEED(link_open(&link, &fd, &e) == 0);
    batch_init(&b, EGRESS_NFT, 1);
    link_begin(&link, &b, EGRESS_NFT);
    build_chain_flush(&b, "s1");
    build_chain_flush(&b, "output");
    rule_begin(&b, "output");
    rule_lookup(&b, "nowhere", false);
    rule_verdict(&b, NF_ACCEPT, NULL);
    rule_end(&b, "broken");
    build_chain_flush(&b, "judge");
    NEED(link_commit(&link, &b, &e) < 0);
    NEED(e.sys == ENOENT && strstr(e.msg, "add a rule to output (broken)") != NULL);
    NEED(is_refused(egress_ns_connect("93.184.216.34:22", NULL)));
    NEED(egress_ns_lands(&s, "93.184.216.34:443"));
    /* The same link goes on. */
    link_begin(&link, &b, EGRESS_NFT);
    build_counter(&b, "fine");
    NEED(link_commit(&link, &b, &e) == 0);
    batch_done(&b);
    link_done(&link);
    egress_ns_done(&s);
}

static void flush_output(struct nft_batch *b)
{
    build_chain_flush(b, "output");
}

static void drop_table(struct nft_batch *b)
{
    build_table_drop(b);
}

static void add_rule(struct nft_batch *b)
{
    rule_begin(b, "s1");
    rule_verdict(b, NF_ACCEPT, NULL);
    rule_end(b, NULL);
}

static void drop_floor(struct nft_batch *b)
{
    build_set_flush(b, "floor4");
}

static void other_table(struct nft_batch *b)
{
    b->table = "another";
    build_table(b);
}

static void monitor(void)
{
    static const struct {
        void (*build)(struct nft_batch *b);
        const char *what; /* NULL: none of our business */
    } rows[] = {
        {other_table, NULL},    {flush_output, "output"}, {add_rule, "s1"},
        {drop_floor, "floor4"}, {drop_table, "gone"},
    };
    struct nft_base base = {.tier = EGRESS_SEALED};
    struct egress_ns s;
    int fd =
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);

    egress_ns_seal(&s, plain);
    NEED_OK(nft_monitor_start(fd, nft_port(s.nft), &e));
    egress_ns_pin(s.nft, 1, "93.184.216.34:5432", 60);
    egress_ns_policy(&s, plain);
    NEED(nft_monitor_read(s.nft, fd) == NFT_CHANGE_NONE);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool is_ours = rows[i].what != NULL;
        struct err why = {0};

        NEED_OK(nft_verify(s.nft, &base, &s.sandbox, 1, &e));
        egress_ns_foreign(EGRESS_NFT, rows[i].build);
        NEED(nft_monitor_read(s.nft, fd) ==
             (is_ours ? NFT_CHANGE_OURS_TOUCHED : NFT_CHANGE_NONE));
        NEED(nft_monitor_read(s.nft, fd) == NFT_CHANGE_NONE);
        NEED(nft_verify(s.nft, &base, &s.sandbox, 1, &why) == (is_ours ? -1 : 0));
        if (is_ours)
            NEED(why.code == ERR_DENIED && strstr(why.msg, rows[i].what) != NULL);
        NEED_OK(nft_restore(s.nft, &base, &s.sandbox, 1, &e));
        NEED(nft_monitor_read(s.nft, fd) == NFT_CHANGE_NONE);
        NEED(is_refused(egress_ns_connect("169.254.169.254:80", NULL)));
    }
    (void)close(fd);
    egress_ns_done(&s);
}

/* -- refusals told ------------------------------------------------------------------- */

static void told(void)
{
    static const struct {
        const char *to;
        bool is_udp;
        const char *why;
    } rows[] = {
        {"93.184.216.34:22", false, "default"},
        {"169.254.169.254:80", false, "floor"},
        {"10.0.0.1:443", false, "private"},
        {"203.0.113.7:8000", false, "denied"},
        {"93.184.216.34:443", true, "udp"},
        {"[2606:2800:220:1::1]:22", false, "default"},
        {"224.0.0.251:5353", true, "floor"},
    };
    struct egress_ns s;
    int fd =
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);

    egress_ns_seal(&s, plain);
    NEED_OK(nflog_bind(fd, EGRESS_NFLOG, &e));
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct nflog_packet got;
        struct sock_addr want;
        struct ip_addr to;
        uint8_t in[4096];
        size_t pos = 0;
        ssize_t n;

        if (rows[i].is_udp)
            NEED(is_refused(egress_ns_send(rows[i].to, NULL)));
        else
            NEED(is_refused(egress_ns_connect(rows[i].to, NULL)));
        NEED(poll(&p, 1, EGRESS_NS_MS) == 1);
        n = recv(fd, in, sizeof(in), 0);
        NEED(n > 0 && nflog_next(span_of(in, (size_t)n), &pos, &got));
        NEED_OK(sock_parse(rows[i].to, &want, &e));
        ip_from_sock(&want, &to);
        if (strcmp(got.why, rows[i].why) != 0)
            (void)fprintf(stderr, "%s: %s\n", rows[i].to, got.why);
        NEED(got.index == 1 && strcmp(got.why, rows[i].why) == 0);
        NEED(ip_eq(&got.to, &to) && got.to_port == sock_port(&want));
        NEED(got.protocol == (rows[i].is_udp ? IPPROTO_UDP : IPPROTO_TCP));
        NEED(got.uid == getuid() && got.from_port != 0);
        while (recv(fd, in, sizeof(in), 0) > 0)
            ;
    }
    (void)close(fd);
    egress_ns_done(&s);
}

/* A thousand refusals are a bounded number of records. */
static void told_at_a_rate(void)
{
    struct egress_ns s;
    unsigned n = 0;
    uint8_t in[4096];
    int fd =
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);

    egress_ns_seal(&s, plain);
    NEED_OK(nflog_bind(fd, EGRESS_NFLOG, &e));
    for (int i = 0; i < 1000; i++)
        NEED(is_refused(egress_ns_send("93.184.216.34:443", NULL)));
    while (recv(fd, in, sizeof(in), 0) > 0)
        n++;
    NEED(n >= NFT_LOG_BURST && n < 500);
    NEED(is_refused(egress_ns_connect("93.184.216.34:22", NULL))); /* another reason */
    NEED(recv(fd, in, sizeof(in), 0) > 0);
    (void)close(fd);
    egress_ns_done(&s);
}

BOTH(name_checked_ports_land_at_the_guard_wherever_they_go, ports_with_a_name_check)
BOTH(floor_private_denied_and_unpinned_are_refused_at_once, unpinned_and_floor)
BOTH(allowed_networks_land_at_the_guard, networks)
BOTH(a_pin_opens_its_address_and_port_and_nothing_else, pins)
BOTH(a_pin_that_ended_refuses_and_a_renewed_one_does_not, pins_end)
BOTH(what_is_neither_tcp_nor_dns_is_refused, other_protocols)
BOTH(dns_is_captured_to_any_address_and_answered_from_it, dns)
BOTH(programs_reach_each_other_but_not_the_guards_ports, own_loopback)
BOTH(an_established_connection_goes_on, established)
BOTH(without_a_sandbox_nothing_is_let_through, without_a_sandbox)
BOTH(without_a_guard_nobody_gets_the_packets, without_a_guard)
BOTH(connections_over_the_limit_are_refused, too_many_connections)
BOTH(replacing_keeps_pins_and_counters_and_dropping_does_not, replacing_keeps)
BOTH(a_thousand_networks_are_swapped_and_verified, a_thousand)
BOTH(rules_that_are_too_large_are_refused_in_words, too_large)
BOTH(default_allow_keeps_floor_private_and_denied, default_allow)
BOTH(marks_and_transparent_sockets_gain_nothing, privileges)
BOTH(a_failing_batch_says_what_failed_and_changes_nothing, failing_batch)
BOTH(another_programs_changes_are_noticed_named_and_repaired, monitor)
BOTH(a_refusal_is_told_with_its_reason, told)
BOTH(refusals_are_told_at_a_bounded_rate, told_at_a_rate)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_checked_ports_land_at_the_guard_wherever_they_go),
        cmocka_unit_test(floor_private_denied_and_unpinned_are_refused_at_once),
        cmocka_unit_test(allowed_networks_land_at_the_guard),
        cmocka_unit_test(a_pin_opens_its_address_and_port_and_nothing_else),
        cmocka_unit_test(a_pin_that_ended_refuses_and_a_renewed_one_does_not),
        cmocka_unit_test(what_is_neither_tcp_nor_dns_is_refused),
        cmocka_unit_test(dns_is_captured_to_any_address_and_answered_from_it),
        cmocka_unit_test(programs_reach_each_other_but_not_the_guards_ports),
        cmocka_unit_test(an_established_connection_goes_on),
        cmocka_unit_test(without_a_sandbox_nothing_is_let_through),
        cmocka_unit_test(without_a_guard_nobody_gets_the_packets),
        cmocka_unit_test(connections_over_the_limit_are_refused),
        cmocka_unit_test(replacing_keeps_pins_and_counters_and_dropping_does_not),
        cmocka_unit_test(a_thousand_networks_are_swapped_and_verified),
        cmocka_unit_test(rules_that_are_too_large_are_refused_in_words),
        cmocka_unit_test(default_allow_keeps_floor_private_and_denied),
        cmocka_unit_test(marks_and_transparent_sockets_gain_nothing),
        cmocka_unit_test(a_failing_batch_says_what_failed_and_changes_nothing),
        cmocka_unit_test(another_programs_changes_are_noticed_named_and_repaired),
        cmocka_unit_test(a_refusal_is_told_with_its_reason),
        cmocka_unit_test(refusals_are_told_at_a_bounded_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
