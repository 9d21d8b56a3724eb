/* SPDX-License-Identifier: MIT */
/* Records against docs/egress-audit.schema.json, by the part of JSON Schema
 * that it uses. */
#include "agentd/egress/audit.h"

#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/json.h"
#include "tests/support/test.h"

#define SCHEMA   "docs/egress-audit.schema.json"
#define TEXT_MAX 65536

/* -- the schema ---------------------------------------------------------------------- */

static bool has_type(const struct json *v, const char *type)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",     [JSON_BOOL] = "boolean",  [JSON_INT] = "integer",
        [JSON_REAL] = "number",   [JSON_STRING] = "string", [JSON_ARRAY] = "array",
        [JSON_OBJECT] = "object",
    };

    return strcmp(names[json_type(v)], type) == 0;
}

static bool is_same(const struct json *a, const struct json *b)
{
    if (json_type(a) != json_type(b))
        return false;
    return json_type(a) == JSON_NULL ||
           (json_type(a) == JSON_STRING && strcmp(json_str(a), json_str(b)) == 0);
}

static bool type_fits(const struct json *type, const struct json *v)
{
    if (json_type(type) == JSON_STRING)
        return has_type(v, json_str(type));
    for (size_t i = 0; i < json_len(type); i++)
        if (has_type(v, json_str(json_at(type, i))))
            return true;
    return false;
}

static bool pattern_fits(const char *pattern, const struct json *v)
{
    regex_t re;
    bool fits;

    if (json_type(v) != JSON_STRING)
        return true;
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    fits = regexec(&re, json_str(v), 0, NULL, 0) == 0;
    regfree(&re);
    return fits;
}

static bool fits(const struct json *root, const struct json *schema,
                 const struct json *v);

static bool object_fits(const struct json *root, const struct json *schema,
                        const struct json *v)
{
    const struct json *props = json_get(schema, "properties");
    const struct json *required = json_get(schema, "required");
    const struct json *value;
    const char *name;
    size_t pos = 0;

    if (props == NULL || json_type(v) != JSON_OBJECT)
        return true;
    for (size_t i = 0; i < json_len(required); i++)
        if (json_get(v, json_str(json_at(required, i))) == NULL)
            return false;
    while (json_next(v, &pos, &name, &value)) {
        const struct json *s = json_get(props, name);

        if (s == NULL || !fits(root, s, value)) {
            const struct json *kind = json_get(json_get(props, "kind"), "const");

            if (is_same(kind, json_get(v, "kind")))
                print_message("member %s does not fit\n", name);
            return false;
        }
    }
    return true;
}

static bool range_fits(const struct json *schema, const struct json *v)
{
    const struct json *least = json_get(schema, "minimum");
    const struct json *most = json_get(schema, "maximum");

    if (json_type(v) != JSON_INT)
        return true;
    return (least == NULL || json_int(v) >= json_int(least)) &&
           (most == NULL || json_int(v) <= json_int(most));
}

static bool one_fits(const struct json *list, const struct json *v)
{
    for (size_t i = 0; i < json_len(list); i++)
        if (is_same(json_at(list, i), v))
            return true;
    return false;
}

static bool fits(const struct json *root, const struct json *schema, const struct json *v)
{
    const struct json *s;
    unsigned n = 0;

    if ((s = json_get(schema, "$ref")) != NULL) {
        schema = json_get(json_get(root, "$defs"), json_str(s) + strlen("#/$defs/"));
        assert_non_null(schema);
    }
    if ((s = json_get(schema, "oneOf")) != NULL) {
        for (size_t i = 0; i < json_len(s); i++)
            n += fits(root, json_at(s, i), v);
        return n == 1;
    }
    return ((s = json_get(schema, "type")) == NULL || type_fits(s, v)) &&
           ((s = json_get(schema, "const")) == NULL || is_same(s, v)) &&
           ((s = json_get(schema, "enum")) == NULL || one_fits(s, v)) &&
           ((s = json_get(schema, "pattern")) == NULL || pattern_fits(json_str(s), v)) &&
           range_fits(schema, v) && object_fits(root, schema, v);
}

static bool line_fits(const struct json *schema, struct span line)
{
    struct err e = {0};
    struct json *v = json_parse(line, TEXT_MAX, &e);
    bool rc;

    if (v == NULL)
        fail_msg("%s: %.*s", e.msg, SPAN_FMT(line));
    rc = fits(schema, schema, v);
    json_free(v);
    return rc;
}

/* -- records ------------------------------------------------------------------------- */

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static const struct policy_rule rule = {
    .list = POLICY_ALLOW, .number = 3, .text = "*.example.com:443"};
