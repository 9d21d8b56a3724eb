/* SPDX-License-Identifier: MIT */
/*
 * The tables as a whole: as nft(8) prints them they are what docs/EGRESS.md shows
 * (`test_nft_table sealed` and `... veth` print them anew), and building them survives
 * every allocation that fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/wait.h>

#include "agentd/egress/kernel/nft_int.h"
#include "common/buf.h"
#include "tests/support/egress_ns.h"
#include "tests/support/policy_text.h"
#include "tests/support/test.h"

#define DOCUMENT "docs/EGRESS.md"

static const char shown[] =
    "{\"version\":1,\"name\":\"demo\",\"allow\":[\"api.example.com\",\"db.example.com:"
    "5432\","
    "\"203.0.113.0/24:443\",\"10.1.0.0/16:8000-8080\"],\"deny\":[\"203.0.113.7:443\"],"
    "\"limits\":{\"connections\":100,\"bytes\":1000000000}}";

static void sandbox(struct nft_sandbox *s, const struct policy *p)
{
    *s = (struct nft_sandbox){
        .index = 1,
        .name = "demo",
        .policy = p,
        .tcp_port = 8443,
        .udp_port = 8453,
        .bridge = "br0",
        .veth = "veth7",
        .mac = {2, 0x42, 0xac, 0x14, 0, 5},
        .gateway_mac = {2, 0x42, 0x7c, 0x10, 0, 1},
        .n_addr = 2,
    };
    NEED(ip_parse(span_str("172.20.0.5"), &s->addr[0]) == 0);
    NEED(ip_parse(span_str("fd20::5"), &s->addr[1]) == 0);
    NEED(ip_parse(span_str("172.20.0.1"), &s->gateway4) == 0);
}

static void base_of(enum egress_tier tier, struct nft_base *base)
{
    static struct ip_net own;
    static struct sock_addr may;

    *base = (struct nft_base){.tier = tier};
    if (tier == EGRESS_SEALED)
        return;
    NEED(ip_net_parse(span_str("172.20.0.1"), &own) == 0);
    NEED_OK(sock_parse("10.0.0.53:53", &may, &e));
    base->own = &own;
    base->n_own = 1;
    base->guard_uid = 991;
    base->guard_may = &may;
    base->n_guard_may = 1;
}

/* What nft(8) says of our tables; NULL: it is not here. */
static void list(struct buf *out)
{
    static const char *const path[] = {"/usr/sbin/nft", "/sbin/nft"};
    int fd[2], status;
    uint8_t in[4096];
    ssize_t n;
    pid_t pid;

    NEED(pipe2(fd, O_CLOEXEC) == 0);
    pid = fork();
    if (pid == 0) {
        (void)dup2(fd[1], STDOUT_FILENO);
        for (size_t i = 0; i < COUNT_OF(path); i++)
            (void)execl(path[i], "nft", "list", "ruleset", (char *)NULL);
        _exit(1);
    }
    (void)close(fd[1]);
    while ((n = read(fd[0], in, sizeof(in))) > 0)
        NEED(buf_add(out, in, (size_t)n) == 0);
    (void)close(fd[0]);
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
}

static void print_tier(enum egress_tier tier, struct buf *out)
{
    struct policy *p = policy_text(shown);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    struct nft_sandbox s;
    struct nft_base base;
    struct nft *n;

    sandbox(&s, p);
    base_of(tier, &base);
    NEED_OK((n = nft_open(&fd, &e)) == NULL ? -1 : 0);
    nft_pin_mark_set(n, NFT_PIN_MARK);
    NEED_OK(nft_install(n, &base, &e));
    NEED_OK(nft_sandbox_set(n, &s, &e));
    NEED_OK(nft_verify(n, &base, &s, 1, &e));
    list(out);
    nft_close(n);
    policy_unref(p);
}

