/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/dnsmsg.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/host.h"
#include "tests/support/test.h"

/* Bytes as a C string with NULs: the length without the one at the end. */
#define LIT(s)    s, sizeof(s) - 1
#define SPAN(s)   span_of(s, sizeof(s) - 1)
#define HEAD      "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
#define HEAD_OPT  "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
#define NAME      "\3wWw\7Example\3com\0"
#define ASK_A     NAME "\0\1\0\1"
#define OPT(size) "\0\0\x29" size "\0\0\0\0\0\0"

/* -- questions ----------------------------------------------------------------------- */

static void a_question_is_read_with_its_letters_kept(void **state)
{
    struct dns_question q;

    (void)state;
    assert_int_equal(dnsmsg_parse_question(SPAN(HEAD ASK_A), &q), DNSMSG_OK);
    assert_int_equal(q.id, 0x1234);
    assert_true(q.wants_recursion && q.is_host && !q.has_edns && !q.wants_dnssec);
    assert_int_equal(q.udp_size, 512);
    assert_int_equal(q.type, DNS_A);
    assert_string_equal(q.text, "www.example.com");
    assert_memory_equal(q.wire, NAME, sizeof(NAME) - 1);
    assert_int_equal(q.wire_len, sizeof(NAME) - 1);
}

static void edns_gives_the_size_within_bounds(void **state)
{
    static const struct {
        const char *msg;
        size_t len;
        uint16_t size;
        bool dnssec;
    } row[] = {
        {LIT(HEAD_OPT ASK_A OPT("\x04\xd0")), 1232, false},
        {LIT(HEAD_OPT ASK_A OPT("\x10\x00")), 1232, false},
        {LIT(HEAD_OPT ASK_A OPT("\x00\x00")), 512, false},
        {LIT(HEAD_OPT ASK_A OPT("\x02\x58")), 600, false},
        {LIT(HEAD_OPT ASK_A "\0\0\x29\x04\xd0\0\0\x80\0\0\0"), 1232, true},
        /* a cookie */
        {LIT(HEAD_OPT ASK_A "\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08"
                            "abcdefgh"),
         1232, false},
    };
    struct dns_question q;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        assert_int_equal(dnsmsg_parse_question(span_of(row[i].msg, row[i].len), &q),
                         DNSMSG_OK);
        assert_true(q.has_edns);
        assert_int_equal(q.udp_size, row[i].size);
        assert_int_equal(q.wants_dnssec, row[i].dnssec);
    }
}

