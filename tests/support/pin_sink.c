/* SPDX-License-Identifier: MIT */
#include "tests/support/pin_sink.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "common/sock.h"
#include "tests/support/test.h"

void pin_sink_open(struct pin_sink *s)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int room = 1 << 20;

    memset(s, 0, sizeof(*s));
    s->other = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(s->other >= 0 && s->fd >= 0);
    (void)setsockopt(s->other, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    assert_int_equal(bind(s->other, (struct sockaddr *)&at, len), 0);
    assert_int_equal(getsockname(s->other, (struct sockaddr *)&at, &len), 0);
    assert_int_equal(connect(s->fd, (struct sockaddr *)&at, len), 0);
}

void pin_sink_close(struct pin_sink *s)
{
    sock_close(&s->fd);
    sock_close(&s->other);
}

/* What no rule of ours would take fails the test. */
static struct pin parse(const uint8_t *note, size_t len)
{
    const uint32_t tag = PIN_SINK_TAG;
    const uint8_t *key = note + PIN_KEY_AT;
    struct pin p = {.addr.family = note[0] == 4 ? AF_INET : AF_INET6};
    size_t width = ip_bytes(p.addr.family);
    uint16_t port;

    assert_true(note[0] == 4 || note[0] == 6);
    assert_int_equal(len, PIN_KEY_AT + width + 12);
    assert_true(note[1] <= PIN_LIVES && note[2] == 0 && note[3] == 0);
    assert_memory_equal(key, &tag, sizeof(tag));
    memcpy(p.addr.bytes, key + 4, width);
    assert_int_equal(key[4 + width], IPPROTO_TCP);
    memcpy(&port, key + 8 + width, sizeof(port));
    p.port = ntohs(port);
    p.life_s = note[1] > 0 ? pin_life_s(note[1] - 1U) : 0;
    return p;
}

static void take(struct pin_sink *s)
{
    uint8_t note[PIN_NOTE_MAX + 1];
    ssize_t len;

    while ((len = recv(s->other, note, sizeof(note), 0)) >= 0) {
        struct pin p = parse(note, (size_t)len);
        size_t i = 0;

        s->notes++;
        while (i < s->n && (s->pin[i].port != p.port || !ip_eq(&s->pin[i].addr, &p.addr)))
            i++;
        assert_true(i < PIN_SINK_MAX);
        s->n += i == s->n;
        s->pin[i] = p;
    }
}

uint32_t pin_sink_life(struct pin_sink *s, const char *addr, uint16_t port)
{
    struct ip_addr a;

    take(s);
    assert_int_equal(ip_parse(span_str(addr), &a), 0);
    for (size_t i = 0; i < s->n; i++)
        if (s->pin[i].port == port && ip_eq(&s->pin[i].addr, &a))
            return s->pin[i].life_s;
    return 0;
}

unsigned pin_sink_notes(struct pin_sink *s)
{
    take(s);
    return s->notes;
}

size_t pin_sink_count(struct pin_sink *s)
{
    size_t n = 0;

    take(s);
    for (size_t i = 0; i < s->n; i++)
        n += s->pin[i].life_s > 0;
    return n;
}

uint32_t pin_sink_as(uint32_t life_s)
{
    unsigned n = 0;

    while (pin_life_s(n) < life_s)
        n++;
    return pin_life_s(n);
}