static const struct verdict allowed = {
    .allowed = true, .stage = VERDICT_ALLOW, .rule = &rule, .text = "allow rule 3"};
static const struct verdict floored = {.stage = VERDICT_FLOOR, .text = "floor: loopback"};

static struct ip_addr ip(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(span_str(text), &a), 0);
    return a;
}

static struct audit_record a_connection(void)
{
    return (struct audit_record){.kind = AUDIT_CONNECTION,
                                 .sandbox = "demo",
                                 .by = "guard",
                                 .pid = 42,
                                 .comm = "curl",
                                 .uid = 1000,
                                 .name = "api.example.com",
                                 .addr = ip("192.0.2.1"),
                                 .port = 443,
                                 .protocol = IPPROTO_TCP,
                                 .check = "tls",
                                 .dialed = ip("2001:db8::1"),
                                 .bytes_up = 5,
                                 .bytes_down = 7,
                                 .started_ms = 1700000000123,
                                 .ended_ms = 1700000001004,
                                 .end = "closed",
                                 .verdict = &allowed,
                                 .hash = HASH};
}

static void a_connection_is_one_line_with_everything_known(void **state)
{
    AUTO(buf_done)
    struct buf out = BUF_INIT;
    struct audit_record r = a_connection();
    const char *wanted =
        "{\"time\":\"2023-11-14T22:13:21.004Z\",\"kind\":\"connection\",\"sandbox\":"
        "\"demo\","
        "\"by\":\"guard\",\"pid\":42,\"comm\":\"curl\",\"uid\":1000,"
        "\"name\":\"api.example.com\",\"address\":\"192.0.2.1\",\"port\":443,"
        "\"protocol\":\"tcp\",\"check\":\"tls\",\"verdict\":\"allowed\","
        "\"would_refuse\":false,\"stage\":\"allow\",\"reason\":\"allow rule 3\","
        "\"rule\":\"*.example.com:443\",\"rule_list\":\"allow\",\"rule_number\":4,"
        "\"started\":\"2023-11-14T22:13:20.123Z\",\"dialed\":\"2001:db8::1\",\"via\":"
        "null,"
        "\"bytes_up\":5,\"bytes_down\":7,\"end\":\"closed\",\"policy\":\"" HASH "\","
        "\"repeated\":0}\n";

    UNUSED_ARG(state);
    assert_int_equal(audit_print(&r, &out), 0);
    assert_int_equal(buf_add(&out, "", 1), 0);
    assert_string_equal((const char *)out.p, wanted);
}

static const struct audit_record records[] = {
    {.kind = AUDIT_CONNECTION, .sandbox = "a", .by = "guard", .uid = UINT32_MAX},
    {.kind = AUDIT_CONNECTION,
     .sandbox = "a",
     .by = "guard",
     .bytes_up = INT64_MAX,
     .via = "proxy.example:3128",
     .end = "policy",
     .would_refuse = true,
     .verdict = &floored},
    {.kind = AUDIT_REFUSED, .sandbox = "a", .by = "kernel", .protocol = IPPROTO_ICMP},
    {.kind = AUDIT_REFUSED,
     .sandbox = "a",
     .by = "kernel",
     .protocol = IPPROTO_ICMPV6,
     .uid = UINT32_MAX,
     .verdict = &floored},
    {.kind = AUDIT_REFUSED,
     .sandbox = "a",
     .by = "guard",
     .protocol = 47,
     .check = "http"},
    {.kind = AUDIT_REFUSED, .sandbox = "a", .by = "guard", .protocol = IPPROTO_SCTP},
    {.kind = AUDIT_NAME,
     .sandbox = "a",
     .by = "dns",
     .name = "x.example",
     .protocol = IPPROTO_UDP,
     .check = "dns",
     .comm = "a\"b\n\xff\x01",
     .verdict = &floored,
     .repeated = UINT32_MAX},
    {.kind = AUDIT_EVENT, .by = "keeper", .event = "guard.died", .text = "signal 9"},
    {.kind = AUDIT_EVENT,
     .sandbox = "a",
     .by = "guard",
     .event = "policy.proposed",
     .hash = HASH,
     .text = "{\n \"version\": 1\n}\n"},
};

static void every_kind_agrees_with_the_schema(void **state)
{
    struct json *schema = json_parse_file(SCHEMA, TEXT_MAX, NULL);
    struct audit_record full = a_connection();

    UNUSED_ARG(state);
    assert_non_null(schema);
    for (size_t i = 0; i <= COUNT_OF(records); i++) {
        AUTO(buf_done)
        struct buf out = BUF_INIT;
        const struct audit_record *r = i < COUNT_OF(records) ? &records[i] : &full;

        assert_int_equal(audit_print(r, &out), 0);
        assert_ptr_equal(memchr(out.p, '\n', out.len), out.p + out.len - 1);
        if (!line_fits(schema, buf_span(&out)))
            fail_msg("record %zu: %.*s", i, SPAN_FMT(buf_span(&out)));
    }
    json_free(schema);
}