static void what_is_no_question_is_told_apart(void **state)
{
    static const struct {
        const char *rule, *msg;
        size_t len;
        enum dnsmsg_result want;
    } bad[] = {
        {"empty", LIT(""), DNSMSG_SILENT},
        {"shorter than a header", LIT("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00"),
         DNSMSG_SILENT},
        {"an answer", LIT("\x12\x34\x81\x00\x00\x01\0\0\0\0\0\0" ASK_A), DNSMSG_SILENT},
        {"opcode STATUS", LIT("\x12\x34\x11\x00\x00\x01\0\0\0\0\0\0" ASK_A),
         DNSMSG_NOTIMP},
        {"opcode UPDATE", LIT("\x12\x34\x28\x00\x00\x01\0\0\0\0\0\0" ASK_A),
         DNSMSG_NOTIMP},
        {"truncated flag", LIT("\x12\x34\x03\x00\x00\x01\0\0\0\0\0\0" ASK_A),
         DNSMSG_FORMERR},
        {"a code", LIT("\x12\x34\x01\x03\x00\x01\0\0\0\0\0\0" ASK_A), DNSMSG_FORMERR},
        {"no question", LIT("\x12\x34\x01\x00\x00\x00\0\0\0\0\0\0"), DNSMSG_FORMERR},
        {"two questions", LIT("\x12\x34\x01\x00\x00\x02\0\0\0\0\0\0" ASK_A ASK_A),
         DNSMSG_FORMERR},
        {"an answer record", LIT("\x12\x34\x01\x00\x00\x01\0\1\0\0\0\0" ASK_A),
         DNSMSG_FORMERR},
        {"an authority record", LIT("\x12\x34\x01\x00\x00\x01\0\0\0\1\0\0" ASK_A),
         DNSMSG_FORMERR},
        {"two additional records",
         LIT("\x12\x34\x01\x00\x00\x01\0\0\0\0\0\2" ASK_A OPT("\4\xd0") OPT("\4\xd0")),
         DNSMSG_FORMERR},
        {"an additional record that is not there", LIT(HEAD_OPT ASK_A), DNSMSG_FORMERR},
        {"an additional record that is no OPT",
         LIT(HEAD_OPT ASK_A "\0\0\1\0\1\0\0\0\0\0\0"), DNSMSG_FORMERR},
        {"an OPT of a name", LIT(HEAD_OPT ASK_A "\1a\0\0\x29\4\xd0\0\0\0\0\0\0"),
         DNSMSG_FORMERR},
        {"an OPT cut", LIT(HEAD_OPT ASK_A "\0\0\x29\4\xd0\0\0\0\0\0"), DNSMSG_FORMERR},
        {"an option longer than the OPT",
         LIT(HEAD_OPT ASK_A "\0\0\x29\4\xd0\0\0\0\0\0\4\0\x0a\0\x08"), DNSMSG_FORMERR},
        {"EDNS version 1", LIT(HEAD_OPT ASK_A "\0\0\x29\4\xd0\0\1\0\0\0\0"),
         DNSMSG_BADVERS},
        {"class CH", LIT(HEAD NAME "\0\1\0\3"), DNSMSG_REFUSED},
        {"class ANY", LIT(HEAD NAME "\0\1\0\xff"), DNSMSG_REFUSED},
        {"a byte behind", LIT(HEAD ASK_A "x"), DNSMSG_FORMERR},
        {"a byte behind the OPT", LIT(HEAD_OPT ASK_A OPT("\4\xd0") "x"), DNSMSG_FORMERR},
        {"the type cut", LIT(HEAD NAME "\0\1\0"), DNSMSG_FORMERR},
        {"the name cut", LIT(HEAD "\3www\7exam"), DNSMSG_FORMERR},
        {"the name without its end", LIT(HEAD "\3www"), DNSMSG_FORMERR},
        {"compression in a question", LIT(HEAD "\3www\xc0\x0c\0\1\0\1"), DNSMSG_FORMERR},
        {"a label of 64",
         LIT(HEAD "\x40"
                  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                  "aaaaaaaaaa\0\0\1\0\1"),
         DNSMSG_FORMERR},
        {"a label of an unknown kind", LIT(HEAD "\x80\0\0\1\0\1"), DNSMSG_FORMERR},
    };
    struct dns_question q;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        enum dnsmsg_result rc =
            dnsmsg_parse_question(span_of(bad[i].msg, bad[i].len), &q);

        if (rc != bad[i].want)
            fail_msg("%s: %s", bad[i].rule, dnsmsg_result_name(rc));
    }
}

static void a_name_that_no_policy_can_name_is_read_but_is_no_host(void **state)
{
    static const struct {
        const char *msg;
        size_t len;
        const char *text;
    } row[] = {
        {LIT(HEAD "\0\0\1\0\1"), "."},
        {LIT(HEAD "\4_tcp\1a\0\0\1\0\1"), "_tcp.a"},
        {LIT(HEAD "\3a.b\1c\0\0\1\0\1"), "a\\046b.c"},
        {LIT(HEAD "\3a\0b\1c\0\0\1\0\1"), "a\\000b.c"},
        {LIT(HEAD "\2a:\2"
                  "80\0\0\1\0\1"),
         "a:.80"},
        {LIT(HEAD "\1a\5"
                  "b:443\0\0\1\0\1"),
         "a.b:443"},
        {LIT(HEAD "\3"
                  "127\1"
                  "1\0\0\1\0\1"),
         "127.1"},
        {LIT(HEAD "\4\xc3\xbc\x22 \0\0\1\0\1"), "\\195\\188\\034\\032"},
        {LIT(HEAD "\2-a\1b\0\0\1\0\1"), "-a.b"},
        {LIT(HEAD "\4[::]\0\0\1\0\1"), "[::]"},
        {LIT(HEAD "\1\\\0\0\1\0\1"), "\\092"},
    };
    struct dns_question q;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        assert_int_equal(dnsmsg_parse_question(span_of(row[i].msg, row[i].len), &q),
                         DNSMSG_OK);
        assert_string_equal(q.text, row[i].text);
        if (q.is_host)
            fail_msg("%s passes as a host name", q.text);
    }
}

