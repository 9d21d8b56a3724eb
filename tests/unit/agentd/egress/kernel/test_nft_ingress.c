/* SPDX-License-Identifier: MIT */
/*
 * The veth tier against real packets: a host with a bridge, two sandboxes on it, and an
 * outside that the host would forward to.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/wait.h>
#include <time.h>

#include "agentd/egress/kernel/nft_int.h"
#include "agentd/egress/kernel/rt.h"
#include "tests/support/egress_ns.h"
#include "tests/support/test.h"

enum {
    GUARD_UID = 991
};

static const char plain[] =
    "{\"version\":1,\"name\":\"t\",\"allow\":[\"api.example.com\","
    "\"10.1.0.0/16:8080\",\"2001:db8:5::/48:8080\"]}";

struct scene {
    int host, in[2], out; /* namespaces: the host's, the sandboxes', outside */
    struct egress_ns s;   /* the first sandbox */
    struct nft_sandbox second;
    struct nft_base base;
    struct ip_net own[8];
};

/* ip(8), to set the scene. */
static void ip(const char *words)
{
    char text[256], *arg[32] = {NULL}, *at = text;
    int status = -1, n = 0;
    pid_t pid;

    (void)snprintf(text, sizeof(text), "ip %s", words);
    for (char *w = strtok_r(text, " ", &at); w != NULL; w = strtok_r(NULL, " ", &at))
        arg[n++] = w;
    pid = fork();
    if (pid == 0) {
        (void)execvp("ip", arg);
        _exit(1);
    }
    NEED(pid > 0 && waitpid(pid, &status, 0) == pid);
    if (status != 0)
        (void)fprintf(stderr, "ip %s\n", words);
    NEED(status == 0);
}

static void set(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return; /* not built in */
    NEED(write(fd, value, strlen(value)) > 0);
    (void)close(fd);
}

static void enter(int ns)
{
    NEED(setns(ns, CLONE_NEWNET) == 0);
}

static int here(void)
{
    int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

    NEED(fd >= 0);
    return fd;
}

static int new_ns(void)
{
    NEED(unshare(CLONE_NEWNET) == 0);
    return here();
}

static void wire(const struct scene *w, int ns, const char *ours)
{
    char text[200];

    enter(w->host);
    (void)snprintf(text, sizeof(text),
                   "link add %s type veth peer name eth0 netns /proc/%d/fd/%d", ours,
                   getpid(), ns);
    ip(text);
    (void)snprintf(text, sizeof(text), "link set %s up", ours);
    ip(text);
}

static void inside(int ns, const char *ip4, const char *ip6, const char *mac)
{
    char text[200];

    enter(ns);
    ip("link set lo up");
    (void)snprintf(text, sizeof(text), "link set eth0 address %s up", mac);
    ip(text);
    (void)snprintf(text, sizeof(text), "addr add %s/24 dev eth0", ip4);
    ip(text);
    (void)snprintf(text, sizeof(text), "addr add %s/64 dev eth0 nodad", ip6);
    ip(text);
}

