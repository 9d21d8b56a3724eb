/* SPDX-License-Identifier: MIT */
#include "common/ws.h"

#include <stdio.h>

#include "common/limits.h"
#include "tests/support/test.h"

#define TEXT(s) s, sizeof(s) - 1

/* Everything a receiver told, as text: "THello." is a text message, "Ix." a ping;
 * pieces of one message are joined, so that cuts do not show. */
struct story {
    char text[4096];
    size_t n;
    char open; /* the opcode letter of the message being told, or 0 */
    enum ws_result result;
};

static void tell(struct story *s, const struct ws_event *e)
{
    static const char letter[] = "CTB.....XIO";
    char c = letter[e->opcode];
    bool is_control = e->opcode >= WS_CLOSE;

    assert_true(s->n + e->payload.len + 4 < sizeof(s->text));
    if (is_control)
        assert_true(e->message_end);
    if (is_control || s->open != c)
        s->text[s->n++] = c;
    if (e->payload.len > 0)
        memcpy(s->text + s->n, e->payload.p, e->payload.len);
    s->n += e->payload.len;
    s->open = is_control || e->message_end ? 0 : c;
    if (e->message_end)
        s->text[s->n++] = '.';
}

/* The input is copied piece by piece: the receiver unmasks in place. */
static void receive(struct story *s, bool from_client, struct span in, size_t first,
                    size_t step)
{
    struct ws_rx rx;
    uint8_t piece[512];
    size_t at = 0;

    *s = (struct story){.result = WS_MORE};
    ws_rx_init(&rx, from_client);
    while (at < in.len && s->result == WS_MORE) {
        size_t n = at == 0 ? first : step;
        uint8_t *p = piece;
        struct ws_event e;

        if (n > in.len - at)
            n = in.len - at;
        memcpy(piece, in.p + at, n);
        at += n;
        while ((s->result = ws_rx_feed(&rx, &p, &n, &e)) == WS_OK)
            tell(s, &e);
        if (s->result == WS_MORE)
            assert_int_equal(n, 0);
    }
}