static void read_document(struct buf *ret)
{
    FILE *f = fopen(DOCUMENT, "re");
    uint8_t in[4096];
    size_t n;

    NEED(f != NULL);
    while ((n = fread(in, 1, sizeof(in), f)) > 0)
        NEED(buf_add(ret, in, n) == 0);
    NEED(buf_add(ret, "", 1) == 0);
    (void)fclose(f);
}

static void compare(enum egress_tier tier)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    AUTO(buf_done)
    struct buf doc = BUF_INIT;

    print_tier(tier, &text);
    NEED(buf_add(&text, "", 1) == 0);
    read_document(&doc);
    if (strstr((const char *)doc.p, (const char *)text.p) == NULL)
        (void)fprintf(stderr, "%s does not show these rules:\n%s", DOCUMENT, text.p);
    NEED(text.len > 4096 && strstr((const char *)doc.p, (const char *)text.p) != NULL);
}

static void compare_sealed(void)
{
    compare(EGRESS_SEALED);
}

static void compare_veth(void)
{
    compare(EGRESS_VETH);
}

static void the_document_shows_the_rules_as_they_are(void **state)
{
    UNUSED_ARG(state);
    if (access("/usr/sbin/nft", X_OK) < 0) {
        (void)printf("left out: there is no nft(8) to look with\n");
        skip();
    }
    egress_ns_run(compare_sealed, false);
    egress_ns_run(compare_veth, false);
}

/* -- allocations --------------------------------------------------------------------- */

static int build_all(enum egress_tier tier, const struct policy *p)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct nft_judge j = {.tier = tier, .tag = 1};
    struct nft_sandbox s;
    struct nft_base base;
    struct nft_batch b;
    struct nft_plan plan;
    int rc;

    sandbox(&s, p);
    base_of(tier, &base);
    batch_init(&b, EGRESS_NFT, 1);
    batch_begin(&b);
    rules_base(&b, &base);
    rc = plan_make(&plan, p);
    if (rc == 0) {
        rules_sandbox(&b, &s, &plan, &j);
        plan_done(&plan);
        batch_end(&b);
        rc = link_expected(&b, &text, NULL);
    }
    batch_done(&b);
    return rc;
}

static void building_survives_each_allocation_that_fails(void **state)
{
    struct policy *p = policy_text(shown);

    UNUSED_ARG(state);
    FAIL_EACH_ALLOC(build_all(EGRESS_SEALED, p));
    FAIL_EACH_ALLOC(build_all(EGRESS_VETH, p));
    policy_unref(p);
}

/* With each allocation failing, the old rules are in force and verify, or the new ones
 * are. */
static void failing(void)
{
    struct nft_base base = {.tier = EGRESS_SEALED};
    struct egress_ns s;
    struct policy *p = policy_text(shown);
    const struct policy *old;
    unsigned k = 0;
    int rc = -1;

    egress_ns_seal(&s, "{\"version\":1,\"name\":\"t\",\"allow\":[\"10.1.0.0/16:9\"]}");
    old = s.policy;
    s.sandbox.policy = p;
    while (rc < 0) {
        struct err why = {0};

        mem_fault_at(++k);
        rc = nft_sandbox_set(s.nft, &s.sandbox, &why);
        mem_fault_at(0);
        NEED(rc == 0 || why.code == ERR_NOMEM);
        s.sandbox.policy = rc == 0 ? p : old;
        NEED_OK(nft_verify(s.nft, &base, &s.sandbox, 1, &e));
        s.sandbox.policy = p;
    }
    NEED(k > 3);
    for (k = 1, rc = -1; rc < 0; k++) {
        mem_fault_at(k);
        rc = nft_restore(s.nft, &base, &s.sandbox, 1, NULL);
        mem_fault_at(0);
        NEED_OK(nft_verify(s.nft, &base, &s.sandbox, 1, &e));
    }
    policy_unref(p);
    egress_ns_done(&s);
}

static void a_change_without_memory_changes_nothing(void **state)
{
    UNUSED_ARG(state);
    egress_ns_run(failing, false);
}