static void names_of_255_bytes_fit_and_of_256_do_not(void **state)
{
    uint8_t m[400] = HEAD;
    struct dns_question q;
    size_t n = 12;

    (void)state;
    for (int i = 0; i < 4; i++) {
        uint8_t len = i < 3 ? 63 : 61;

        m[n++] = len;
        memset(m + n, i == 1 ? 1 : 'A', len);
        n += len;
    }
    m[n++] = 0;
    assert_int_equal(n, 12 + 255);
    memcpy(m + n, "\0\1\0\1", 4);
    assert_int_equal(dnsmsg_parse_question(span_of(m, n + 4), &q), DNSMSG_OK);
    assert_int_equal(strlen(q.text), 63 + 1 + 63 * 4 + 1 + 63 + 1 + 61);
    assert_int_equal(q.wire_len, 255);
    m[12 + 3 * 64] = 62;
    m[n - 1] = 'a';
    m[n] = 0;
    memcpy(m + n + 1, "\0\1\0\1", 4);
    assert_int_equal(dnsmsg_parse_question(span_of(m, n + 5), &q), DNSMSG_FORMERR);
}

static void a_question_cut_anywhere_is_none(void **state)
{
    static const char whole[] = HEAD_OPT ASK_A "\0\0\x29\4\xd0\0\0\0\0\0\6\0\x0a\0\2ab";
    struct dns_question q;

    (void)state;
    assert_int_equal(dnsmsg_parse_question(SPAN(whole), &q), DNSMSG_OK);
    for (size_t n = 0; n < sizeof(whole) - 1; n++)
        assert_int_not_equal(dnsmsg_parse_question(span_of(whole, n), &q), DNSMSG_OK);
}

/* -- replies ------------------------------------------------------------------------- */

static struct dns_question ask(const char *msg, size_t len)
{
    struct dns_question q;

    (void)dnsmsg_parse_question(span_of(msg, len), &q);
    return q;
}

static void addresses_are_given_to_the_name_as_it_was_asked(void **state)
{
    static const char want[] = "\x12\x34\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00" ASK_A
                               "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
                               "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\2";
    struct dns_question q = ask(LIT(HEAD ASK_A));
    struct ip_addr addr[3];
    struct dns_reply r = {.addr = addr, .n = 3, .ttl_s = 60, .extended = DNS_EDE_NONE};
    uint8_t out[DNSMSG_REPLY_MAX];

    (void)state;
    assert_int_equal(ip_parse(span_str("192.0.2.1"), &addr[0]), 0);
    assert_int_equal(ip_parse(span_str("2001:db8::1"), &addr[1]), 0);
    assert_int_equal(ip_parse(span_str("192.0.2.2"), &addr[2]), 0);
    assert_int_equal(dnsmsg_reply(&q, &r, 512, out), sizeof(want) - 1);
    assert_memory_equal(out, want, sizeof(want) - 1);
}

static void a_refusal_says_why_to_who_speaks_edns(void **state)
{
    static const char want[] = "\x12\x34\x81\x83\x00\x01\x00\x00\x00\x00\x00\x01" ASK_A
                               "\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0f\0\x08\0\x0f"
                               "rule 2";
    struct dns_question q = ask(LIT(HEAD_OPT ASK_A OPT("\4\xd0")));
    struct dns_reply r = {
        .rcode = DNS_NXDOMAIN, .extended = DNS_EDE_BLOCKED, .text = "rule 2"};
    uint8_t out[DNSMSG_REPLY_MAX];

    (void)state;
    assert_int_equal(dnsmsg_reply(&q, &r, 1232, out), sizeof(want) - 1);
    assert_memory_equal(out, want, sizeof(want) - 1);
    q = ask(LIT(HEAD ASK_A)); /* no EDNS, no OPT */
    assert_int_equal(dnsmsg_reply(&q, &r, 512, out), sizeof(HEAD ASK_A) - 1);
    assert_int_equal(out[11], 0);
    assert_int_equal(out[3] & 0xf, DNS_NXDOMAIN);
}