static const struct {
    bool from_client;
    const char *text;
    size_t len;
    const char *story;
} good[] = {
    /* RFC 6455 5.7 */
    {false, TEXT("\x81\x05Hello"), "THello."},
    {true, TEXT("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), "THello."},
    {false, TEXT("\x01\x03Hel\x80\x02lo"), "THello."},
    {false, TEXT("\x89\x05Hello"), "IHello."},
    {true, TEXT("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), "OHello."},
    {false, TEXT("\x82\x00"), "B."},
    {false, TEXT("\x89\x00\x8a\x00\x88\x02\x03\xe8"), "I.O.X\x03\xe8."},
    {false, TEXT("\x02\x00\x00\x00\x80\x00"), "B."},
    {false,
     TEXT("\x02\x01"
          "a\x89\x01p\x80\x01"
          "b\x81\x01"
          "c"),
     "BaIp.Bb.Tc."},
    {true, TEXT("\x82\x80\0\0\0\0\x82\x81\0\0\0\0x"), "B.Bx."},
};

static void good_frames_are_told_at_every_cut(void **state)
{
    static struct story s;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        for (size_t first = 1; first <= good[i].len; first++) {
            for (size_t step = 1; step <= good[i].len; step += good[i].len - 1) {
                const char *want = good[i].story;

                receive(&s, good[i].from_client, span_of(good[i].text, good[i].len),
                        first, step);
                assert_int_equal(s.result, WS_MORE);
                /* A piece told before a control frame reopens its message. */
                s.text[s.n] = '\0';
                assert_string_equal(s.text, want);
            }
        }
    }
}

static const struct {
    bool from_client;
    const char *text;
    size_t len;
    enum ws_result result;
} bad[] = {
    {false, TEXT("\xc2"), WS_E_RSV},                            /* 5.2 */
    {false, TEXT("\xa2"), WS_E_RSV},                            /* 5.2 */
    {false, TEXT("\x91"), WS_E_RSV},                            /* 5.2 */
    {false, TEXT("\x83"), WS_E_OPCODE},                         /* 5.2 */
    {false, TEXT("\x87"), WS_E_OPCODE},                         /* 5.2 */
    {false, TEXT("\x8b"), WS_E_OPCODE},                         /* 5.2 */
    {false, TEXT("\x8f"), WS_E_OPCODE},                         /* 5.2 */
    {true, TEXT("\x82\x01"), WS_E_MASK},                        /* 5.1 */
    {false, TEXT("\x82\x81"), WS_E_MASK},                       /* 5.1 */
    {false, TEXT("\x82\x7e\x00\x7d"), WS_E_LENGTH},             /* 5.2: not minimal */
    {false, TEXT("\x82\x7f\0\0\0\0\0\0\xff\xff"), WS_E_LENGTH}, /* 5.2: not minimal */
    {false, TEXT("\x82\x7f\x80\0\0\0\0\0\0\0"), WS_E_LENGTH},   /* 5.2: top bit */
    {false, TEXT("\x82\x7f\0\0\0\0\0\x10\0\x01"), WS_E_LENGTH}, /* over WS_FRAME_MAX */
    {true, TEXT("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"), WS_E_LENGTH},
    {false, TEXT("\x09"), WS_E_CONTROL},           /* 5.5: fragmented */
    {false, TEXT("\x08"), WS_E_CONTROL},           /* 5.5: fragmented */
    {false, TEXT("\x89\x7e"), WS_E_CONTROL},       /* 5.5: over 125 */
    {false, TEXT("\x88\x7f"), WS_E_CONTROL},       /* 5.5: over 125 */
    {false, TEXT("\x80"), WS_E_FRAGMENT},          /* 5.4: continues nothing */
    {false, TEXT("\x00"), WS_E_FRAGMENT},          /* 5.4 */
    {false, TEXT("\x81\x00\x80"), WS_E_FRAGMENT},  /* 5.4: the message had ended */
    {false, TEXT("\x01\x01x\x81"), WS_E_FRAGMENT}, /* 5.4: new one inside */
    {false, TEXT("\x02\x00\x89\x00\x02"), WS_E_FRAGMENT},
};

static void bad_frames_are_refused_at_the_proving_byte(void **state)
{
    static struct story s;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        for (size_t first = 1; first <= bad[i].len; first++) {
            receive(&s, bad[i].from_client, span_of(bad[i].text, bad[i].len), first, 1);
            assert_int_equal(s.result, bad[i].result);
        }
        receive(&s, bad[i].from_client, span_of(bad[i].text, bad[i].len - 1), 1, 1);
        assert_int_equal(s.result, WS_MORE);
        assert_string_not_equal(ws_result_name(bad[i].result), "?");
    }
}

/* Frames of every length around the three forms, printed and read back. */
static void frames_are_read_back(void **state)
{
    static const size_t len[] = {0,   1,    2,     7,     8,     9,
                                 31,  32,   33,    125,   126,   127,
                                 255, 4096, 65535, 65536, 65537, WS_FRAME_MAX};
    static const uint8_t mask[4] = {0x12, 0xfe, 0x00, 0x9a};
    uint8_t *buf = mem_alloc(WS_HEAD_MAX + WS_FRAME_MAX);

    (void)state;
    assert_non_null(buf);
    for (size_t i = 0; i < 2 * COUNT_OF(len); i++) {
        bool masked = i % 2;
        size_t n = len[i / 2], head, left, got = 0;
        uint8_t *payload = buf + WS_HEAD_MAX, *p;
        struct ws_rx rx;
        struct ws_event e = {.message_end = false};

        for (size_t j = 0; j < n; j++)
            payload[j] = (uint8_t)(j * 7 + j / 256);
        head = ws_frame(payload, n, WS_BINARY, true, masked ? mask : NULL);
        assert_int_equal(head, (n < 126     ? 2u
                                : n < 65536 ? 4u
                                            : 10u) +
                                   (masked ? 4u : 0u));
        ws_rx_init(&rx, masked);
        p = payload - head;
        left = head + n;
        while (!e.message_end) {
            size_t piece = left < 1000 ? left : 1000, before = piece;

            assert_int_equal(ws_rx_feed(&rx, &p, &piece, &e), WS_OK);
            left -= before - piece;
            for (size_t j = 0; j < e.payload.len; j++, got++)
                assert_int_equal(e.payload.p[j], (uint8_t)(got * 7 + got / 256));
        }
        assert_int_equal(got, n);
        assert_int_equal(left, 0);
    }
    mem_free(buf);
}

static void a_frame_over_the_bound_is_refused(void **state)
{
    uint8_t head[] = {0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0}, *p = head;
    size_t n = sizeof(head);
    struct ws_rx rx;
    struct ws_event e;

    (void)state;
    assert_int_equal(WS_FRAME_MAX, 0x100000);
    ws_rx_init(&rx, false);
    assert_int_equal(ws_rx_feed(&rx, &p, &n, &e), WS_MORE);
    head[9] = 1;
    p = head;
    n = sizeof(head);
    ws_rx_init(&rx, false);
    assert_int_equal(ws_rx_feed(&rx, &p, &n, &e), WS_E_LENGTH);
}

static void masking_equals_the_byte_by_byte_form(void **state)
{
    static const uint8_t mask[4] = {1, 0x20, 0xff, 0x83};
    uint8_t got[100], want[100];

    (void)state;
    for (size_t start = 0; start < 9; start++) {
        for (size_t len = 0; len + start <= sizeof(got); len++) {
            for (uint64_t offset = 0; offset < 5; offset++) {
                memset(got, 0x5a, sizeof(got));
                memset(want, 0x5a, sizeof(want));
                ws_mask(got + start, len, mask, offset);
                for (size_t i = 0; i < len; i++)
                    want[start + i] ^= mask[(i + offset) & 3];
                assert_memory_equal(got, want, sizeof(got));
            }
        }
    }
}

static void control_frames_keep_their_input_untouched(void **state)
{
    uint8_t in[] = {0x89, 0x82, 1, 2, 3, 4, 'a' ^ 1, 'b' ^ 2}, *p = in;
    size_t n = sizeof(in);
    struct ws_rx rx;
    struct ws_event e;

    (void)state;
    ws_rx_init(&rx, true);
    assert_int_equal(ws_rx_feed(&rx, &p, &n, &e), WS_OK);
    assert_true(span_eq(e.payload, span_str("ab")));
    assert_int_equal(e.opcode, WS_PING);
}

static void the_accept_value_is_that_of_the_rfc(void **state)
{
    char out[29];

    (void)state;
    ws_accept_key(span_str("dGhlIHNhbXBsZSBub25jZQ=="), out); /* RFC 6455 1.3 */
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    ws_accept_key(span_str("dGhlIHNhbXBsZSBub25jZQ==="), out);
    assert_string_equal(out, "");
    ws_accept_key(span_str("dGhlIHNhbXBsZSBub25jZQ="), out);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_frames_are_told_at_every_cut),
        cmocka_unit_test(bad_frames_are_refused_at_the_proving_byte),
        cmocka_unit_test(frames_are_read_back),
        cmocka_unit_test(a_frame_over_the_bound_is_refused),
        cmocka_unit_test(masking_equals_the_byte_by_byte_form),
        cmocka_unit_test(control_frames_keep_their_input_untouched),
        cmocka_unit_test(the_accept_value_is_that_of_the_rfc),
    };

    return cmocka_run_group_tests_name("common/ws", tests, NULL, NULL);
}