static void the_schema_knows_wrong_records(void **state)
{
    static const char *const bad[] = {
        "{}",
        "{\"time\":\"2023-11-14T22:13:21.004Z\",\"kind\":\"event\",\"sandbox\":null,"
        "\"by\":\"keeper\",\"event\":\"guard.died\",\"text\":null,\"policy\":null}",
        "{\"time\":\"2023-11-14 22:13:21.004Z\",\"kind\":\"event\",\"sandbox\":null,"
        "\"by\":\"keeper\",\"event\":\"guard.died\",\"text\":null,\"policy\":null,"
        "\"repeated\":0}",
        "{\"time\":\"2023-11-14T22:13:21.004Z\",\"kind\":\"event\",\"sandbox\":null,"
        "\"by\":\"somebody\",\"event\":\"guard.died\",\"text\":null,\"policy\":null,"
        "\"repeated\":0}",
        "{\"time\":\"2023-11-14T22:13:21.004Z\",\"kind\":\"event\",\"sandbox\":null,"
        "\"by\":\"keeper\",\"event\":\"guard.died\",\"text\":null,\"policy\":null,"
        "\"repeated\":0,\"more\":1}",
    };
    struct json *schema = json_parse_file(SCHEMA, TEXT_MAX, NULL);

    UNUSED_ARG(state);
    assert_non_null(schema);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(line_fits(schema, span_str(bad[i])));
    json_free(schema);
}

static int print_once(void)
{
    AUTO(buf_done)
    struct buf out = BUF_INIT;
    struct audit_record r = a_connection();
    int rc;

    rc = audit_print(&r, &out);
    if (rc < 0)
        assert_int_equal(out.len, 0);
    return rc;
}

static void without_memory_there_is_no_half_line(void **state)
{
    UNUSED_ARG(state);
    FAIL_EACH_ALLOC(print_once());
}

/* -- writing ------------------------------------------------------------------------- */

struct file {
    char path[64];
    int fd, read_fd;
};

static int file_open(void **state)
{
    static struct file f;

    (void)snprintf(f.path, sizeof(f.path), "/tmp/test_audit.%d", (int)getpid());
    f.fd = audit_open(f.path, NULL);
    f.read_fd = open(f.path, O_RDONLY | O_CLOEXEC);
    *state = &f;
    return f.fd < 0 || f.read_fd < 0;
}

static int file_close(void **state)
{
    struct file *f = *state;

    (void)close(f->fd);
    (void)close(f->read_fd);
    (void)unlink(f->path);
    return 0;
}

/* Lines of the file, each of which must be JSON; the sum of "repeated" in *ret. */
static unsigned count_lines(const struct file *f, uint64_t *ret)
{
    FILE *in = fopen(f->path, "r");
    char line[4096];
    unsigned n = 0;

    assert_non_null(in);
    *ret = 0;
    while (fgets(line, sizeof(line), in) != NULL) {
        struct json *v = json_parse(span_str(line), sizeof(line), NULL);

        assert_non_null(v);
        *ret += (uint64_t)json_int(json_get(v, "repeated"));
        json_free(v);
        n++;
    }
    (void)fclose(in);
    return n;
}

static void records_are_appended_and_the_file_is_not_for_everybody(void **state)
{
    struct file *f = *state;
    struct audit_record r = a_connection();
    struct audit *a = audit_new(f->fd), *b = audit_new(f->fd);
    struct stat st;
    uint64_t repeated;

    audit_write(a, &r);
    audit_write(b, &r);
    r.kind = AUDIT_EVENT;
    r.ended_ms = 0; /* now */
    audit_write(a, &r);
    audit_free(a);
    audit_free(b);
    assert_int_equal(count_lines(f, &repeated), 3);
    assert_int_equal(fstat(f->fd, &st), 0);
    assert_int_equal(st.st_mode & 0137, 0); /* 0640 at most */
}