static void what_does_not_fit_is_left_out_and_told(void **state)
{
    struct dns_question q = ask(LIT(HEAD_OPT ASK_A OPT("\2\0")));
    struct ip_addr addr[DNSMSG_ADDRS_MAX];
    struct dns_reply r = {.addr = addr, .n = DNSMSG_ADDRS_MAX, .extended = DNS_EDE_NONE};
    uint8_t out[DNSMSG_REPLY_MAX];
    char text[301];
    size_t n;

    (void)state;
    memset(addr, 0, sizeof(addr));
    for (size_t i = 0; i < DNSMSG_ADDRS_MAX; i++)
        addr[i].family = AF_INET6;
    q.type = DNS_AAAA;
    n = dnsmsg_reply(&q, &r, q.udp_size, out);
    assert_in_range(n, 400, 512);
    assert_int_equal(out[2] & 2, 2); /* TC */
    assert_int_equal(out[7], (512 - 12 - 21 - 11) / 28);
    n = dnsmsg_reply(&q, &r, DNSMSG_UDP_MAX, out); /* with EDNS all of them go */
    assert_in_range(n, 512, DNSMSG_UDP_MAX);
    assert_int_equal(out[2] & 2, 0);
    assert_int_equal(out[7], DNSMSG_ADDRS_MAX);
    /* text is cut without a word */
    memset(text, 'x', 300);
    text[300] = '\0';
    memset(q.wire, 1, 255);
    q.wire_len = 255;
    r = (struct dns_reply){
        .rcode = DNS_NXDOMAIN, .extended = DNS_EDE_BLOCKED, .text = text};
    assert_int_equal(dnsmsg_reply(&q, &r, 512, out), 512);
    assert_int_equal(out[2] & 2, 0);
}

static void faults_are_answered_with_their_codes(void **state)
{
    struct dns_question q = ask(LIT("\x12\x34\x29\x10\x00\x02\0\0\0\0\0\0junk"));
    struct dns_reply r = {.rcode = DNS_NOTIMP, .extended = DNS_EDE_NONE};
    uint8_t out[DNSMSG_REPLY_MAX];

    (void)state;
    assert_int_equal(dnsmsg_reply(&q, &r, 512, out), 12);
    assert_memory_equal(out, "\x12\x34\xa9\x94\0\0\0\0\0\0\0\0", 12);
    q = ask(LIT(HEAD_OPT ASK_A "\0\0\x29\4\xd0\0\1\0\0\0\0"));
    r.rcode = DNS_BADVERS;
    assert_int_equal(dnsmsg_reply(&q, &r, 512, out), sizeof(HEAD ASK_A) - 1 + 11);
    assert_int_equal(out[3] & 0xf, 0);
    assert_int_equal(out[sizeof(HEAD ASK_A) - 1 + 5], 1); /* the code's upper bits */
}

/* -- answers ------------------------------------------------------------------------- */

#define ANSWER(n)  "\x12\x34\x81\x80\x00\x01\0" n "\0\0\0\0" ASK_A
#define A(owner)   owner "\0\1\0\1\0\0\1\0\0\4"
#define Q          "\xc0\x0c"
#define TO(x, len) "\0\5\0\1\0\0\0\x20\0" len x

static int parse(const char *msg, size_t len, struct dns_answer *a)
{
    return dnsmsg_parse_answer(span_of(msg, len), 0x1234, "www.example.com", DNS_A, a);
}

