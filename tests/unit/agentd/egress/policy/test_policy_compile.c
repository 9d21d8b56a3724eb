/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>

#include "agentd/egress/policy/decision.h"
#include "agentd/egress/policy/policy_int.h"
#include "tests/support/test.h"

#define L63 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"
/* One rule, in the second line. */
#define ALLOW(rules) "{\"version\": 1, \"allow\": [\n" rules "]}"
#define DENY(rules)  "{\"version\": 1, \"deny\": [\n" rules "]}"
#define ROOT(member) "{\"version\": 1,\n" member "}"

/* -- an outside that is a table ------------------------------------------------------ */

static int read_file(void *arg, const char *path, struct buf *ret, struct err *e)
{
    static const char *const file[][2] = {
        {"base.json",
         "{\"version\": 1, \"name\": \"base\", \"allow\": [\"base.example.com\"],"
         " \"limits\": {\"connections\": 7, \"names\": 9}, \"mode\": \"audit\"}"},
        {"sub/one.json", "{\"version\": 1, \"extends\": [\"two.json\", \"../base.json\"],"
                         " \"allow\": [\"one.example.com\"]}"},
        {"sub/two.json", "{\"version\": 1, \"allow\": [\"two.example.com\"]}"},
        {"sub/../base.json", "{\"version\": 1, \"allow\": [\"up.example.com\"]}"},
        {"circle.json", "{\"version\": 1,\n\"extends\": \"./circle2.json\"}"},
        {"circle2.json", "{\"version\": 1,\n\n\"extends\": [\"circle.json\"]}"},
        {"bad.json", "{\"version\": 1, \"allow\": [\n\"ok.example.com\",\n\"*\"]}"},
        {"list.txt", "# names\nlist.example.com:80\n\n10.9.0.0/16:1-65535 # lab\n"},
        {"secret", "user:p@ss%/w\n"},
        {"noline", "only-a-user\n"},
    };
    unsigned depth;

    UNUSED_ARG(arg);
    for (size_t i = 0; i < COUNT_OF(file); i++)
        if (strcmp(path, file[i][0]) == 0)
            return buf_adds(ret, file[i][1]) < 0 ? err_set(e, ERR_NOMEM, "no memory") : 0;
    if (sscanf(path, "deep%u.json", &depth) == 1)
        return buf_addf(ret, "{\"version\": 1, \"extends\": \"deep%u.json\"}",
                        depth + 1) < 0
                   ? err_set(e, ERR_NOMEM, "no memory")
                   : 0;
    return err_set(e, ERR_SYS, "open %.60s: no such file", path);
}

static int read_registries(void *arg, struct buf *ret, struct err *e)
{
    UNUSED_ARG(arg);
    return buf_adds(ret, "packages.example.net:443\nmirror.example.net:80\n") < 0
               ? err_set(e, ERR_NOMEM, "no memory")
               : 0;
}

static int read_networks(void *arg, struct buf *ret, struct err *e)
{
    UNUSED_ARG(arg);
    return buf_adds(ret, "# lab\n10.1.0.0/16\n  fd00:1::/32 # v6\n\n") < 0
               ? err_set(e, ERR_NOMEM, "no memory")
               : 0;
}

static const struct policy_reader outside = {read_file, read_registries, read_networks,
                                             NULL};
static struct policy_faults faults;

static struct policy *compile(const char *text)
{
    return policy_compile(span_str(text), &outside, &faults);
}

static struct policy *compile_good(const char *text)
{
    struct policy *p = compile(text);

    if (!p)
        fail_msg("%s\n%s: %s", text, faults.at[0].path, faults.at[0].text);
    return p;
}

static bool print_equal(const struct policy *p, const char *want)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    assert_int_equal(policy_print(p, &b), 0);
    assert_int_equal(buf_add(&b, "", 1), 0);
    if (strcmp((const char *)b.p, want) != 0)
        print_error("%s", (const char *)b.p);
    return strcmp((const char *)b.p, want) == 0;
}

/* What is printed compiles, without an outside, to what prints the same. */
static void check_fixed_point(const struct policy *p)
{
    AUTO(buf_done)
    struct buf a = BUF_INIT, b = BUF_INIT;
    struct policy *again;

    assert_int_equal(policy_print(p, &a), 0);
    again = policy_compile(buf_span(&a), NULL, &faults);
    if (!again)
        fail_msg("%s\n%.*s", faults.at[0].text, SPAN_FMT(buf_span(&a)));
    assert_int_equal(policy_print(again, &b), 0);
    assert_true(span_eq(buf_span(&a), buf_span(&b)));
    assert_string_equal(policy_hash(again), policy_hash(p));
    policy_unref(again);
}

/* -- good ---------------------------------------------------------------------------- */

