/* SPDX-License-Identifier: MIT */
#include "agentd/link/doctor.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "tests/support/child.h"
#include "tests/support/lws_peer.h"
#include "tests/support/test.h"

static struct child_certs certs;
static struct child peer;

static char *run(const char *server, uint16_t port, const char *ca, const char *token,
                 bool json, int want)
{
    static char text[8192];
    char url[128];
    FILE *out = fmemopen(text, sizeof(text) - 1, "w");
    struct doctor_conf conf = {.server = url,
                               .id = "demo",
                               .ca_file = ca,
                               .proxy = "none",
                               .token = span_str(token),
                               .json = json,
                               .out = out};
    struct err e = {0};
    int rc;

    memset(text, 0, sizeof(text));
    (void)snprintf(url, sizeof(url), "%s%u", server, port);
    assert_non_null(out);
    rc = doctor_run(&conf, &e);
    (void)fclose(out);
    if (rc != want)
        fail_msg("exit code %d: %s%s", rc, text, e.msg);
    assert_null(strstr(text, token));
    return text;
}

static void a_way_that_works_is_ok_at_every_stage(void **state)
{
    char *text =
        run("https://preview.localhost:", peer.port, certs.ca, LWS_PEER_TOKEN, false, 0);

    (void)state;
    assert_non_null(strstr(text, "ok       name     0-demo.preview.localhost is "));
    assert_non_null(strstr(text, "ok       connect  127.0.0.1:"));
    assert_non_null(strstr(text, "ok       tls      "));
    assert_non_null(strstr(text, "ok       upgrade  "));
    assert_non_null(strstr(text, "ok       token    "));
    assert_null(strstr(text, "proxy"));
}

static void each_fault_has_its_stage_its_advice_and_its_exit_code(void **state)
{
    char *text;

    (void)state;
    text = run("https://preview.localhost:", peer.port, certs.ca, "a.b.c", false, 3);
    assert_non_null(strstr(text, "fail     token    the server refused the token (401"));
    assert_non_null(strstr(text, "-> it is no JSON Web Token"));
    text = run("https://preview.localhost:", peer.port, NULL, "a.b.c", false, 1);
    assert_non_null(strstr(text, "fail     tls      "));
    assert_non_null(strstr(text, "--ca-file"));
    assert_non_null(strstr(text, "skipped  token    not reached"));
    text = run("https://preview.localhost:", child_free_port(), NULL, "a.b.c", false, 4);
    assert_non_null(strstr(text, "fail     connect  connect to "));
    assert_non_null(strstr(text, ": Connection refused\n"));
    text = run("ftp://preview.localhost:", 1, NULL, "a.b.c", false, 2);
    assert_string_equal(text, "");
    text = run("https://preview.localhost:", 1, "/nonexistent", "a.b.c", false, 2);
    assert_string_equal(text, "");
}

static void each_json_line_is_an_object(void **state)
{
    char *text = run("https://preview.localhost:", peer.port, NULL, "a.b.c", true, 1),
         *line;
    unsigned n = 0;

    (void)state;
    for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), n++) {
        struct err e = {0};
        struct json *o = json_parse(span_str(line), 8192, &e);

        if (!o)
            fail_msg("%s: %s", line, e.msg);
        assert_non_null(json_get(o, "check"));
        assert_non_null(json_get(o, "result"));
        assert_non_null(json_get(o, "finding"));
        if (strcmp(json_str(json_get(o, "result")), "fail") == 0)
            assert_non_null(json_get(o, "advice"));
        json_free(o);
    }
    assert_int_equal(n, 5); /* name, connect, tls; upgrade and token skipped */
}

static int setup(void **state)
{
    (void)state;
    child_certs_make(&certs);
    lws_peer_start(&peer, LWS_PEER_ECHO, certs.cert, certs.key);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    child_stop(&peer);
    child_remove_dir(certs.dir);
    return mem_live() ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_way_that_works_is_ok_at_every_stage),
        cmocka_unit_test(each_fault_has_its_stage_its_advice_and_its_exit_code),
        cmocka_unit_test(each_json_line_is_an_object),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