static void an_answer_gives_addresses_and_the_least_lifetime(void **state)
{
    static const struct {
        const char *what, *msg;
        size_t len, n;
        uint32_t ttl_s;
        enum dns_rcode rcode;
    } good[] = {
        {"one", LIT(ANSWER("\1") A(Q) "\1\2\3\4"), 1, 256, DNS_NOERROR},
        {"two", LIT(ANSWER("\2") A(Q) "\1\2\3\4" A(Q) "\1\2\3\5"), 2, 256, DNS_NOERROR},
        {"its letters in another case",
         LIT("\x12\x34\x81\x80\x00\x01\0\1\0\0\0\0\3www\7exAmple\3COM\0\0\1\0\1" A(
             "\3WWW\7EXAMPLE\3com\0") "\1\2\3\4"),
         1, 256, DNS_NOERROR},
        {"by a CNAME", LIT(ANSWER("\2") Q TO("\1b\0", "\3") A("\1b\0") "\1\2\3\4"), 1, 32,
         DNS_NOERROR},
        {"the CNAME behind the address",
         LIT(ANSWER("\2") A("\1b\0") "\1\2\3\4" Q TO("\1b\0", "\3")), 1, 32, DNS_NOERROR},
        {"a pointer into a CNAME",
         LIT(ANSWER("\2") Q TO("\1b\xc0\x10", "\4") A("\xc0\x2d") "\1\2\3\4"), 1, 32,
         DNS_NOERROR},
        {"a CNAME to nothing", LIT(ANSWER("\1") Q TO("\1b\0", "\3")), 0, 0, DNS_NOERROR},
        {"an address of another name", LIT(ANSWER("\1") A("\1b\0") "\1\2\3\4"), 0, 0,
         DNS_NOERROR},
        {"an address at a name with a CNAME",
         LIT(ANSWER("\2") Q TO("\1b\0", "\3") A(Q) "\1\2\3\4"), 0, 0, DNS_NOERROR},
        {"another type", LIT(ANSWER("\1") Q "\0\x10\0\1\0\0\0\1\0\2\1x"), 0, 0,
         DNS_NOERROR},
        {"another family",
         LIT(ANSWER("\1") Q "\0\x1c\0\1\0\0\0\1\0\x10"
                            "0123456789abcdef"),
         0, 0, DNS_NOERROR},
        {"a lifetime over 2^31 is none",
         LIT(ANSWER("\1") Q "\0\1\0\1\x80\0\0\0\0\4\1\2\3\4"), 1, 0, DNS_NOERROR},
        {"no such name", LIT("\x12\x34\x81\x83\x00\x01\0\0\0\0\0\0" ASK_A), 0, 0,
         DNS_NXDOMAIN},
        {"no such name, with an address",
         LIT("\x12\x34\x81\x83\x00\x01\0\1\0\0\0\0" ASK_A A(Q) "\1\2\3\4"), 0, 0,
         DNS_NXDOMAIN},
        {"refused", LIT("\x12\x34\x81\x85\x00\x01\0\0\0\0\0\0" ASK_A), 0, 0, DNS_REFUSED},
        {"a SOA and an OPT",
         LIT("\x12\x34\x81\x80\x00\x01\0\0\0\1\0\1" ASK_A Q
             "\0\6\0\1\0\0\0\1\0\2xx" OPT("\4\xd0")),
         0, 0, DNS_NOERROR},
        {"the same CNAME twice",
         LIT(ANSWER("\3") Q TO("\1b\0", "\3") Q TO("\1B\0", "\3") A("\1b\0") "\1\2\3\4"),
         1, 32, DNS_NOERROR},
    };
    struct dns_answer a;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        if (parse(good[i].msg, good[i].len, &a) < 0)
            fail_msg("%s: refused", good[i].what);
        if (a.n != good[i].n || a.ttl_s != good[i].ttl_s || a.rcode != good[i].rcode)
            fail_msg("%s: n=%zu ttl=%u rcode=%u", good[i].what, a.n, a.ttl_s, a.rcode);
        if (a.n)
            assert_memory_equal(a.addr[0].bytes, "\1\2\3\4\0\0", 6);
        /* cut anywhere it is no answer */
        for (size_t n = 0; n < good[i].len; n++)
            if (parse(good[i].msg, n, &a) == 0)
                fail_msg("%s: taken although cut at %zu", good[i].what, n);
    }
}