static void build_scene(struct scene *w)
{
    *w = (struct scene){.host = here()};
    w->in[0] = new_ns();
    w->in[1] = new_ns();
    w->out = new_ns();
    enter(w->host);
    ip("link set lo up");
    ip("link add br0 type bridge");
    ip("link set br0 address 02:00:00:00:00:fe up");
    ip("addr add 172.20.0.1/24 dev br0");
    ip("addr add fd20::1/64 dev br0 nodad");
    set("/proc/sys/net/ipv4/ip_forward", "1");
    set("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    set("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
    set("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
    set("/proc/sys/net/bridge/bridge-nf-call-arptables", "0");
    wire(w, w->in[0], "v1");
    wire(w, w->in[1], "v2");
    wire(w, w->out, "o1");
    ip("link set v1 master br0");
    ip("link set v2 master br0");
    ip("addr add 198.51.100.254/24 dev o1");
    ip("addr add 2001:db8:100::fe/64 dev o1 nodad");
    inside(w->in[0], "172.20.0.5", "fd20::5", "02:00:00:00:00:05");
    ip("route add default via 172.20.0.1");
    ip("route add default via fd20::1");
    inside(w->in[1], "172.20.0.6", "fd20::6", "02:00:00:00:00:06");
    ip("route add default via 172.20.0.1");
    inside(w->out, "198.51.100.1", "2001:db8:100::1", "02:00:00:00:01:01");
    ip("route add default via 198.51.100.254");
    ip("route add default via 2001:db8:100::fe");
    enter(w->host);
}

static void one_sandbox(struct nft_sandbox *s, uint32_t index, const char *veth,
                        uint8_t end)
{
    char text[32];

    *s = (struct nft_sandbox){.index = index,
                              .name = veth,
                              .bridge = "br0",
                              .veth = veth,
                              .mac = {2, 0, 0, 0, 0, end},
                              .gateway_mac = {2, 0, 0, 0, 0, 0xfe},
                              .n_addr = 2};
    (void)snprintf(text, sizeof(text), "172.20.0.%u", end);
    NEED(ip_parse(span_str(text), &s->addr[0]) == 0);
    (void)snprintf(text, sizeof(text), "fd20::%u", end);
    NEED(ip_parse(span_str(text), &s->addr[1]) == 0);
    NEED(ip_parse(span_str("172.20.0.1"), &s->gateway4) == 0);
}

static void start(struct scene *w)
{
    struct sock_addr may;
    int fd, n;

    build_scene(w);
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    w->s.rt = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    NEED_OK(n = rt_addrs(w->s.rt, 0, w->own, COUNT_OF(w->own), &e));
    for (int i = 0; i < n; i++)
        w->own[i].bits = ip_bits(w->own[i].addr.family);
    NEED_OK(sock_parse("172.20.0.1:5300", &may, &e));
    w->base = (struct nft_base){.tier = EGRESS_VETH,
                                .own = w->own,
                                .n_own = (size_t)n,
                                .guard_uid = GUARD_UID,
                                .guard_may = &may,
                                .n_guard_may = 1};
    NEED_OK((w->s.nft = nft_open(&fd, &e)) == NULL ? -1 : 0);
    NEED_OK(nft_install(w->s.nft, &w->base, &e));
    w->base.guard_may = NULL; /* it was on this stack */
    w->base.n_guard_may = 0;
    NEED_OK(rt_tproxy_set(w->s.rt, &e));
    one_sandbox(&w->s.sandbox, 1, "v1", 5);
    one_sandbox(&w->second, 2, "v2", 6);
    egress_ns_listen(w->s.tcp, w->s.udp, &w->s.sandbox.tcp_port, &w->s.sandbox.udp_port,
                     true);
    w->second.tcp_port = w->s.sandbox.tcp_port;
    w->second.udp_port = w->s.sandbox.udp_port;
    egress_ns_policy(&w->s, plain);
    w->second.policy = w->s.policy;
    NEED_OK(nft_sandbox_set(w->s.nft, &w->second, &e));
    enter(w->in[0]);
}

static int listen_in(int ns, const char *at)
{
    struct sock_addr a;
    int fd;

    enter(ns);
    NEED_OK(sock_parse(at, &a, &e));
    NEED_OK(fd = sock_listen(&a, &e));
    return fd;
}

static bool has_client(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

static void lands(void)
{
    struct scene w;
    char in[8];
    int fd, guard;
    struct pollfd p = {.events = POLLIN};

    start(&w);
    NEED(egress_ns_lands(&w.s, "93.184.216.34:443"));
    NEED(egress_ns_lands(&w.s, "[2606:2800:220:1::1]:443"));
    NEED(egress_ns_lands(&w.s, "8.8.8.8:53"));
    NEED(egress_ns_lands(&w.s, "172.20.0.1:53"));
    NEED(egress_ns_lands(&w.s, "10.1.2.3:8080"));
    NEED(egress_ns_connect("93.184.216.34:443", &fd) == 0);
    guard = egress_ns_accept(&w.s, "93.184.216.34:443");
    NEED(guard >= 0 && send(fd, "ping", 4, 0) == 4);
    p.fd = guard;
    NEED(poll(&p, 1, EGRESS_NS_MS) == 1 && recv(guard, in, sizeof(in), 0) == 4);
    NEED(send(guard, "pong", 4, 0) == 4);
    p.fd = fd;
    NEED(poll(&p, 1, EGRESS_NS_MS) == 1 && recv(fd, in, sizeof(in), 0) == 4);
    (void)close(fd);
    (void)close(guard);
    NEED(egress_ns_send("8.8.8.8:53", NULL) == 0);
    p.fd = w.s.udp[0];
    NEED(poll(&p, 1, EGRESS_NS_MS) == 1 && recv(p.fd, in, sizeof(in), 0) == 1);
    enter(w.host);
    {
        struct sock_addr may;
        struct nft_sandbox both[2] = {w.s.sandbox, w.second};

        NEED_OK(sock_parse("172.20.0.1:5300", &may, &e));
        w.base.guard_may = &may;
        w.base.n_guard_may = 1;
        NEED_OK(nft_verify(w.s.nft, &w.base, both, 2, &e));
        NEED_OK(nft_restore(w.s.nft, &w.base, both, 2, &e));
        NEED_OK(nft_verify(w.s.nft, &w.base, both, 2, &e));
    }
    enter(w.in[0]);
    NEED(egress_ns_lands(&w.s, "93.184.216.34:443"));
    egress_ns_done(&w.s);
}

/* Refused, and nothing of it arrives: at the host, at a sibling, outside. */
static void refuses(void)
{
    static const struct {
        const char *to;
        bool is_at_once;
    } rows[] = {
        {"198.51.100.1:22", true},      {"172.20.0.1:22", true},
        {"[2001:db8:100::1]:22", true}, {"169.254.169.254:80", true},
        {"10.0.0.1:443", true},         {"172.20.0.6:22", false},
    };
    struct scene w;
    int at[4];

    start(&w);
    at[0] = listen_in(w.out, "198.51.100.1:22");
    at[1] = listen_in(w.out, "[2001:db8:100::1]:22");
    at[2] = listen_in(w.host, "172.20.0.1:22");
    at[3] = listen_in(w.in[1], "172.20.0.6:22");
    enter(w.in[0]);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int error = egress_ns_connect(rows[i].to, NULL);

        if (error == 0 || (rows[i].is_at_once && error == ETIMEDOUT))
            (void)fprintf(stderr, "%s: %s\n", rows[i].to, strerror(error));
        NEED(error != 0 && !(rows[i].is_at_once && error == ETIMEDOUT));
    }
    (void)egress_ns_send("198.51.100.1:443", NULL); /* may be told, or too late to be */
    for (size_t i = 0; i < COUNT_OF(at); i++)
        NEED(!has_client(at[i]));
    egress_ns_done(&w.s);
}

/* A packet with any source, MAC and kind, past every rule of its own namespace. */
static void send_frame(const uint8_t *p, size_t len)
{
    struct sockaddr_ll a = {.sll_family = AF_PACKET,
                            .sll_halen = 6,
                            .sll_ifindex = (int)if_nametoindex("eth0")};
    int fd = socket(AF_PACKET, SOCK_RAW, 0);

    NEED(fd >= 0);
    memcpy(a.sll_addr, p, 6);
    NEED(sendto(fd, p, len, 0, (struct sockaddr *)&a, sizeof(a)) == (ssize_t)len);
    (void)close(fd);
}

struct forged {
    uint8_t to[6], from[6];
    uint8_t type[2];
    uint8_t ip[20];
    uint8_t udp[8];
    uint8_t body[4];
};

static void sum(struct forged *f)
{
    uint32_t s = 0;

    f->ip[10] = f->ip[11] = 0;
    for (int i = 0; i < 20; i += 2)
        s += (uint32_t)(f->ip[i] << 8 | f->ip[i + 1]);
    while (s >> 16 != 0)
        s = (s & 0xffff) + (s >> 16);
    s = ~s;
    f->ip[10] = (uint8_t)(s >> 8);
    f->ip[11] = (uint8_t)s;
}

/* A datagram from 172.20.0.5 to 198.51.100.9:53, as the sandbox could send it. */
static struct forged honest(void)
{
    return (struct forged){
        .to = {2, 0, 0, 0, 0, 0xfe},
        .from = {2, 0, 0, 0, 0, 5},
        .type = {8, 0},
        .ip = {0x45, 0, 0,   32, 0, 1, 0,   0,  64,  IPPROTO_UDP,
               0,    0, 172, 20, 0, 5, 198, 51, 100, 9},
        .udp = {0x30, 0x39, 0, 53, 0, 12, 0, 0},
    };
}

static bool arrives(const struct scene *w)
{
    struct pollfd p[2] = {{.fd = w->s.udp[0], .events = POLLIN},
                          {.fd = w->s.udp[1], .events = POLLIN}};
    uint8_t in[16];
    bool is_there = poll(p, 2, 100) > 0;

    for (int i = 0; i < 2; i++)
        while (recv(w->s.udp[i], in, sizeof(in), MSG_DONTWAIT) >= 0)
            ;
    return is_there;
}

static void spoofing(void)
{
    struct scene w;
    struct forged f;
    uint8_t tagged[sizeof(f) + 4];

    start(&w);
    f = honest();
    sum(&f);
    send_frame((uint8_t *)&f, sizeof(f));
    NEED(arrives(&w)); /* it is the forging that is refused, not the frame */
    f.ip[15] = 6;      /* a sibling's address */
    sum(&f);
    send_frame((uint8_t *)&f, sizeof(f));
    NEED(!arrives(&w));
    f = honest();
    f.from[5] = 6; /* a sibling's MAC */
    sum(&f);
    send_frame((uint8_t *)&f, sizeof(f));
    NEED(!arrives(&w));
    f = honest();
    f.to[5] = 6; /* to a sibling */
    sum(&f);
    send_frame((uint8_t *)&f, sizeof(f));
    NEED(!arrives(&w));
    f = honest();
    f.ip[6] = 0x20; /* more fragments */
    sum(&f);
    send_frame((uint8_t *)&f, sizeof(f));
    NEED(!arrives(&w));
    f = honest();
    f.ip[0] = 0x46; /* options */
    sum(&f);
    send_frame((uint8_t *)&f, sizeof(f));
    NEED(!arrives(&w));
    f = honest();
    sum(&f);
    memcpy(tagged, &f, 12);
    memcpy(tagged + 12, (uint8_t[]){0x81, 0, 0, 0}, 4);
    memcpy(tagged + 16, (uint8_t *)&f + 12, sizeof(f) - 12);
    send_frame(tagged, sizeof(tagged));
    NEED(!arrives(&w));
    /* An address that it gave itself. */
    ip("addr add 172.20.0.77/24 dev eth0");
    ip("route replace default via 172.20.0.1 src 172.20.0.77");
    NEED(egress_ns_send("8.8.8.8:53", NULL) == 0);
    NEED(!arrives(&w));
    egress_ns_done(&w.s);
}

/* Guard dead, routing rule gone: nothing is forwarded in its place. */
static void fails_closed(void)
{
    struct scene w;
    int out;

    start(&w);
    out = listen_in(w.out, "198.51.100.1:443");
    enter(w.in[0]);
    NEED(egress_ns_lands(&w.s, "198.51.100.1:443"));
    NEED_OK(rt_tproxy_drop(w.s.rt, &e));
    NEED(egress_ns_connect("198.51.100.1:443", NULL) != 0);
    NEED(!has_client(out));
    NEED_OK(rt_tproxy_set(w.s.rt, &e));
    NEED(egress_ns_lands(&w.s, "198.51.100.1:443"));
    for (int i = 0; i < 2; i++)
        sock_close(&w.s.tcp[i]);
    NEED(egress_ns_connect("198.51.100.1:443", NULL) != 0);
    NEED(!has_client(out));
    enter(w.host);
    NEED_OK(nft_sandbox_drop(w.s.nft, &w.s.sandbox, &e));
    enter(w.in[0]);
    /* The interface is the engine's again. */
    NEED(egress_ns_connect("198.51.100.1:443", NULL) == 0);
    NEED(has_client(out));
    egress_ns_done(&w.s);
}

/* Pins are a sandbox's own. */
static void apart(void)
{
    struct scene w;

    start(&w);
    enter(w.host);
    egress_ns_pin(w.s.nft, 2, "93.184.216.34:5432", 60);
    enter(w.in[0]);
    NEED(egress_ns_connect("93.184.216.34:5432", NULL) == ECONNREFUSED);
    enter(w.in[1]);
    NEED(egress_ns_lands(&w.s, "93.184.216.34:5432"));
    enter(w.host);
    NEED_OK(nft_sandbox_drop(w.s.nft, &w.s.sandbox, &e));
    enter(w.in[1]);
    NEED(egress_ns_lands(&w.s, "93.184.216.34:5432"));
    egress_ns_done(&w.s);
}

static int as_guard(const char *to)
{
    int status = -1;
    pid_t pid = fork();

    NEED(pid >= 0);
    if (pid == 0) {
        NEED(setresuid(GUARD_UID, GUARD_UID, GUARD_UID) == 0);
        _exit(egress_ns_connect(to, NULL));
    }
    NEED(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int udp_at(const char *at, bool is_transparent)
{
    int fd, on = 1;
    struct sock_addr a;

    NEED_OK(sock_parse(at, &a, &e));
    (void)setfsuid(GUARD_UID); /* whose it is */
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)setfsuid(geteuid());
    NEED(fd >= 0);
    NEED(!is_transparent ||
         setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on) == 0);
    NEED(bind(fd, &a.u.sa, a.len) == 0);
    return fd;
}

static int sent(int fd, const char *to)
{
    struct sock_addr a;

    NEED_OK(sock_parse(to, &a, &e));
    return sendto(fd, "x", 1, 0, &a.u.sa, a.len) == 1 ? 0 : errno;
}

/* The guard's sockets of any source: one makes an answer of what another sends. */
static void answers_only(void)
{
    static const char host[] = "172.20.0.1:7000", world[] = "198.51.100.1:7001";
    int own, forged;
    struct scene w;

    start(&w);
    enter(w.host);
    own = udp_at(host, false);
    forged = udp_at(world, true);
    NEED(sent(own, world) == 0);
    NEED(sent(forged, host) == EPERM);
    NEED(sent(forged, "198.51.100.1:9") == EPERM); /* nor anywhere else */
    NEED(sent(own, "198.51.100.1:9") == 0);
    (void)close(own);
    (void)close(forged);
    egress_ns_done(&w.s);
}

static void guards_floor(void)
{
    struct scene w;

    start(&w);
    (void)listen_in(w.host, "172.20.0.1:22"); /* until the child ends */
    (void)listen_in(w.host, "172.20.0.1:5300");
    (void)listen_in(w.out, "198.51.100.1:443");
    enter(w.host);
    NEED(as_guard("198.51.100.1:443") == 0);
    NEED(as_guard("172.20.0.1:5300") == 0); /* a resolver that was named */
    NEED(as_guard("172.20.0.1:22") == EHOSTUNREACH);
    NEED(as_guard("127.0.0.1:22") == EHOSTUNREACH);
    NEED(as_guard("172.20.0.5:22") == EHOSTUNREACH); /* a sandbox */
    ip("addr add 10.1.0.9/32 dev lo");
    ip("addr add 10.2.0.9/32 dev lo");
    NEED(as_guard("10.1.0.9:8080") == ECONNREFUSED); /* allowed; nobody listens */
    NEED(as_guard("10.1.0.9:8081") == EHOSTUNREACH);
    NEED(as_guard("10.2.0.9:8080") == EHOSTUNREACH);
    NEED(egress_ns_connect("172.20.0.1:22", NULL) == 0); /* others are let alone */
    /* Allowed by no policy any more. */
    egress_ns_policy(&w.s, "{\"version\":1,\"name\":\"t\",\"allow\":[]}");
    NEED(as_guard("10.1.0.9:8080") == ECONNREFUSED); /* the second sandbox's still */
    NEED_OK(nft_sandbox_drop(w.s.nft, &w.second, &e));
    NEED(as_guard("10.1.0.9:8080") == EHOSTUNREACH);
    egress_ns_done(&w.s);
}

BOTH(connections_land_at_the_guard_on_the_host, lands)
BOTH(refused_packets_arrive_nowhere, refuses)
BOTH(what_is_not_its_own_does_not_come_in, spoofing)
BOTH(a_missing_guard_or_routing_rule_forwards_nothing, fails_closed)
BOTH(a_pin_is_one_sandboxs, apart)

static void the_guards_sockets_of_any_source_only_answer_sandboxes(void **state)
{
    UNUSED_ARG(state);
    if (geteuid() != 0) {
        (void)printf("left out: another uid takes root\n");
        skip();
    }
    egress_ns_run(answers_only, false);
}
static void the_guards_own_sockets_keep_to_the_floor(void **state)
{
    UNUSED_ARG(state);
    if (geteuid() != 0) {
        (void)printf("left out: another uid takes root\n");
        skip();
    }
    egress_ns_run(guards_floor, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_land_at_the_guard_on_the_host),
        cmocka_unit_test(refused_packets_arrive_nowhere),
        cmocka_unit_test(what_is_not_its_own_does_not_come_in),
        cmocka_unit_test(a_missing_guard_or_routing_rule_forwards_nothing),
        cmocka_unit_test(a_pin_is_one_sandboxs),
        cmocka_unit_test(the_guards_own_sockets_keep_to_the_floor),
        cmocka_unit_test(the_guards_sockets_of_any_source_only_answer_sandboxes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
