/* SPDX-License-Identifier: MIT */
#include "common/mux_wire.h"

#include "tests/support/test.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mux_engine.h"
#include "tests/support/mux_scene.h"

static char *document(void)
{
    FILE *f = fopen("docs/PROTOCOL.md", "r");
    char *text = calloc(1, 1 << 17);

    if (f == NULL)
        fail_msg("docs/PROTOCOL.md is not there: run this from the top of the tree");
    assert_true(fread(text, 1, (1 << 17) - 1, f) > 1000);
    fclose(f);
    return text;
}

/* The next line of a ``` block, without its newline; NULL at the end. */
static char *block(char *doc, const char *name)
{
    char mark[40];
    char *p;

    (void)snprintf(mark, sizeof(mark), "\n```%s\n", name);
    p = strstr(doc, mark);
    assert_non_null(p);
    return p + strlen(mark);
}

static char *line(char **at)
{
    char *p = *at, *end = strchr(p, '\n');

    assert_non_null(end);
    if (strncmp(p, "```", 3) == 0)
        return NULL;
    *end = '\0';
    *at = end + 1;
    return p;
}

/* Cuts at " | " and returns what comes after. */
static char *cell(char *p)
{
    char *bar = strstr(p, " | ");

    assert_non_null(bar);
    *bar = '\0';
    return bar + 3;
}

static size_t unhex(const char *p, uint8_t *out, size_t cap)
{
    size_t n = 0;
    unsigned v;
    int used;

    while (sscanf(p, " %2x%n", &v, &used) == 1) {
        assert_true(n < cap);
        out[n++] = (uint8_t)v;
        p += used;
    }
    assert_int_equal(*p, '\0');
    return n;
}

static void print_client(const struct sock_addr *a, char *out, size_t cap)
{
    char ip[INET6_ADDRSTRLEN];
    int port = ntohs(a->u.in.sin_port);

    if (a->len == 0) {
        (void)snprintf(out, cap, "none");
    } else if (a->u.sa.sa_family == AF_INET) {
        assert_non_null(inet_ntop(AF_INET, &a->u.in.sin_addr, ip, sizeof(ip)));
        (void)snprintf(out, cap, "%s:%d", ip, port);
    } else {
        assert_non_null(inet_ntop(AF_INET6, &a->u.in6.sin6_addr, ip, sizeof(ip)));
        (void)snprintf(out, cap, "[%s]:%d", ip, ntohs(a->u.in6.sin6_port));
    }
}

static void print_frame(const uint8_t *p, size_t len, char *out, size_t cap)
{
    static const char *const kinds[] = {"http", "tcp"};
    const uint8_t *body = p + MUX_HEAD_LEN;
    struct mux_open open;
    struct mux_head h;
    char client[80];

    assert_int_equal(mux_head_parse(p, &h), MUX_FAULT_NONE);
    assert_int_equal(len, MUX_HEAD_LEN + h.len);
    switch ((enum mux_type)h.type) {
    case MUX_TYPE_OPEN:
        assert_int_equal(mux_open_parse(body, h.len, &open), MUX_FAULT_NONE);
        print_client(&open.client, client, sizeof(client));
        (void)snprintf(out, cap, "OPEN stream=%u port=%u kind=%s client=%s", h.stream,
                       open.port, kinds[open.kind], client);
        break;
    case MUX_TYPE_ACCEPT:
        (void)snprintf(out, cap, "ACCEPT stream=%u", h.stream);
        break;
    case MUX_TYPE_DATA:
        (void)snprintf(out, cap, "DATA stream=%u%s%s%.*s", h.stream,
                       h.flags & MUX_FLAG_FIN ? " fin" : "", h.len > 0 ? " " : "", h.len,
                       (const char *)body);
        break;
    case MUX_TYPE_CREDIT:
        (void)snprintf(out, cap, "CREDIT stream=%u offset=%llu", h.stream,
                       (unsigned long long)mux_u64(body));
        break;
    case MUX_TYPE_RESET:
        (void)snprintf(out, cap, "RESET stream=%u %s", h.stream,
                       mux_reason_name((enum mux_reason)body[0]));
        break;
    case MUX_TYPE_PING:
    case MUX_TYPE_PONG:
        (void)snprintf(out, cap, "%s %016llx", h.type == MUX_TYPE_PING ? "PING" : "PONG",
                       (unsigned long long)mux_u64(body));
        break;
    case MUX_TYPE_GOAWAY:
        (void)snprintf(out, cap, "GOAWAY %s", mux_reason_name((enum mux_reason)body[0]));
        break;
    case MUX_TYPE_COUNT:
        break;
    }
}