static void broken_answers_are_refused(void **state)
{
    static const struct {
        const char *rule, *msg;
        size_t len;
    } bad[] = {
        {"another id", LIT("\x12\x35\x81\x80\x00\x01\0\1\0\0\0\0" ASK_A A(Q) "\1\2\3\4")},
        {"a question", LIT("\x12\x34\x01\x80\x00\x01\0\1\0\0\0\0" ASK_A A(Q) "\1\2\3\4")},
        {"truncated", LIT("\x12\x34\x83\x80\x00\x01\0\1\0\0\0\0" ASK_A A(Q) "\1\2\3\4")},
        {"another opcode",
         LIT("\x12\x34\x91\x80\x00\x01\0\1\0\0\0\0" ASK_A A(Q) "\1\2\3\4")},
        {"no question", LIT("\x12\x34\x81\x80\0\0\0\1\0\0\0\0" A("\1b\0") "\1\2\3\4")},
        {"two questions",
         LIT("\x12\x34\x81\x80\0\2\0\1\0\0\0\0" ASK_A ASK_A A(Q) "\1\2\3\4")},
        {"another name", LIT("\x12\x34\x81\x80\0\1\0\1\0\0\0\0\3wwx\7example\3com\0\0\1\0"
                             "\1" A(Q) "\1\2\3\4")},
        {"a longer name",
         LIT("\x12\x34\x81\x80\0\1\0\1\0\0\0\0\3www\7example\3com\1x\0\0\1\0\1" A(
             Q) "\1\2\3\4")},
        {"another type asked",
         LIT("\x12\x34\x81\x80\0\1\0\1\0\0\0\0" NAME "\0\x1c\0\1" A(Q) "\1\2\3\4")},
        {"another class asked",
         LIT("\x12\x34\x81\x80\0\1\0\1\0\0\0\0" NAME "\0\1\0\3" A(Q) "\1\2\3\4")},
        {"fewer records than told", LIT(ANSWER("\2") A(Q) "\1\2\3\4")},
        {"more bytes than told", LIT(ANSWER("\1") A(Q) "\1\2\3\4x")},
        {"an address of 3 bytes", LIT(ANSWER("\1") Q "\0\1\0\1\0\0\1\0\0\3\1\2\3")},
        {"an address of 5 bytes", LIT(ANSWER("\1") Q "\0\1\0\1\0\0\1\0\0\5\1\2\3\4\5")},
        {"IPv6 of 4 bytes", LIT(ANSWER("\1") Q "\0\x1c\0\1\0\0\1\0\0\4\1\2\3\4")},
        {"contents over the end", LIT(ANSWER("\1") Q "\0\1\0\1\0\0\1\0\xff\xff\1\2\3\4")},
        {"class CH", LIT(ANSWER("\1") Q "\0\1\0\3\0\0\1\0\0\4\1\2\3\4")},
        {"a pointer to itself", LIT(ANSWER("\1") A("\xc0\x21") "\1\2\3\4")},
        {"a pointer forwards", LIT(ANSWER("\1") A("\xc0\x22") "\1\2\3\4")},
        {"a pointer far forwards", LIT(ANSWER("\1") A("\xff\xff") "\1\2\3\4")},
        {"a pointer into the header", LIT(ANSWER("\1") A("\xc0\x0b") "\1\2\3\4")},
        {"two pointers in a circle", LIT(ANSWER("\1") Q TO("\1b\xc0\x2f\xc0\x2d", "\6"))},
        {"a label that points back at itself",
         LIT(ANSWER("\1") A("\1b\xc0\x21") "\1\2\3\4")},
        {"a pointer cut", LIT(ANSWER("\1") "\xc0")},
        {"a CNAME that is no name", LIT(ANSWER("\1") Q TO("\1b", "\2"))},
        {"a CNAME with bytes behind it", LIT(ANSWER("\1") Q TO("\1b\0x", "\4"))},
        {"a CNAME to itself", LIT(ANSWER("\1") Q TO(Q, "\2"))},
        {"CNAMEs in a circle", LIT(ANSWER("\2") Q TO("\1b\0", "\3") "\1b\0" TO(Q, "\2"))},
        {"a fork",
         LIT(ANSWER("\3") Q TO("\1b\0", "\3") Q TO("\1c\0", "\3") A("\1c\0") "\1\2\3\4")},
        {"a broken additional record",
         LIT("\x12\x34\x81\x80\0\1\0\0\0\0\0\1" ASK_A "\xc0\xff\0\1")},
    };
    struct dns_answer a;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (parse(bad[i].msg, bad[i].len, &a) == 0)
            fail_msg("taken: %s", bad[i].rule);
    /* all that was wrong with the first was its id */
    assert_int_equal(dnsmsg_parse_answer(span_of(bad[0].msg, bad[0].len), -1,
                                         "www.example.com", DNS_A, &a),
                     0);
    assert_int_equal(dnsmsg_parse_answer(span_of(bad[0].msg, bad[0].len), -1,
                                         "www.example.com", 16, &a),
                     -1);
}

/* An answer with a chain of n CNAMEs, b0 -> b1 -> ..., and an address at its end. */
static size_t chain(uint8_t *m, unsigned n)
{
    size_t len = sizeof(ANSWER("\0")) - 1;

    memcpy(m, ANSWER("\0"), len);
    m[7] = (uint8_t)(n + 1);
    for (unsigned i = 0; i < n; i++) {
        if (i == 0) {
            memcpy(m + len, Q, 2);
            len += 2;
        } else {
            memcpy(m + len, "\2b0\0", 4);
            m[len + 2] = (uint8_t)('0' + i - 1);
            len += 4;
        }
        memcpy(m + len, TO("\2b0\0", "\4"), 14);
        m[len + 12] = (uint8_t)('0' + i);
        len += 14;
    }
    memcpy(m + len, A("\2b0\0") "\1\2\3\4", 18);
    m[len + 2] = (uint8_t)('0' + n - 1);
    return len + 18;
}