static const char *const good[] = {
    "{\"version\": 1}",
    ALLOW(""),
    ALLOW("\"api.example.com\", \"*.example.com\", \"db.example.com:5432/tcp\","
          "\"203.0.113.0/24:443\", \"[2001:db8::]/32:443\""),
    ALLOW("\"API.Example.COM.\", \"xn--bcher-kva.example\", \"a.example:8000-8999/TCP\","
          "\"2001:db8::/32:443\", \"2001:db8:1::/48\", \"[2001:db8::1]\", "
          "\"b.example:1,3,5-7\""),
    ALLOW("{\"to\": {\"domain\": \"*.a.example\"}, \"ports\": [443, \"8000-8999\", "
          "\"1,2\"],"
          " \"tls\": false, \"limits\": {\"bytes\": 1, \"bytes_per_s\": 2, "
          "\"connections\": 3,"
          " \"connects_per_s\": 4}, \"expires\": \"2099-12-31T23:59:60+01:30\","
          " \"reason\": \"\\\"why\\\" \\u00fc\"}"),
    ALLOW(
        "{\"to\": {\"cidr\": \"2001:db8::/32\"}, \"ports\": 22},"
        "{\"to\": {\"cidr\": \"10.0.0.0/8\"}}, {\"to\": {\"group\": \"local-networks\"}},"
        "{\"to\": {\"group\": \"private\"}, \"ports\": [80]},"
        "{\"to\": {\"group\": \"registries\"}}, {\"to\": {\"preset\": \"build\"}},"
        "{\"to\": \"a.example:1\", \"tls\": true}"),
    DENY("\"*.ads.example\", {\"to\": \"a.example\", \"ports\": \"1-65535\","
         " \"reason\": \"no\"}, \"127.0.0.0/8\", {\"to\": {\"group\": \"private\"}}"),
    ROOT(
        "\"name\": \"n\", \"extends\": [], \"mode\": \"learn\", \"default\": \"allow\","
        "\"dns\": {\"upstream\": [\"192.0.2.53\", \"[2001:db8::53]:5353\", \"::1\"]},"
        "\"protocols\": {\"8443\": \"tls\", \"443\": \"none\", \"8080\": \"http\"},"
        "\"proxy\": {\"url\": \"socks5://u:p%40@proxy.example:1\", \"no_proxy\": \"a,b\","
        " \"required\": true, \"by\": \"name\"},"
        "\"limits\": {\"bytes\": 5, \"labels\": 127, \"names\": 1, \"questions_per_s\": "
        "9}"),
    ROOT("\"extends\": [\"full-isolation\", \"development\", \"build\", \"production\","
         " \"base.json\", \"sub/one.json\", \"list.txt\"]"),
    ROOT("\"proxy\": {\"url\": \"http://proxy.example:3128\", \"credentials_file\": "
         "\"secret\"}"),
    "{\"allowOut\": [\"api.example.com\", \"*.example.org\", \"1.1.1.1\", "
    "\"9.9.9.0/24\"],"
    " \"denyOut\": [\"0.0.0.0/0\"]}",
    "{\"allow_out\": [\"1.1.1.1\"], \"deny_out\": [\"1.1.1.0/24\"]}",
    "{\"denyOut\": [\"1.1.1.0/24\"], \"allowPublicTraffic\": false}",
    "# a list\r\nexample.com\r\n\n*.example.org:80 # with a port\n203.0.113.0/24\n",
};

static void good_policies_compile_and_print_to_themselves(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct policy *p = compile_good(good[i]);

        assert_int_equal(strlen(policy_hash(p)), POLICY_HASH_TEXT - 1);
        check_fixed_point(p);
        policy_unref(p);
    }
}

static void the_canonical_form_is_flat_and_sorted(void **state)
{
    struct policy *p = compile_good(
        "{\"version\": 1, \"name\": \"x\", \"extends\": [\"base.json\", \"list.txt\"],"
        " \"limits\": {\"names\": 5, \"questions_per_s\": 9}, \"deny\": "
        "[\"b.example.com:9,1-3,2-5\"],"
        " \"allow\": [\"Z.example.com.\", {\"reason\": \"r\", \"tls\": false,"
        " \"to\": {\"domain\": \"a.example.com\"}, \"ports\": [5, 4, \"7-8\"]}]}");

    (void)state;
    assert_true(print_equal(
        p,
        "{\n"
        "  \"allow\": [\n"
        "    {\"from\": \"base.json\", \"to\": \"base.example.com:443/tcp\"},\n"
        "    {\"from\": \"list.txt\", \"to\": \"list.example.com:80/tcp\"},\n"
        "    {\"from\": \"list.txt\", \"to\": \"10.9.0.0/16:1-65535/tcp\"},\n"
        "    \"z.example.com:443/tcp\",\n"
        "    {\"reason\": \"r\", \"tls\": false, \"to\": \"a.example.com:4-5,7-8/tcp\"}\n"
        "  ],\n"
        "  \"default\": \"deny\",\n"
        "  \"deny\": [\n"
        "    \"b.example.com:1-5,9/tcp\"\n"
        "  ],\n"
        "  \"dns\": {\"upstream\": \"system\"},\n"
        "  \"limits\": {\"connections\": 7, \"labels\": 4, \"names\": 5, "
        "\"questions_per_s\": 9},\n"
        "  \"mode\": \"audit\",\n"
        "  \"name\": \"x\",\n"
        "  \"protocols\": {\"80\": \"http\", \"443\": \"tls\"},\n"
        "  \"version\": 1\n"
        "}\n"));
    policy_unref(p);
}

static void one_meaning_has_one_hash(void **state)
{
    struct policy *a = compile_good(ALLOW("\"a.example\", \"b.example:80\""));
    struct policy *b = compile_good(" { \"allow\":[ \"A.Example.:443\", "
                                    "{\"ports\":[80],\"to\":{\"domain\":\"b.example\"}}],"
                                    "\"version\":1,\"default\":\"deny\" }");
    struct policy *c = compile_good(ALLOW("\"a.example\", \"b.example:81\""));

    (void)state;
    assert_string_equal(policy_hash(a), policy_hash(b));
    assert_string_not_equal(policy_hash(a), policy_hash(c));
    policy_unref(a);
    policy_unref(b);
    policy_unref(c);
}

/* -- bad ----------------------------------------------------------------------------- */

