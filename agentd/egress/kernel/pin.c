/* SPDX-License-Identifier: MIT */
#include "agentd/egress/kernel/pin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/egress/sandbox_name.h"

enum {
    PIN_PORT = 9, /* discard (RFC 863): nothing gets there */
};

uint32_t pin_life_s(unsigned n)
{
    return UINT32_C(1) << 2 * n;
}

/* From 1; 0: it is to go. */
static unsigned life_of(uint32_t life_s)
{
    unsigned n = 0;

    if (life_s == 0)
        return 0;
    while (pin_life_s(n) < life_s)
        n++;
    return n + 1;
}

size_t pin_note(uint8_t out[PIN_NOTE_MAX], uint32_t tag, const struct pin *p)
{
    bool is4 = p->addr.family == AF_INET;
    size_t width = ip_bytes(p->addr.family);
    uint8_t *key = out + PIN_KEY_AT;
    uint16_t port = htons(p->port);

    if ((!is4 && p->addr.family != AF_INET6) || p->port == 0 ||
        p->life_s > PIN_LIFE_MAX_S)
        return 0;
    memset(out, 0, PIN_NOTE_MAX);
    out[0] = is4 ? 4 : 6;
    out[1] = (uint8_t)life_of(p->life_s);
    memcpy(key, &tag, sizeof(tag)); /* as the kernel keeps marks */
    memcpy(key + 4, p->addr.bytes, width);
    key[4 + width] = IPPROTO_TCP;
    memcpy(key + 8 + width, &port, sizeof(port));
    return PIN_KEY_AT + width + 12;
}

int pin_tie(int fd, uint32_t mark, struct err *e)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(PIN_PORT),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0)
        return err_sys(e, "mark a socket for pins");
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        return err_sys(e, "connect a socket for pins");
    return 0;
}

int pin_put(int fd, uint32_t tag, const struct pin *p)
{
    uint8_t note[PIN_NOTE_MAX];
    size_t len = pin_note(note, tag, p);
    int refused = 0;
    ssize_t n;

    if (len == 0)
        return EINVAL;
    do /* ECONNREFUSED is said of the one before, while another program had flushed the
        * rules: this one was not sent. */
        n = send(fd, note, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && (errno == EINTR || (errno == ECONNREFUSED && refused++ == 0)));
    return n < 0 ? errno : 0;
}