/* The rules' generation is as before. */
static void wished(void)
{
    struct nft_base base = {.tier = EGRESS_SEALED};
    struct egress_ns s;
    struct policy *p = policy_text(shown);
    const struct policy *old;
    struct nft_sandbox two[2];
    struct err why = {0};

    egress_ns_seal(&s, "{\"version\":1,\"name\":\"t\",\"allow\":[\"10.1.0.0/16:9\"]}");
    NEED_OK(nft_verify(s.nft, &base, &s.sandbox, 1, &e));
    two[0] = two[1] = s.sandbox;
    two[0].policy = p;
    two[1].index++; /* of which a sealed namespace has one */
    NEED(nft_restore(s.nft, &base, two, 2, NULL) < 0);
    NEED(nft_verify(s.nft, &base, two, 1, &why) < 0 && why.code == ERR_DENIED);
    NEED_OK(nft_verify(s.nft, &base, &s.sandbox, 1, &e));
    old = s.sandbox.policy;
    s.sandbox.policy = p;
    mem_fault_at(4);
    NEED(nft_sandbox_set(s.nft, &s.sandbox, NULL) < 0);
    mem_fault_at(0);
    NEED(nft_verify(s.nft, &base, &s.sandbox, 1, &why) < 0 && why.code == ERR_DENIED);
    s.sandbox.policy = old;
    NEED_OK(nft_verify(s.nft, &base, &s.sandbox, 1, &e));
    policy_unref(p);
    egress_ns_done(&s);
}

static void what_was_wished_in_vain_does_not_verify(void **state)
{
    UNUSED_ARG(state);
    egress_ns_run(wished, false);
}

/* -- comparing lines ----------------------------------------------------------------- */

static void differences_are_named(void **state)
{
    static const struct {
        const char *want, *have, *diff; /* NULL: none */
    } rows[] = {
        {"", "", NULL},
        {"set a\tx\nset b\ty\n", "set b\ty\nset a\tx\n", NULL},
        {"set a\tx\nset a\tx\n", "set a\tx\n", NULL},
        {"rule a\t1\nrule a\t2\n", "rule a\t1\nrule a\t2\n", NULL},
        {"rule a\t1\nrule a\t2\n", "rule a\t2\nrule a\t1\n", "rule a is another"},
        {"rule a\t1\nrule a\t1\n", "rule a\t1\n", "rule a is gone"},
        {"rule a\t1\n", "rule a\t1\nrule a\t1\n", "rule a was added"},
        {"set a\tx\n", "set a\ty\n", "set a is another"},
        {"set a\tx\n", "", "set a is gone"},
        {"", "chain z\t\n", "chain z was added"},
    };

    UNUSED_ARG(state);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        AUTO(buf_done)
        struct buf want = BUF_INIT;
        AUTO(buf_done)
        struct buf have = BUF_INIT;
        char diff[64] = "";

        assert_int_equal(buf_adds(&want, rows[i].want), 0);
        assert_int_equal(buf_adds(&have, rows[i].have), 0);
        assert_int_equal(lines_diff(&want, &have, diff, sizeof(diff)),
                         rows[i].diff != NULL);
        assert_string_equal(diff, rows[i].diff != NULL ? rows[i].diff : "");
    }
}

static void print_sealed(void)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;

    print_tier(EGRESS_SEALED, &text);
    (void)fwrite(text.p, 1, text.len, stdout);
}

static void print_veth(void)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;

    print_tier(EGRESS_VETH, &text);
    (void)fwrite(text.p, 1, text.len, stdout);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_document_shows_the_rules_as_they_are),
        cmocka_unit_test(building_survives_each_allocation_that_fails),
        cmocka_unit_test(a_change_without_memory_changes_nothing),
        cmocka_unit_test(what_was_wished_in_vain_does_not_verify),
        cmocka_unit_test(differences_are_named),
    };

    if (argc > 1) {
        egress_ns_run(strcmp(argv[1], "veth") == 0 ? print_veth : print_sealed, false);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