static const struct {
    const char *text;
    unsigned line;
    const char *path, *says;
} bad[] = {
    /* the whole */
    {"", 1, "", "expected"},
    {"[]", 1, "", "is an object"},
    {"{\"version\": 1,\n\"version\": 1}", 2, "", "duplicate"},
    {"{\"allow\": []}", 1, "", "version"},
    {ROOT("\"version2\": 1"), 2, "version2", "nearest is \"version\""},
    {"{\"version\": 2}", 1, "version", "must be 1"},
    {"{\"version\": \"1\"}", 1, "version", "must be 1"},
    {ROOT("\"alow\": []"), 2, "alow", "nearest is \"allow\""},
    {ROOT("\"mode\": \"enforced\""), 2, "mode", "nearest is \"enforce\""},
    {ROOT("\"mode\": \"loud\""), 2, "mode", "only enforce, audit, learn"},
    {ROOT("\"default\": true"), 2, "default", "must be a string"},
    {ROOT("\"name\": \"\""), 2, "name", "empty"},
    {ROOT("\"name\": \"a\\u001bb\""), 2, "name", "control"},
    {ROOT("\"name\": \"" L63 "aa\""), 2, "name", "more than 64"},
    {ROOT("\"allow\": \"a.example\""), 2, "allow", "must be an array"},
    {ROOT("\"allow\": null"), 2, "allow", "must be an array"},
    /* names */
    {ALLOW("\"*\""), 2, "allow[0]", "\"*\" alone"},
    {ALLOW("\"*:443\""), 2, "allow[0]", "\"*\" alone"},
    {ALLOW("\"*.\""), 2, "allow[0]", "is empty"},
    {ALLOW("\"*.com\""), 2, "allow[0]", "public suffix"},
    {ALLOW("\"*.CO.UK.\""), 2, "allow[0]", "public suffix"},
    {ALLOW("\"*.github.io\""), 2, "allow[0]", "private part"},
    {ALLOW("\"*.no-such-top-level\""), 2, "allow[0]", "public suffix"},
    {DENY("\"*.com\""), 2, "deny[0]", "public suffix"},
    {ALLOW("{\"to\": {\"domain\": \"*.com\"}}"), 2, "allow[0].to.domain",
     "public suffix"},
    {ALLOW("\"a.*.example\""), 2, "allow[0]", "\"*\""},
    {ALLOW("\"*a.example\""), 2, "allow[0]", "\"*\""},
    {ALLOW("\"*.*.example\""), 2, "allow[0]", "\"*\""},
    {ALLOW("\".a.example\""), 2, "allow[0]", "\"*\" before"},
    {ALLOW("\"a\\u0000.example\""), 2, "", "NUL"},
    {ALLOW("\"b\xc3\xbc"
           "cher.example\""),
     2, "allow[0]", "xn--"},
    {ALLOW("\"" L63 "h.example\""), 2, "allow[0]", "63"},
    {ALLOW("\"" L63 "." L63 "." L63 "." L63 "\""), 2, "allow[0]", "253"},
    {ALLOW("\"a..example\""), 2, "allow[0]", "empty label"},
    {ALLOW("\"a_b.example\""), 2, "allow[0]", "_"},
    {ALLOW("\"-a.example\""), 2, "allow[0]", "begins or ends"},
    {ALLOW("\"[a.example]\""), 2, "allow[0]", "brackets"},
    {ALLOW("\"https://a.example/x\""), 2, "allow[0]", "URL"},
    {ALLOW("\"a.example/x\""), 2, "allow[0]", "/tcp"},
    {ALLOW("\"\""), 2, "allow[0]", "empty"},
    {ALLOW("\"a.example \""), 2, "allow[0]", "space"},
    {ALLOW("\"a!b.example\""), 2, "allow[0]", "no host name has"},
    {ALLOW("\"localhost:3000\""), 2, "allow[0]", "loopback is of the floor"},
    {ALLOW("\"x.localhost\""), 2, "allow[0]", "loopback is of the floor"},
    {ALLOW("\"metadata.google.internal\""), 2, "allow[0]", "cloud metadata"},
    /* addresses */
    {ALLOW("\"127.1\""), 2, "allow[0]", "dotted quad"},
    {ALLOW("\"0x7f.1\""), 2, "allow[0]", "dotted quad"},
    {ALLOW("\"0177.0.0.1\""), 2, "allow[0]", "dotted quad"},
    {ALLOW("\"2130706433\""), 2, "allow[0]", "dotted quad"},
    {ALLOW("\"1.2.3.4.5\""), 2, "allow[0]", "dotted quad"},
    {ALLOW("\"a.example.7\""), 2, "allow[0]", "dotted quad"},
    {ALLOW("{\"to\": {\"cidr\": \"10.1/16\"}}"), 2, "allow[0].to.cidr", "dotted quad"},
    {ALLOW("{\"to\": {\"cidr\": \"a.example\"}}"), 2, "allow[0].to.cidr", "no address"},
    {ALLOW("\"203.0.113.5/24\""), 2, "allow[0]", "the network is 203.0.113.0/24"},
    {ALLOW("\"203.0.113.0/33\""), 2, "allow[0]", "no address"},
    {ALLOW("\"2001:db8::1\""), 2, "allow[0]", "[2001:db8::1]:443"},
    {ALLOW("\"[2001:db8::1]x\""), 2, "allow[0]", "brackets"},
    {ALLOW("\"127.0.0.0/8:80\""), 2, "allow[0]", "loopback is of the floor"},
    {ALLOW("\"[::1]:80\""), 2, "allow[0]", "loopback is of the floor"},
    {ALLOW("\"[::ffff:127.0.0.1]:80\""), 2, "allow[0]", "loopback is of the floor"},
    {ALLOW("\"169.254.169.254:80\""), 2, "allow[0]", "cloud metadata is of the floor"},
    {ALLOW("\"224.0.0.0/8\""), 2, "allow[0]", "multicast is of the floor"},
    {ALLOW("\"[64:ff9b::7f00:0]/104\""), 2, "allow[0]", "loopback is of the floor"},
    /* ports */
    {ALLOW("\"a.example:0\""), 2, "allow[0]", "no port"},
    {ALLOW("\"a.example:65536\""), 2, "allow[0]", "no port"},
    {ALLOW("\"a.example:\""), 2, "allow[0]", "no port"},
    {ALLOW("\"a.example:90-80\""), 2, "allow[0]", "no port"},
    {ALLOW("\"a.example:+80\""), 2, "allow[0]", "no port"},
    {ALLOW("\"a.example:53\""), 2, "allow[0]", "name server"},
    {ALLOW("\"a.example:443/udp\""), 2, "allow[0]", "UDP"},
    {ALLOW("\"a.example/sctp\""), 2, "allow[0]", "/tcp"},
    {ALLOW("{\"to\": \"a.example\", \"ports\": []}"), 2, "allow[0].ports", "never match"},
    {ALLOW("{\"to\": \"a.example\",\n\"ports\": [1,\n70000]}"), 4, "allow[0].ports[1]",
     "must be a port"},
    {ALLOW("{\"to\": \"a.example:1\", \"ports\": 2}"), 2, "allow[0].ports", "already"},
    {ALLOW("{\"ports\": 2, \"to\": \"a.example:1\"}"), 2, "allow[0].ports", "already"},
    /* objects */
    {ALLOW("7"), 2, "allow[0]", "string or an object"},
    {ALLOW("{\"ports\": 2}"), 2, "allow[0]", "\"to\""},
    {ALLOW("{\"to\": 1}"), 2, "allow[0].to", "string or an object"},
    {ALLOW("{\"to\": {}}"), 2, "allow[0].to", "exactly one"},
    {ALLOW("{\"to\": {\"domain\": \"a.example\", \"cidr\": \"1.2.3.4\"}}"), 2,
     "allow[0].to", "exactly one"},
    {ALLOW("{\"to\": {\"domian\": \"a.example\"}}"), 2, "allow[0].to.domian",
     "nearest is \"domain\""},
    {ALLOW("{\"to\": \"a.example\", \"port\": 1}"), 2, "allow[0].port",
     "nearest is \"ports\""},
    {ALLOW("{\"to\": \"a.example\", \"tls\": 0}"), 2, "allow[0].tls", "true or false"},
    {ALLOW("{\"to\": \"a.example\", \"expires\": \"tomorrow\"}"), 2, "allow[0].expires",
     "RFC 3339"},
    {ALLOW("{\"to\": \"a.example\", \"expires\": \"2027-02-29T00:00:00Z\"}"), 2,
     "allow[0].expires", "RFC 3339"},
    {ALLOW("{\"to\": \"a.example\", \"expires\": \"2027-01-01T00:00:00\"}"), 2,
     "allow[0].expires", "RFC 3339"},
    {ALLOW("{\"to\": \"a.example\", \"reason\": \"a\\nb\"}"), 2, "allow[0].reason",
     "control"},
    {ALLOW("{\"to\": \"a.example\", \"limits\": {\"bytes\": 0}}"), 2,
     "allow[0].limits.bytes", "from 1"},
    {ALLOW("{\"to\": \"a.example\", \"limits\": {\"names\": 1}}"), 2,
     "allow[0].limits.names", "there is no"},
    {DENY("{\"to\": \"a.example\", \"limits\": {\"bytes\": 1}}"), 2, "deny[0].limits",
     "deny rule"},
    {ALLOW("{\"to\": {\"group\": \"registry\"}}"), 2, "allow[0].to.group",
     "nearest is \"registries\""},
    {ALLOW("{\"to\": {\"group\": \"registries\"}, \"ports\": 1}"), 2, "allow[0].to.group",
     "of their own"},
    {ALLOW("{\"to\": {\"preset\": \"production\"}}"), 2, "allow[0].to.preset", "extends"},
    {ALLOW("{\"to\": {\"preset\": \"x\"}}"), 2, "allow[0].to.preset", "there is no"},
    /* never matched */
    {"{\"version\": 1, \"deny\": [\"*.b.example:1-65535\"], \"allow\": [\"b.example\",\n"
     "\"a.b.example\"]}",
     2, "allow[1]", ": deny[0], *.b.example:1-65535/tcp, covers it"},
    {"{\"version\": 1, \"deny\": [\"10.0.0.0/8\"], \"allow\": [\n\"10.1.0.0/16\"]}", 2,
     "allow[0]", ": deny[0], 10.0.0.0/8"},
    /* the rest */
    {ROOT("\"dns\": {\"upstream\": []}"), 2, "dns.upstream", "1 to 8"},
    {ROOT("\"dns\": {\"upstream\": \"192.0.2.1\"}"), 2, "dns.upstream", "list"},
    {ROOT("\"dns\": {\"upstream\": [\"ns.example\"]}"), 2, "dns.upstream[0]",
     "no address"},
    {ROOT("\"dns\": {\"upstream\": [\"224.0.0.1\"]}"), 2, "dns.upstream[0]", "multicast"},
    {ROOT("\"dns\": {\"up\": 1}"), 2, "dns.up", "there is no \"up\""},
    {ROOT("\"protocols\": {\"0\": \"tls\"}"), 2, "protocols.0", "no port"},
    {ROOT("\"protocols\": {\"0443\": \"tls\"}"), 2, "protocols.0443", "no port"},
    {ROOT("\"protocols\": {\"53\": \"none\"}"), 2, "protocols.53", "name server"},
    {ROOT("\"protocols\": {\"1\": \"https\"}"), 2, "protocols.1", "nearest is \"http\""},
    {ROOT("\"proxy\": \"http://p\""), 2, "proxy", "must be an object"},
    {ROOT("\"proxy\": {}"), 2, "proxy", "url"},
    {ROOT("\"proxy\": {\"url\": \"ftp://p\"}"), 2, "proxy.url", "scheme"},
    {ROOT("\"proxy\": {\"url\": \"http://p\", \"by\": \"ip\"}"), 2, "proxy.by",
     "address"},
    {ROOT("\"proxy\": {\"url\": \"socks5h://p\", \"by\": \"address\"}"), 2, "proxy.by",
     "by name"},
    {ROOT("\"proxy\": {\"url\": \"http://u@p\", \"credentials_file\": \"secret\"}"), 2,
     "proxy.credentials_file", "already"},
    {ROOT("\"proxy\": {\"url\": \"http://p\", \"credentials_file\": \"noline\"}"), 2,
     "proxy.credentials_file", "user:password"},
    {ROOT("\"proxy\": {\"url\": \"http://p\", \"credentials_file\": \"gone\"}"), 2,
     "proxy.credentials_file", "no such file"},
    {ROOT("\"limits\": {\"labels\": 128}"), 2, "limits.labels", "from 1 to 127"},
    {ROOT("\"limits\": {\"bytes\": 1.5}"), 2, "limits.bytes", "integer"},
    {ROOT("\"limits\": {\"connection\": 1}"), 2, "limits.connection", "\"connections\""},
    {ROOT("\"extends\": 1"), 2, "extends", "must be an array"},
    {ROOT("\"extends\": \"prodution\""), 2, "extends", "nearest is \"production\""},
    {ROOT("\"extends\": [\"gone.json\"]"), 2, "extends[0]", "no such file"},
    {ROOT("\"extends\": \"circle.json\""), 3, "extends[0]", "circle"},
    {ROOT("\"extends\": \"deep0.json\""), 1, "extends", "deeper than 8"},
    {ROOT("\"extends\": \"bad.json\""), 3, "allow[1]", "alone"},
    /* other tools' */
    {"{\"allowOut\": [\n\"*\"]}", 2, "allowOut[0]", "alone"},
    {"{\"allowOut\": [\n1]}", 2, "allowOut[0]", "must be a string"},
    {"{\"allowOut\": {}}", 1, "allowOut", "must be an array"},
    {"{\"allowOut\": [], \"denyout\": []}", 1, "denyout", "nearest is \"denyOut\""},
    {"{\"allowOut\": [], \"allow_out\": []}", 1, "allow_out", "both spellings"},
    {"ok.example\n\nhttps://a.example\n", 3, "", "URL"},
    {"ok.example\n\001ok.example\n", 2, "", "control character"},
};

