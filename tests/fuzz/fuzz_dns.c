/* SPDX-License-Identifier: MIT */
/* First byte: what the rest is. An even one: a question, whose reply must be readable and
 * within its bounds. An odd one: an answer to a question for one of two names. */
#include <stdlib.h>
#include <string.h>

#include "agentd/egress/guard/dnsmsg.h"
#include "common/host.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* What comes back carries the question and nothing that dnsmsg itself would refuse. */
static void reply(const struct dns_question *q, struct span msg, uint8_t how)
{
    struct ip_addr addr[DNSMSG_ADDRS_MAX];
    struct dns_reply r = {.addr = addr,
                          .n = how % (DNSMSG_ADDRS_MAX + 1),
                          .ttl_s = 60,
                          .extended = how & 1 ? DNS_EDE_BLOCKED : DNS_EDE_NONE,
                          .text = how & 2 ? "deny rule 2 \"*.evil.example\"" : NULL};
    struct dns_answer a;
    uint8_t out[DNSMSG_REPLY_MAX];
    size_t len;

    memset(addr, 0, sizeof(addr));
    for (size_t i = 0; i < DNSMSG_ADDRS_MAX; i++)
        addr[i].family = q->type == DNS_A ? AF_INET : AF_INET6;
    len = dnsmsg_reply(q, &r, q->udp_size, out);
    MUST(len >= 12 && len <= q->udp_size && q->udp_size <= DNSMSG_UDP_MAX);
    MUST(memcmp(out, msg.p, 2) == 0);
    if (q->has_question)
        MUST(memcmp(out + 12, q->wire, q->wire_len) == 0);
    if (!q->is_host || q->class != 1 || (q->type != DNS_A && q->type != DNS_AAAA))
        return;
    if (out[2] & 2)
        return; /* cut, which an answer from upstream must not be */
    MUST(dnsmsg_parse_answer(span_of(out, len), q->id, q->text, q->type, &a) == 0);
    MUST(a.n == r.n && a.rcode == DNS_NOERROR);
}

static void question(struct span msg, uint8_t how)
{
    struct dns_question q;
    enum dnsmsg_result rc = dnsmsg_parse_question(msg, &q);
    char again[HOST_MAX + 1];

    if (rc == DNSMSG_SILENT)
        return;
    MUST(strlen(q.text) < DNSMSG_TEXT_MAX && q.wire_len <= DNSMSG_WIRE_MAX);
    if (q.is_host)
        MUST(host_name_parse(span_str(q.text), again) == 0 && strcmp(again, q.text) == 0);
    reply(&q, msg, how);
}

static void answer(struct span msg, uint8_t how)
{
    const char *name = how & 2 ? "www.example.com" : "a";
    struct dns_answer a;

    if (dnsmsg_parse_answer(msg, -1, name, how & 4 ? DNS_A : DNS_AAAA, &a) < 0)
        return;
    MUST(a.n <= DNSMSG_ADDRS_MAX && a.n <= a.n_seen);
    MUST(a.ttl_s <= 0x7fffffffu);
    for (size_t i = 0; i < a.n; i++)
        MUST(a.addr[i].family == (how & 4 ? AF_INET : AF_INET6));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (n == 0)
        return 0;
    if (p[0] & 1)
        answer(span_of(p + 1, n - 1), p[0]);
    else
        question(span_of(p + 1, n - 1), p[0] >> 1);
    return 0;
}