static void frames_read_as_the_document_says(void **state)
{
    char *doc = document(), *at = block(doc, "frames"), *words, text[200];
    uint8_t frame[64], again[64];
    struct mux_head h;
    unsigned rows = 0;
    size_t len;

    (void)state;
    for (; (words = line(&at)) != NULL; rows++) {
        len = unhex(cell(words), frame, sizeof(frame));
        print_frame(frame, len, text, sizeof(text));
        assert_string_equal(text, words);

        /* And back. */
        memcpy(again, frame, sizeof(again));
        assert_int_equal(mux_head_parse(frame, &h), MUX_FAULT_NONE);
        mux_head_put(again, h);
        if (h.type == MUX_TYPE_OPEN) {
            struct mux_open open;

            (void)mux_open_parse(frame + MUX_HEAD_LEN, h.len, &open);
            memset(again + MUX_HEAD_LEN, 0, sizeof(again) - MUX_HEAD_LEN);
            assert_int_equal(mux_open_put(again + MUX_HEAD_LEN, &open), h.len);
        }
        assert_memory_equal(again, frame, len);
    }
    assert_true(rows >= MUX_TYPE_COUNT);
    free(doc);
}

static void every_result_and_fault_has_its_own_text(void **state)
{
    static const char *const names[] = {"ok", "protocol", "nomem", "limit", "closed"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        assert_string_equal(mux_result_name((enum mux_result)i), names[i]);
    assert_string_equal(mux_result_name((enum mux_result)COUNT_OF(names)), "?");
    assert_string_equal(mux_reason_name(MUX_REASON_COUNT), "?");
    for (int i = 1; i < MUX_FAULT_COUNT; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(mux_fault_text((enum mux_fault_id)i),
                                    mux_fault_text((enum mux_fault_id)k));
}

static void reasons_are_those_of_the_document(void **state)
{
    char *doc = document(), row[80];

    (void)state;
    for (unsigned i = 0; i < MUX_REASON_COUNT; i++) {
        (void)snprintf(row, sizeof(row), "\n| %u | `%s` |", i,
                       mux_reason_name((enum mux_reason)i));
        if (strstr(doc, row) == NULL)
            fail_msg("no row in docs/PROTOCOL.md:%s", row);
    }
    free(doc);
}

static void an_exchange_is_byte_for_byte_the_documents(void **state)
{
    struct scene *sc = *state;
    char *doc = document(), *at = block(doc, "exchange"), *who;
    uint8_t want[256], out[MUX_SEND_MIN];
    struct mux_open open = {.port = 3000, .kind = MUX_KIND_HTTP};
    struct scene_user *server = NULL;
    enum mux_result why;
    unsigned rows = 0;

    pair_done(&sc->pair);
    scene_init(sc, 16, 16);
    for (; (who = line(&at)) != NULL; rows++) {
        size_t len = unhex(cell(who), want, sizeof(want)), n;
        int side = who[0] == 'A' ? PAIR_AGENT : PAIR_SERVER;

        if (rows == 0) {
            server = scene_add_user(sc, PAIR_SERVER);
            server->s = mux_open(sc->pair.mux[PAIR_SERVER], &open, &scene_stream_ops,
                                 server, &why);
            scene_say(server, "0123456789abcdefghij");
            mux_stream_finish(server->s);
        } else if (rows == 3) {
            scene_say(&sc->user[PAIR_AGENT][0], "ok");
            mux_stream_finish(sc->user[PAIR_AGENT][0].s);
        }
        n = mux_send(sc->pair.mux[side], out, sizeof(out), sc->pair.now_us);
        assert_int_equal(n, len);
        assert_memory_equal(out, want, n);
        assert_int_equal(mux_recv(sc->pair.mux[!side], span_of(want, len), 1), MUX_OK);
    }
    assert_int_equal(rows, 4);
    assert_string_equal(sc->user[PAIR_AGENT][0].log, "eof closed:none");
    assert_string_equal(server->log, "accepted eof closed:none");
    assert_memory_equal(server->bytes, "ok", 2);
    free(doc);
}

/* A server as section 10 describes it, fed in pieces of `piece` bytes. */
static const char *fault_of(const char *how, const uint8_t *p, size_t len, size_t piece)
{
    static const uint8_t accept[] = {2, 0, 0, 0, 0, 0, 0, 2};
    struct mux_conf conf = {
        .role = MUX_SERVER, .window = 16, .window_max = 16, .max_streams = 2};
    struct mux_ops ops = {0};
    struct mux_open open = {.port = 1};
    struct mux_stream_ops sops = {0};
    struct mux *m = mux_new(&conf, &ops, NULL);
    enum mux_result r = MUX_OK, why;
    uint8_t out[MUX_SEND_MIN];
    const char *fault;

    assert_non_null(m);
    if (strcmp(how, "fresh") != 0)
        mux_set_peer(m, 16, 8);
    if (strcmp(how, "open") == 0 || strcmp(how, "accepted") == 0) {
        assert_non_null(mux_open(m, &open, &sops, NULL, &why));
        assert_true(mux_send(m, out, sizeof(out), 1) > 0);
    }
    if (strcmp(how, "accepted") == 0)
        assert_int_equal(mux_recv(m, span_of(accept, sizeof(accept)), 1), MUX_OK);
    for (size_t at = 0; at < len && r == MUX_OK; at += piece)
        r = mux_recv(m, span_of(p + at, len - at < piece ? len - at : piece), 2);
    assert_int_equal(r, MUX_E_PROTOCOL);
    /* Dead: it says the same again, and nothing else. */
    assert_int_equal(mux_recv(m, span_of(accept, 8), 3), MUX_E_PROTOCOL);
    assert_int_equal(mux_send(m, out, sizeof(out), 3), 0);
    assert_null(mux_open(m, &open, &sops, NULL, &why));
    fault = mux_fault(m);
    mux_free(m);
    return fault;
}

static void each_broken_rule_is_named(void **state)
{
    char *doc = document(), *at = block(doc, "faults"), *how;
    bool seen[MUX_FAULT_COUNT] = {false};
    uint8_t bytes[256];

    (void)state;
    while ((how = line(&at)) != NULL) {
        char *rule = cell(how), *hex = cell(rule);
        size_t len = unhex(hex, bytes, sizeof(bytes));

        assert_string_equal(fault_of(how, bytes, len, len), rule);
        assert_string_equal(fault_of(how, bytes, len, 1), rule);
        for (int f = 0; f < MUX_FAULT_COUNT; f++)
            seen[f] |= strcmp(rule, mux_fault_text((enum mux_fault_id)f)) == 0;
    }
    for (int f = 1; f < MUX_FAULT_COUNT; f++)
        if (!seen[f] && f != MUX_FAULT_FLOOD)
            fail_msg("no vector for: %s", mux_fault_text((enum mux_fault_id)f));
    free(doc);

    /* Each rule is a row of section 9 as well. */
    doc = document();
    for (int f = 1; f < MUX_FAULT_COUNT; f++) {
        char row[100];

        (void)snprintf(row, sizeof(row), "\n| %s |",
                       mux_fault_text((enum mux_fault_id)f));
        if (strstr(doc, row) == NULL)
            fail_msg("no row in docs/PROTOCOL.md 9:%s", row);
    }
    free(doc);
}

#define T(f) cmocka_unit_test_setup_teardown(f, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_read_as_the_document_says),
        cmocka_unit_test(every_result_and_fault_has_its_own_text),
        cmocka_unit_test(reasons_are_those_of_the_document),
        T(an_exchange_is_byte_for_byte_the_documents),
        cmocka_unit_test(each_broken_rule_is_named),
    };

    return cmocka_run_group_tests_name("common/mux_frame", tests, NULL, NULL);
}