static int read_odd_registries(void *arg, struct buf *ret, struct err *e)
{
    UNUSED_ARG(arg);
    return buf_adds(ret, "localhost:4873\nnpm_mirror:80\n127.0.0.1:8081\n"
                         "ok.example.net:443\n10.0.0.7:8081\n") < 0
               ? err_set(e, ERR_NOMEM, "no memory")
               : 0;
}

static void registries_that_no_sandbox_reaches_are_left_out(void **state)
{
    static const struct policy_reader odd = {NULL, read_odd_registries, NULL, NULL};
    struct policy *p = policy_preset("build", &odd, &faults);
    const struct policy_rule *rule;
    size_t n;

    (void)state;
    assert_non_null(p);
    rule = policy_rules(p, &n);
    assert_int_equal(n, 2);
    assert_string_equal(rule[0].text, "ok.example.net:443/tcp");
    assert_string_equal(rule[1].text, "10.0.0.7:8081/tcp");
    assert_int_equal(faults.n, 3);
    assert_false(faults.has_error);
    policy_unref(p);
}

static void faults_hold_nothing_that_moves_a_terminal(void **state)
{
    (void)state;
    assert_null(compile(ROOT("\"a\\u001b[2J\": 1, \"dns\": {\"\\u0007\": 1},"
                             "\"allow\": [\"\\u001b[2J\"]")));
    for (size_t i = 0; i < faults.n; i++) {
        const char *path = faults.at[i].path, *text = faults.at[i].text;

        for (; *path; path++)
            assert_true(*path >= ' ');
        for (; *text; text++)
            assert_true(*text >= ' ');
    }
    assert_int_equal(faults.n, 3);
}

