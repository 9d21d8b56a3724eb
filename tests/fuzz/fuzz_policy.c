/* SPDX-License-Identifier: MIT */
/* Any bytes as a policy in any of its forms. What is taken prints to a text that
 * compiles, without an outside, to a policy that prints the same and decides the same;
 * with an allocation failing it is refused without a trace. */
#include <stdlib.h>

#include "agentd/egress/policy/decision.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* A file that is extended is another policy, whose name is its text. */
static int read_file(void *arg, const char *path, struct buf *ret, struct err *e)
{
    (void)arg;
    if (buf_addf(ret, "{\"version\": 1, \"allow\": [\"%.60s\"], \"extends\": \"a/%.9s\"}",
                 path, path) < 0)
        return err_set(e, ERR_NOMEM, "no memory");
    return 0;
}

static int read_lines(void *arg, struct buf *ret, struct err *e)
{
    (void)arg;
    if (buf_adds(ret, "10.0.0.0/8\nfd00::/8\n") < 0)
        return err_set(e, ERR_NOMEM, "no memory");
    return 0;
}

static int read_registries(void *arg, struct buf *ret, struct err *e)
{
    (void)arg;
    if (buf_adds(ret, "packages.example.net:443\n192.0.2.1:80\n") < 0)
        return err_set(e, ERR_NOMEM, "no memory");
    return 0;
}

static const struct policy_reader outside = {read_file, read_registries, read_lines,
                                             NULL};
static struct policy_faults faults;

static void check_faults(void)
{
    bool has_error = false;

    for (size_t i = 0; i < faults.n; i++) {
        has_error |= !faults.at[i].is_warning;
        if (faults.at[i].text[0] == '\0' ||
            memchr(faults.at[i].text, '\0', sizeof faults.at[i].text) == NULL)
            abort();
    }
    if (has_error != faults.has_error)
        abort();
}

static void compare(const struct policy *a, const struct policy *b,
                    const struct target *t)
{
    struct verdict va, vb;
    uint16_t pa[8], pb[8];

    decide(a, NULL, t, 1800000000, &va);
    decide(b, NULL, t, 1800000000, &vb);
    if (va.allowed != vb.allowed || strcmp(va.text, vb.text) != 0)
        abort();
    if (va.allowed && va.stage == VERDICT_FLOOR)
        abort();
    if (t->name && decide_ports(a, t->name, 1800000000, pa, 8) !=
                       decide_ports(b, t->name, 1800000000, pb, 8))
        abort();
}

/* Each rule's own name or network, and what is beside it. */
static void compare_all(const struct policy *a, const struct policy *b)
{
    const struct policy_rule *rule;
    char name[HOST_MAX + 8];
    size_t n;

    rule = policy_rules(a, &n);
    for (size_t i = 0; i < n && i < 64; i++) {
        struct target t = {.port = rule[i].ports[0].first, .protocol = IPPROTO_TCP};

        if (rule[i].is_net) {
            t.addr = rule[i].net.addr;
        } else {
            memcpy(name, "a.", 2);
            memcpy(name + 2, rule[i].name, strlen(rule[i].name) + 1);
            t.name = rule[i].is_wildcard ? name : name + 2;
        }
        compare(a, b, &t);
        t.port = 0;
        compare(a, b, &t);
        t.addr = (struct ip_addr){AF_INET, {10, 0, 0, 1}};
        compare(a, b, &t);
    }
}

static void check(struct span text)
{
    struct policy *a = policy_compile(text, &outside, &faults), *b;
    struct buf pa = BUF_INIT, pb = BUF_INIT;

    check_faults();
    if ((a == NULL) != faults.has_error)
        abort();
    if (!a)
        return;
    if (policy_print(a, &pa) < 0)
        abort();
    b = policy_compile(buf_span(&pa), NULL, &faults);
    if (!b || policy_print(b, &pb) < 0 || !span_eq(buf_span(&pa), buf_span(&pb)) ||
        strcmp(policy_hash(a), policy_hash(b)) != 0)
        abort();
    compare_all(a, b);
    policy_unref(a);
    policy_unref(b);
    buf_done(&pa);
    buf_done(&pb);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    size_t live = mem_live();

    if (n == 0)
        return 0;
    check(span_of(p + 1, n - 1));
    if (p[0] & 1) {
        struct policy *policy;

        mem_fault_at(p[0]);
        policy = policy_compile(span_of(p + 1, n - 1), &outside, &faults);
        mem_fault_at(0);
        check_faults();
        policy_unref(policy);
    }
    if (mem_live() != live)
        abort();
    return 0;
}
