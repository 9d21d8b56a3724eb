/* SPDX-License-Identifier: MIT */
/*
 * The kernel's side of egress: a pin before its reply with a thousand sandboxes in one
 * table, a whole policy's swap, and memory. In a network namespace of its own; as an
 * ordinary user behind a user namespace.
 */
#include <linux/netlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agentd/egress/kernel/nft.h"
#include "agentd/egress/kernel/pin.h"
#include "common/mem.h"
#include "tests/support/own_ns.h"
#include "tests/support/samples.h"

enum {
    SANDBOXES = 1000,
    PINS = 10000,
    NETWORKS = 1000,
    SWAPS = 50,
};

static void need(bool ok, const char *what, const struct err *e)
{
    if (ok)
        return;
    (void)fprintf(stderr, "bench_nft: %s: %s\n", what, e != NULL ? e->msg : "");
    exit(1);
}

/* Bytes of a field of /proc/meminfo. */
static double meminfo(const char *field)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long kb = 0;

    need(f != NULL, "/proc/meminfo", NULL);
    while (fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            kb = strtoul(line + strlen(field), NULL, 10);
    (void)fclose(f);
    return (double)kb * 1024;
}

static struct policy *compile(unsigned n)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    static struct policy_faults faults;
    struct policy *p;
    int rc = buf_adds(&text,
                      "{\"version\":1,\"name\":\"bench\",\"allow\":[\"api.example.com\"");

    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = buf_addf(&text, ",\"n%u.example.com:8443\",\"203.%u.%u.0/24:%u\"", i,
                      i >> 8 & 255, i & 255, 1000 + i % 7);
    if (rc == 0)
        rc = buf_adds(&text, "]}");
    need(rc == 0, "memory", NULL);
    p = policy_compile(buf_span(&text), NULL, &faults);
    need(p != NULL, faults.at[0].text, NULL);
    return p;
}

static struct nft *open_nft(enum egress_tier tier)
{
    struct nft_base base = {.tier = tier, .guard_uid = tier == EGRESS_VETH ? 65534 : 0};
    struct err e = {0};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    struct nft *n;

    need(fd >= 0, "socket", NULL);
    n = nft_open(&fd, &e);
    need(n != NULL, "open", &e);
    need(nft_install(n, &base, &e) == 0, "install", &e);
    return n;
}

static void fill(struct nft_sandbox *s, uint32_t index, const struct policy *p)
{
    static char veth[SANDBOXES + 1][16];

    (void)snprintf(veth[index], sizeof(veth[index]), "v%u", index);
    *s = (struct nft_sandbox){
        .index = index,
        .name = "bench",
        .policy = p,
        .tcp_port = 8443,
        .udp_port = 8453,
        .bridge = "br0",
        .veth = veth[index],
        .mac = {2, 0, 0, 0, (uint8_t)(index >> 8), (uint8_t)index},
        .gateway_mac = {2, 0, 0, 0, 255, 255},
        .n_addr = 2,
        .addr = {{.family = AF_INET,
                  .bytes = {10, 9, (uint8_t)(index >> 8), (uint8_t)index}},
                 {.family = AF_INET6,
                  .bytes = {0xfd, [14] = (uint8_t)(index >> 8), (uint8_t)index}}},
    };
}

static int open_pins(const struct nft *n)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct err e = {0};

    need(fd >= 0, "socket", NULL);
    need(pin_tie(fd, nft_pin_mark(n), &e) == 0, "tie", &e);
    return fd;
}

static struct pin pin_of(unsigned i, unsigned k)
{
    struct pin p = {.port = 5432, .life_s = 60};

    p.addr =
        k % 2 == 0
            ? (struct ip_addr){.family = AF_INET,
                               .bytes = {93, (uint8_t)k, (uint8_t)(i >> 8), (uint8_t)i}}
            : (struct ip_addr){
                  .family = AF_INET6,
                  .bytes = {0x20, 1, (uint8_t)(i >> 8), (uint8_t)i, (uint8_t)k}};
    return p;
}

/* One answer with so many addresses, for a sandbox anywhere in the table. */
static void pins(const struct nft *n, unsigned sandboxes, unsigned addresses,
                 const char *name)
{
    static uint64_t took[PINS];
    int fd = open_pins(n);

    for (unsigned i = 0; i < PINS; i++) {
        uint32_t tag = nft_tag(n, 1 + i * 7919 % sandboxes);
        struct pin pin[8];
        int error = 0;
        uint64_t t;

        for (unsigned k = 0; k < addresses; k++)
            pin[k] = pin_of(i, k);
        t = samples_now();
        for (unsigned k = 0; k < addresses && error == 0; k++)
            error = pin_put(fd, tag, &pin[k]);
        took[i] = samples_now() - t;
        need(error == 0, strerror(error), NULL);
    }
    samples_print(name, took, PINS);
    (void)close(fd);
}

static void swaps(struct nft *n, struct nft_sandbox *s, const char *name)
{
    struct policy *p = compile(NETWORKS), *none = compile(0);
    uint64_t took[SWAPS];
    struct err e = {0};

    for (unsigned i = 0; i < SWAPS; i++) {
        uint64_t t;

        s->policy = none;
        need(nft_sandbox_set(n, s, &e) == 0, "set", &e);
        s->policy = p;
        t = samples_now();
        need(nft_sandbox_set(n, s, &e) == 0, "swap", &e);
        took[i] = samples_now() - t;
    }
    samples_print(name, took, SWAPS);
    s->policy = NULL;
    policy_unref(p);
    policy_unref(none);
}

int main(void)
{
    static struct nft_sandbox all[SANDBOXES];
    struct policy *p;
    struct nft *n;
    struct err e = {0};
    double before;
    uint64_t t;

    if (own_ns_enter(CLONE_NEWNET) < 0 || !own_ns_lo_up()) {
        (void)printf("left out: this kernel gives no network namespace here\n");
        return 0;
    }
    p = compile(0);
    n = open_nft(EGRESS_SEALED);
    fill(&all[0], 1, p);
    need(nft_sandbox_set(n, &all[0], &e) == 0, "set", &e);
    pins(n, 1, 1, "nft.pin.1_sandbox");
    swaps(n, &all[0], "nft.swap.1000_names_1000_networks");
    nft_close(n);

    before = meminfo("SUnreclaim:");
    n = open_nft(EGRESS_VETH);
    t = samples_now();
    for (uint32_t i = 0; i < SANDBOXES; i++) {
        fill(&all[i], i + 1, p);
        need(nft_sandbox_set(n, &all[i], &e) == 0, "set", &e);
    }
    t = samples_now() - t;
    (void)printf(
        "{\"name\":\"nft.add_sandbox\",\"unit\":\"us\",\"n\":%d,\"mean\":%.1f}\n",
        SANDBOXES, (double)t / 1000 / SANDBOXES);
    (void)printf("{\"name\":\"nft.memory.kernel\",\"unit\":\"KiB/sandbox\",\"n\":%d,"
                 "\"value\":%.1f}\n",
                 SANDBOXES, (meminfo("SUnreclaim:") - before) / 1024 / SANDBOXES);
    pins(n, SANDBOXES, 1, "nft.pin.1000_sandboxes");
    pins(n, SANDBOXES, 8, "nft.pin.1000_sandboxes.8_addresses");
    swaps(n, &all[SANDBOXES - 1], "nft.swap.1000_names_1000_networks.1000_sandboxes");
    nft_close(n);
    policy_unref(p);
    return 0;
}