static void bad_policies_say_where_and_why(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct policy *p = compile(bad[i].text);
        const struct policy_fault *f = &faults.at[0];

        if (p)
            fail_msg("taken: %s", bad[i].text);
        assert_true(faults.has_error);
        while (f->is_warning)
            f++;
        if (f->line != bad[i].line || strcmp(f->path, bad[i].path) != 0 ||
            !strstr(f->text, bad[i].says))
            fail_msg("%s\n%u: %s: %s", bad[i].text, f->line, f->path, f->text);
    }
}

static void warnings_do_not_refuse(void **state)
{
    static const struct {
        const char *text, *path, *says;
    } rows[] = {
        {ALLOW("\"a.example\", \"a.example:443\""), "allow[1]", "by allow[0], a.example"},
        {ALLOW("\"a.b.example\", \"*.b.example\""), "allow[0]",
         "by allow[1], *.b.example"},
        {ALLOW("\"203.0.113.7\", \"203.0.113.0/24:1-1000\""), "allow[0]",
         "by allow[1], 203"},
        {DENY("\"*.b.example\", \"a.b.example\""), "deny[1]", "by deny[0], *.b.example"},
        {ALLOW("{\"to\": \"a.example\", \"expires\": \"2001-01-01T00:00:00Z\"}"),
         "allow[0]", "ended 2001-01-01T00:00:00Z"},
        {ALLOW("\"0.0.0.0/0\""), "allow[0]", "private networks as well"},
        {"{\"version\": 1, \"default\": \"allow\", \"deny\": [\"a.example\"]}", "deny[0]",
         "port 443 alone"},
        {"{\"version\": 1, \"allow\": [\"*.b.example:80\"], \"deny\": [\"a.b.example\"]}",
         "deny[0]", "port 443 alone"},
        {"{\"allowOut\": [\"a.example\"]}", "allowOut", "E2B leaves reachable"},
        {"{\"allowOut\": [], \"denyOut\": [\"0.0.0.0/0\", \"1.1.1.1\"]}", "denyOut",
         "allow win over deny"},
        {"{\"denyOut\": [\"1.1.1.1\"]}", "", "private networks"},
        {"{\"allowOut\": [\"1.1.1.1\"], \"denyOut\": [\"0.0.0.0/0\", \"1.1.1.1\"]}",
         "allowOut[0]", "never be reached"},
        {"{\"allowOut\": [\"1.1.1.1\"], \"denyOut\": [\"0.0.0.0/0\", \"1.1.1.1\"]}",
         "allowOut[0]", "denyOut[1], 1.1.1.1"},
        {"a.example\n", "", "port 443 alone"},
        {"{\"version\": 1, \"extends\": \"./base.json\", \"allow\": [\"a.example\","
         " \"base.example.com\"]}",
         "allow[1]", "by allow[0] of base.json, base.example.com"},
        {"a.example\n\na.example\n", "", "by line 1, a.example"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct policy *p = compile_good(rows[i].text);
        bool found = false;

        for (size_t j = 0; j < faults.n; j++) {
            assert_true(faults.at[j].is_warning);
            found |= strcmp(faults.at[j].path, rows[i].path) == 0 &&
                     strstr(faults.at[j].text, rows[i].says) != NULL;
        }
        if (!found)
            fail_msg("%s\n%zu %s: %s", rows[i].text, faults.n, faults.at[0].path,
                     faults.at[0].text);
        policy_unref(p);
    }
    /* and what needs none has none */
    policy_unref(
        compile_good(ALLOW("\"*.b.example\", \"b.example\", \"a.b.example:80\"")));
    assert_int_equal(faults.n, 0);
    policy_unref(compile_good(
        "{\"version\": 1, \"allow\": [\"a.example\", \"b.example\"], \"deny\":"
        " [{\"to\": \"a.example\", \"expires\": \"2099-01-01T00:00:00Z\"}]}"));
    assert_int_equal(faults.n, 0);
    policy_unref(compile_good("{\"version\": 1, \"allow\": [\"a.example\","
                              " {\"to\": \"*.b.example\", \"expires\": "
                              "\"2099-01-01T00:00:00Z\"}, \"x.b.example\"]}"));
    assert_int_equal(faults.n, 0);
    policy_unref(compile_good(DENY("\"a.example\"")));
    assert_int_equal(faults.n, 0);
}

static void all_faults_are_told_and_errors_first(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    size_t errors = 0;

    (void)state;
    assert_int_equal(buf_adds(&text, "{\"version\": 1, \"extends\": [\"list.txt\"],"
                                     "\"proxy\": {}, \"deny\": 1, \"allow\": ["),
                     0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(buf_addf(&text, "%s\n\"a_%d\"", i ? "," : "", i), 0);
    assert_int_equal(buf_adds(&text, "]}"), 0);
    assert_null(policy_compile(buf_span(&text), &outside, &faults));
    assert_int_equal(faults.n, POLICY_FAULTS_MAX);
    assert_int_equal(faults.dropped, 102 - POLICY_FAULTS_MAX);
    for (size_t i = 0; i < faults.n; i++)
        errors += !faults.at[i].is_warning;
    assert_int_equal(errors, POLICY_FAULTS_MAX);
    assert_int_equal(faults.at[2].line, 2);
    assert_int_equal(faults.at[20].line, 20);
}

/* -- accessors ----------------------------------------------------------------------- */

static void what_a_policy_says_can_be_asked(void **state)
{
    struct policy *p = compile_good(good[7]);
    const struct port_range *guarded;
    size_t n;

    (void)state;
    assert_string_equal(policy_name(p), "n");
    assert_int_equal(policy_mode(p), POLICY_LEARN);
    assert_true(policy_default_allows(p));
    assert_string_equal(policy_resolvers(p),
                        "192.0.2.53:53,[2001:db8::53]:5353,[::1]:53");
    assert_int_equal(policy_check(p, 80), POLICY_CHECK_HTTP);
    assert_int_equal(policy_check(p, 443), POLICY_CHECK_NONE);
    assert_int_equal(policy_check(p, 8443), POLICY_CHECK_TLS);
    assert_int_equal(policy_check(p, 8080), POLICY_CHECK_HTTP);
    assert_int_equal(policy_check(p, 22), POLICY_CHECK_NONE);
    assert_string_equal(policy_proxy(p)->url, "socks5://u:p%40@proxy.example:1");
    assert_string_equal(policy_proxy(p)->no_proxy, "a,b");
    assert_true(policy_proxy(p)->required && policy_proxy(p)->by_name);
    assert_int_equal(policy_limits(p)->bytes, 5);
    assert_int_equal(policy_limits(p)->labels, 127);
    assert_int_equal(policy_limits(p)->questions_per_s, 9);
    guarded = policy_guarded(p, &n);
    assert_int_equal(n, 1);
    assert_int_equal(guarded[0].first, 1);
    assert_int_equal(guarded[0].last, 65535);
    assert_ptr_equal(policy_ref(p), p);
    policy_unref(p);
    assert_string_equal(policy_name(p), "n");
    policy_unref(p);
    policy_unref(NULL);
}

static void guarded_ports_are_checked_and_wide_ones(void **state)
{
    struct policy *p = compile_good(
        "{\"version\": 1, \"protocols\": {\"81\": \"http\", \"8443\": \"tls\","
        " \"443\": \"none\"}, \"allow\": [\"a.example:1000-1016\", "
        "\"a.example:2000-2015\","
        " \"10.0.0.0/8:1-65535\", \"b.example:1010-1100\"]}");
    static const struct port_range want[] = {{80, 81}, {1000, 1100}, {8443, 8443}};
    const struct port_range *got;
    size_t n;

    (void)state;
    got = policy_guarded(p, &n);
    assert_int_equal(n, COUNT_OF(want));
    assert_memory_equal(got, want, sizeof want);
    policy_unref(p);
}

static void rules_are_flat_with_their_origin(void **state)
{
    struct policy *p = compile_good(
        "{\"version\": 1, \"extends\": [\"build\", \"sub/one.json\"], \"deny\": "
        "[\"x.example\"],"
        " \"allow\": [{\"to\": {\"group\": \"local-networks\"}, \"ports\": [22]}]}");
    static const struct {
        const char *text, *from;
    } want[] = {
        {"x.example:443/tcp", NULL},
        {"packages.example.net:443/tcp", "build"},
        {"mirror.example.net:80/tcp", "build"},
        {"two.example.com:443/tcp", "sub/two.json"},
        {"up.example.com:443/tcp", "sub/../base.json"},
        {"one.example.com:443/tcp", "sub/one.json"},
        {"10.1.0.0/16:22/tcp", "local-networks"},
        {"[fd00:1::]/32:22/tcp", "local-networks"},
    };
    const struct policy_rule *rule;
    size_t n;

    (void)state;
    rule = policy_rules(p, &n);
    assert_int_equal(n, COUNT_OF(want));
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(rule[i].text, want[i].text);
        assert_int_equal(rule[i].list, i == 0 ? POLICY_DENY : POLICY_ALLOW);
        assert_int_equal(rule[i].number, i == 0 ? 0 : i - 1);
        if (want[i].from)
            assert_string_equal(rule[i].from, want[i].from);
        else
            assert_null(rule[i].from);
    }
    policy_unref(p);
}

static void credentials_are_printed_for_the_guard_alone(void **state)
{
    struct policy *p = compile_good(good[9]);
    AUTO(buf_done)
    struct buf print = BUF_INIT, show = BUF_INIT;
    struct policy *other = compile_good(
        ROOT("\"proxy\": {\"url\": \"http://user:other@proxy.example:3128\"}"));

    (void)state;
    assert_int_equal(policy_print(p, &print), 0);
    assert_int_equal(policy_show(p, &show), 0);
    assert_non_null(
        memmem(print.p, print.len, "http://user:p%40ss%25%2Fw@proxy.example:3128", 43));
    assert_non_null(memmem(show.p, show.len, "http://***@proxy.example:3128", 29));
    assert_null(memmem(show.p, show.len, "ss%25", 5));
    assert_null(memmem(show.p, show.len, "user", 4));
    assert_string_equal(policy_hash(p), policy_hash(other));
    policy_unref(p);
    policy_unref(other);
}

static void the_environments_proxy_is_resolved_when_compiling(void **state)
{
    static const char text[] = ROOT("\"proxy\": {\"url\": \"env\"}");
    static const char required[] =
        ROOT("\"proxy\": {\"url\": \"env\", \"required\": true}");
    static const char *const names[] = {"https_proxy", "HTTPS_PROXY", "all_proxy",
                                        "ALL_PROXY",   "no_proxy",    "NO_PROXY"};
    struct policy *p;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        assert_int_equal(unsetenv(names[i]), 0);
    p = compile_good(text);
    assert_null(policy_proxy(p)->url);
    assert_true(faults.n == 1 && faults.at[0].is_warning);
    policy_unref(p);
    assert_null(compile(required));
    assert_int_equal(setenv("ALL_PROXY", "socks5h://proxy.example", 1), 0);
    assert_int_equal(setenv("NO_PROXY", "10.0.0.0/8", 1), 0);
    p = compile_good(required);
    assert_string_equal(policy_proxy(p)->url, "socks5h://proxy.example:1080");
    assert_string_equal(policy_proxy(p)->no_proxy, "10.0.0.0/8");
    assert_true(policy_proxy(p)->by_name);
    check_fixed_point(p);
    policy_unref(p);
    assert_int_equal(setenv("ALL_PROXY", "ftp://proxy.example", 1), 0);
    assert_null(compile(text));
    assert_int_equal(unsetenv("ALL_PROXY"), 0);
    assert_int_equal(unsetenv("NO_PROXY"), 0);
}

static void presets_are_the_four_levels(void **state)
{
    static const struct {
        const char *name;
        size_t n_rules;
        bool allows;
    } rows[] = {{"full-isolation", 0, false},
                {"development", 2, false},
                {"build", 2, false},
                {"production", 0, true}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct policy *p = policy_preset(rows[i].name, &outside, &faults);
        size_t n;

        assert_non_null(p);
        assert_string_equal(policy_name(p), rows[i].name);
        (void)policy_rules(p, &n);
        assert_int_equal(n, rows[i].n_rules);
        assert_int_equal(policy_default_allows(p), rows[i].allows);
        check_fixed_point(p);
        policy_unref(p);
    }
    assert_null(policy_preset("nothing", &outside, &faults));
    assert_true(faults.has_error);
    /* without an outside, what needs it is a fault and never an empty list */
    assert_null(policy_preset("build", NULL, &faults));
    assert_null(policy_preset("development", NULL, &faults));
}

static void formats_are_told_apart(void **state)
{
    static const char *const taken[] = {"  \n{\"version\": 1}", "{\"denyOut\": []}",
                                        "a.example", "# {"};
    static const char *const refused[] = {"{\"allowOut\": [], \"version\": 1}", "{", ""};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(taken); i++)
        policy_unref(compile_good(taken[i]));
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        assert_null(compile(refused[i]));
}