static void a_chain_is_followed_so_far(void **state)
{
    uint8_t m[1024];
    struct dns_answer a;

    (void)state;
    for (unsigned n = 1; n <= DNSMSG_CHAIN_MAX; n++) {
        assert_int_equal(parse((char *)m, chain(m, n), &a), 0);
        assert_int_equal(a.n, 1);
        assert_int_equal(a.ttl_s, 32);
    }
    assert_int_equal(parse((char *)m, chain(m, DNSMSG_CHAIN_MAX + 1), &a), -1);
    assert_int_equal(parse((char *)m, chain(m, 2 * DNSMSG_CHAIN_MAX + 1), &a), -1);
}

static void of_a_thousand_addresses_32_are_kept(void **state)
{
    static uint8_t m[65535];
    size_t len = sizeof(ANSWER("\0")) - 1;
    struct dns_answer a;

    (void)state;
    memcpy(m, ANSWER("\0"), len);
    m[6] = 1000 >> 8;
    m[7] = 1000 & 0xff;
    for (unsigned i = 0; i < 1000; i++) {
        memcpy(m + len, A(Q) "\1\2", 14);
        m[len + 14] = (uint8_t)(i >> 8);
        m[len + 15] = (uint8_t)i;
        len += 16;
    }
    assert_int_equal(parse((char *)m, len, &a), 0);
    assert_int_equal(a.n, DNSMSG_ADDRS_MAX);
    assert_int_equal(a.n_seen, 1000);
}

static void what_is_asked_upstream_can_be_read(void **state)
{
    uint8_t m[DNSMSG_UDP_MIN];
    struct dns_question q;
    char name[HOST_MAX + 2];
    size_t n;

    (void)state;
    n = dnsmsg_ask("www.example.com", DNS_AAAA, 0xabcd, m);
    assert_int_equal(dnsmsg_parse_question(span_of(m, n), &q), DNSMSG_OK);
    assert_string_equal(q.text, "www.example.com");
    assert_true(q.has_edns && q.wants_recursion && q.is_host);
    assert_int_equal(q.udp_size, DNSMSG_UDP_MAX);
    assert_int_equal(q.type, DNS_AAAA);
    assert_int_equal(q.id, 0xabcd);
    assert_int_equal(m[n - DNSMSG_OPT_SIZE + 2], DNS_OPT);
    assert_int_equal(dnsmsg_ask("", DNS_A, 1, m), 0);
    assert_int_equal(dnsmsg_ask("a..b", DNS_A, 1, m), 0);
    assert_int_equal(dnsmsg_ask("a.b.", DNS_A, 1, m), 0);
    for (size_t i = 0; i < HOST_MAX + 1; i++)
        name[i] = i % 64 == 63 ? '.' : 'a';
    name[HOST_MAX] = '\0';
    assert_int_equal(dnsmsg_ask(name, DNS_A, 1, m), 12 + 255 + 4 + DNSMSG_OPT_SIZE);
    name[HOST_MAX] = 'a';
    name[HOST_MAX + 1] = '\0';
    assert_int_equal(dnsmsg_ask(name, DNS_A, 1, m), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_is_read_with_its_letters_kept),
        cmocka_unit_test(edns_gives_the_size_within_bounds),
        cmocka_unit_test(what_is_no_question_is_told_apart),
        cmocka_unit_test(a_name_that_no_policy_can_name_is_read_but_is_no_host),
        cmocka_unit_test(names_of_255_bytes_fit_and_of_256_do_not),
        cmocka_unit_test(a_question_cut_anywhere_is_none),
        cmocka_unit_test(addresses_are_given_to_the_name_as_it_was_asked),
        cmocka_unit_test(a_refusal_says_why_to_who_speaks_edns),
        cmocka_unit_test(what_does_not_fit_is_left_out_and_told),
        cmocka_unit_test(faults_are_answered_with_their_codes),
        cmocka_unit_test(an_answer_gives_addresses_and_the_least_lifetime),
        cmocka_unit_test(broken_answers_are_refused),
        cmocka_unit_test(a_chain_is_followed_so_far),
        cmocka_unit_test(of_a_thousand_addresses_32_are_kept),
        cmocka_unit_test(what_is_asked_upstream_can_be_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