static void a_link_of_somebody_else_is_not_followed(void **state)
{
    char folder[] = "/tmp/audit-link-XXXXXX", file[64], link[64], text[200];
    struct err e = {0};
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(file, sizeof file, "%s/file", folder);
    (void)snprintf(link, sizeof link, "%s/link", folder);
    assert_int_equal(symlink(file, link), 0);
    fd = audit_open(link, &e); /* our own leads where we want */
    if (fd < 0)
        fail_msg("%s", e.msg);
    (void)close(fd);
    if (geteuid() == 0) {
        assert_int_equal(lchown(link, 54321, 54321), 0);
        assert_int_equal(audit_open(link, &e), -1);
        assert_int_equal(e.code, ERR_DENIED);
        (void)snprintf(text, sizeof text, "%s is a link of user 54321", link);
        assert_non_null(strstr(e.msg, text));
    }
    (void)unlink(link);
    (void)unlink(file);
    (void)rmdir(folder);
}

static void refusals_of_one_kind_are_limited_and_counted(void **state)
{
    struct file *f = *state;
    struct audit_record r = {.kind = AUDIT_REFUSED, .sandbox = "a", .by = "kernel"};
    struct audit *a = audit_new(f->fd);
    uint64_t repeated;
    unsigned lines, sent = 0;

    /* More than two seconds' worth at once: whatever the clock does, some are
     * left out. */
    for (; sent < AUDIT_RATE_PER_S * 20; sent++)
        audit_write(a, &r);
    lines = count_lines(f, &repeated);
    assert_in_range(lines, AUDIT_RATE_PER_S, AUDIT_RATE_PER_S * 10);
    /* Another sandbox, another kind, and what is no refusal are not concerned. */
    r.sandbox = "b";
    audit_write(a, &r);
    r.sandbox = "a";
    r.kind = AUDIT_NAME;
    audit_write(a, &r);
    r.kind = AUDIT_EVENT;
    r.event = "sandbox.end";
    audit_write(a, &r);
    assert_int_equal(count_lines(f, &repeated), lines + 3);
    /* When the second is over the next one tells how many there were. */
    r.kind = AUDIT_REFUSED;
    for (unsigned i = 0; i < 200 && lines + repeated < sent; i++) {
        struct timespec t = {.tv_nsec = 10000000};

        (void)nanosleep(&t, NULL);
        audit_write(a, &r);
        sent++;
        lines = count_lines(f, &repeated) - 3;
    }
    assert_int_equal(lines + repeated, sent);
    assert_int_equal(audit_lost(a), 0);
    audit_free(a);
}

static void what_cannot_be_written_is_counted_and_does_not_block(void **state)
{
    struct audit_record r = a_connection();
    struct audit *a;
    int p[2];

    UNUSED_ARG(state);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0); /* blocking, as a shell's pipe is */
    assert_true(fcntl(p[1], F_SETPIPE_SZ, 4096) >= 4096);
    a = audit_new(p[1]);
    for (int i = 0; i < 1000; i++)
        audit_write(a, &r);
    assert_in_range(audit_lost(a), 1, 999);
    audit_free(a);
    (void)close(p[0]);
    (void)close(p[1]);
}

static void a_line_cut_by_a_full_disk_spoils_no_other(void **state)
{
    struct file *f = *state;
    struct audit_record r = a_connection();
    struct audit *a = audit_new(f->fd);
    struct rlimit before, small = {.rlim_cur = 700};
    char text[8192] = "", *last;
    ssize_t n;

    audit_write(a, &r);
    /* One that is too long for what the limit leaves is written in part. */
    (void)signal(SIGXFSZ, SIG_IGN); /* the log may be a file too */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    audit_write(a, &r);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(audit_lost(a), 1);
    r.comm = "afterwards";
    audit_write(a, &r);
    audit_free(a);
    n = pread(f->read_fd, text, sizeof(text) - 1, 0);
    assert_true(n > 700);
    assert_int_equal(text[n - 1], '\n');
    text[n - 1] = '\0';
    last = strrchr(text, '\n');
    assert_non_null(last);
    assert_true(last - text == 700); /* what ends the cut line */
    assert_memory_equal(last + 1, "{\"time\"", 7);
    assert_non_null(strstr(last, "\"afterwards\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_is_one_line_with_everything_known),
        cmocka_unit_test(every_kind_agrees_with_the_schema),
        cmocka_unit_test(the_schema_knows_wrong_records),
        cmocka_unit_test(without_memory_there_is_no_half_line),
        cmocka_unit_test_setup_teardown(
            records_are_appended_and_the_file_is_not_for_everybody, file_open,
            file_close),
        cmocka_unit_test(a_link_of_somebody_else_is_not_followed),
        cmocka_unit_test_setup_teardown(refusals_of_one_kind_are_limited_and_counted,
                                        file_open, file_close),
        cmocka_unit_test(what_cannot_be_written_is_counted_and_does_not_block),
        cmocka_unit_test_setup_teardown(a_line_cut_by_a_full_disk_spoils_no_other,
                                        file_open, file_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