static void an_empty_list_opens_nothing(void **state)
{
    static const char *const rows[] = {
        ALLOW(""),     "{\"allowOut\": []}",    "{\"allowOut\": [], \"denyOut\": []}",
        "# nothing\n", ROOT("\"extends\": []"), "{\"denyOut\": [\"0.0.0.0/0\"]}",
    };
    struct target t = {.name = "a.example", .port = 443, .protocol = IPPROTO_TCP};
    struct verdict v;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct policy *p = compile_good(rows[i]);

        assert_false(policy_default_allows(p));
        decide(p, NULL, &t, 0, &v);
        assert_false(v.allowed);
        policy_unref(p);
    }
}

/* -- bounds, cuts, no memory --------------------------------------------------------- */

static void a_policy_over_its_cap_is_refused(void **state)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct policy *p;
    size_t n;

    (void)state;
    assert_int_equal(buf_adds(&text, "{\"version\": 1, \"allow\": [\"a.example\""), 0);
    for (unsigned i = 1; i < POLICY_RULES_MAX; i++)
        assert_int_equal(buf_addf(&text, ",\"n%u.example\"", i), 0);
    assert_int_equal(buf_adds(&text, "]}"), 0);
    p = policy_compile(buf_span(&text), NULL, &faults);
    assert_non_null(p);
    (void)policy_rules(p, &n);
    assert_int_equal(n, POLICY_RULES_MAX);
    policy_unref(p);
    text.len -= 2;
    assert_int_equal(buf_adds(&text, ",\"one.more.example\"]}"), 0);
    assert_null(policy_compile(buf_span(&text), NULL, &faults));
    assert_non_null(strstr(faults.at[0].text, "more than 65536 rules"));
    while (text.len <= POLICY_TEXT_MAX)
        assert_int_equal(buf_add(&text, "                ", 16), 0);
    assert_null(policy_compile(buf_span(&text), NULL, &faults));
    assert_non_null(strstr(faults.at[0].text, "more than 4194304 bytes"));
}

static void every_cut_is_refused_or_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        size_t len = strlen(good[i]);

        if (good[i][0] != '{')
            continue;
        for (size_t cut = 0; cut < len; cut++)
            assert_null(policy_compile(span_of(good[i], cut), &outside, &faults));
    }
}

static int compile_once(const char *text)
{
    AUTO(buf_done)
    struct buf out = BUF_INIT;
    struct policy *p = compile(text);
    int rc;

    if (!p)
        return faults.has_error ? -1 : -2;
    rc = policy_print(p, &out);
    policy_unref(p);
    return rc;
}

static void no_memory_is_an_error_and_nothing_else(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        FAIL_EACH_ALLOC(compile_once(good[i]));
}

/* -- the schema and the examples ----------------------------------------------------- */

static const struct json *member(const struct json *v, const char *name)
{
    const struct json *m = json_get(v, name);

    if (!m)
        fail_msg("the schema has no %s", name);
    return m;
}

/* The properties that the schema has here, and the parser's keys, are the same. */
static void check_keys(const struct json *schema, const char *where)
{
    const struct json *properties = member(schema, "properties");
    const char *const *key;
    size_t n;

    key = policy_keys(where, &n);
    assert_int_equal(json_len(properties), n);
    for (size_t i = 0; i < n; i++)
        if (!json_get(properties, key[i]))
            fail_msg("the schema has no %s in \"%s\"", key[i], where);
    assert_false(json_bool(member(schema, "additionalProperties")));
}

static void the_schema_has_the_parsers_keys(void **state)
{
    struct err e = {.msg = ""};
    struct json *root = json_parse_file("docs/egress-policy.schema.json", 1 << 20, &e);
    const struct json *properties, *rule, *limits, *item;
    const char *name;
    size_t pos = 0, n = 0;

    (void)state;
    if (!root)
        fail_msg("%s", e.msg);
    properties = member(root, "properties");
    check_keys(root, "");
    check_keys(member(properties, "dns"), "dns");
    check_keys(member(properties, "proxy"), "proxy");
    check_keys(member(properties, "limits"), "limits");
    limits = member(member(properties, "limits"), "properties");
    assert_int_equal(json_int(member(member(limits, "labels"), "default")),
                     POLICY_LABELS);
    assert_int_equal(json_int(member(member(limits, "names"), "default")), POLICY_NAMES);
    assert_int_equal(json_int(member(member(limits, "questions_per_s"), "default")),
                     POLICY_QUESTIONS_PER_S);
    rule = member(member(member(root, "$defs"), "rule"), "else");
    check_keys(rule, "rule");
    check_keys(member(member(member(rule, "properties"), "to"), "else"), "to");
    limits = member(member(member(rule, "properties"), "limits"), "properties");
    while (json_next(limits, &pos, &name, &item)) {
        AUTO(buf_done)
        struct buf text = BUF_INIT;

        n++;
        assert_int_equal(buf_addf(&text,
                                  "{\"version\": 1, \"allow\": [{\"to\": \"a.example\","
                                  " \"limits\": {\"%s\": 1}}]}",
                                  name),
                         0);
        assert_int_equal(buf_add(&text, "", 1), 0);
        policy_unref(compile_good((const char *)text.p));
    }
    assert_int_equal(n, 4);
    json_free(root);
}

static void the_examples_are_in_order(void **state)
{
    static const char *const file[] = {
        "examples/egress/one-api.json",         "examples/egress/build.json",
        "examples/egress/database.json",        "examples/egress/learn.json",
        "examples/egress/corporate-proxy.json",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(file); i++) {
        struct policy *p = policy_load(file[i], &faults);

        if (!p)
            fail_msg("%s: %s", file[i], faults.at[0].text);
        check_fixed_point(p);
        policy_unref(p);
    }
    assert_null(policy_load("examples/egress/none.json", &faults));
    assert_true(faults.has_error);
    assert_null(policy_load("examples/egress", &faults));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_policies_compile_and_print_to_themselves),
        cmocka_unit_test(the_canonical_form_is_flat_and_sorted),
        cmocka_unit_test(one_meaning_has_one_hash),
        cmocka_unit_test(bad_policies_say_where_and_why),
        cmocka_unit_test(registries_that_no_sandbox_reaches_are_left_out),
        cmocka_unit_test(faults_hold_nothing_that_moves_a_terminal),
        cmocka_unit_test(warnings_do_not_refuse),
        cmocka_unit_test(all_faults_are_told_and_errors_first),
        cmocka_unit_test(what_a_policy_says_can_be_asked),
        cmocka_unit_test(guarded_ports_are_checked_and_wide_ones),
        cmocka_unit_test(rules_are_flat_with_their_origin),
        cmocka_unit_test(credentials_are_printed_for_the_guard_alone),
        cmocka_unit_test(the_environments_proxy_is_resolved_when_compiling),
        cmocka_unit_test(presets_are_the_four_levels),
        cmocka_unit_test(formats_are_told_apart),
        cmocka_unit_test(an_empty_list_opens_nothing),
        cmocka_unit_test(a_policy_over_its_cap_is_refused),
        cmocka_unit_test(every_cut_is_refused_or_whole),
        cmocka_unit_test(no_memory_is_an_error_and_nothing_else),
        cmocka_unit_test(the_schema_has_the_parsers_keys),
        cmocka_unit_test(the_examples_are_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
