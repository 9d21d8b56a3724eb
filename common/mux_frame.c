/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "common/limits.h"
#include "common/mux_wire.h"
#include "common/wire.h"

/* What may stand in a head, by type. */
static const struct mux_rule {
    uint16_t min_len, max_len;
    uint8_t flags;
    bool is_link; /* on stream 0, all others are not */
} rules[MUX_TYPE_COUNT] = {
    [MUX_TYPE_OPEN] = {4, MUX_OPEN_MAX, 0, false},
    [MUX_TYPE_ACCEPT] = {0, 0, 0, false},
    [MUX_TYPE_DATA] = {0, MUX_FRAME_MAX, MUX_FLAG_FIN, false},
    [MUX_TYPE_CREDIT] = {8, 8, 0, false},
    [MUX_TYPE_RESET] = {1, 1, 0, false},
    [MUX_TYPE_PING] = {8, 8, 0, true},
    [MUX_TYPE_PONG] = {8, 8, 0, true},
    [MUX_TYPE_GOAWAY] = {1, 1, 0, true},
};

static const char *const reasons[MUX_REASON_COUNT] = {
    [MUX_REASON_NONE] = "none",
    [MUX_REASON_CANCEL] = "cancel",
    [MUX_REASON_REFUSED] = "refused",
    [MUX_REASON_NOT_PUBLISHED] = "not-published",
    [MUX_REASON_UNREACHABLE] = "unreachable",
    [MUX_REASON_TIMEOUT] = "timeout",
    [MUX_REASON_LIMIT] = "limit",
    [MUX_REASON_IO] = "io",
    [MUX_REASON_PROTOCOL] = "protocol",
    [MUX_REASON_LINK] = "link",
    [MUX_REASON_REPLACED] = "replaced",
    [MUX_REASON_DRAIN] = "drain",
    [MUX_REASON_TOKEN] = "token",
};

const char *mux_reason_name(enum mux_reason r)
{
    return (unsigned)r < MUX_REASON_COUNT ? reasons[r] : "?";
}

const char *mux_result_name(enum mux_result r)
{
    switch (r) {
    case MUX_OK:
        return "ok";
    case MUX_E_PROTOCOL:
        return "protocol";
    case MUX_E_NOMEM:
        return "nomem";
    case MUX_E_LIMIT:
        return "limit";
    case MUX_E_CLOSED:
        return "closed";
    }
    return "?";
}

const char *mux_fault_text(enum mux_fault_id f)
{
#define MUX_FAULT_TEXT(id, text) [MUX_FAULT_##id] = (text),
    static const char *const texts[MUX_FAULT_COUNT] = {[MUX_FAULT_NONE] = "",
                                                       MUX_FAULT_MAP(MUX_FAULT_TEXT)};
    return (unsigned)f < MUX_FAULT_COUNT ? texts[f] : "?";
}

bool mux_reason_is_wire(unsigned reason)
{
    return reason > MUX_REASON_NONE && reason < MUX_REASON_COUNT &&
           reason != MUX_REASON_LINK;
}

enum mux_fault_id mux_head_parse(const uint8_t in[MUX_HEAD_LEN], struct mux_head *ret)
{
    struct mux_head h = {
        .type = in[0],
        .flags = in[1],
        .len = (uint16_t)(in[2] << 8 | in[3]),
        .stream =
            (uint32_t)in[4] << 24 | (uint32_t)in[5] << 16 | (uint32_t)in[6] << 8 | in[7],
    };
    const struct mux_rule *r;

    if (h.type == 0 || h.type >= MUX_TYPE_COUNT)
        return MUX_FAULT_TYPE;
    r = &rules[h.type];
    if ((h.flags & ~r->flags) != 0)
        return MUX_FAULT_FLAGS;
    if (h.len < r->min_len || h.len > r->max_len)
        return MUX_FAULT_LENGTH;
    if (r->is_link && h.stream != 0)
        return MUX_FAULT_ON_STREAM;
    if (!r->is_link && h.stream == 0)
        return MUX_FAULT_ON_LINK;
    if (h.type == MUX_TYPE_DATA && h.len == 0 && h.flags == 0)
        return MUX_FAULT_DATA_EMPTY;
    *ret = h;
    return MUX_FAULT_NONE;
}

void mux_head_put(uint8_t out[MUX_HEAD_LEN], struct mux_head h)
{
    out[0] = h.type;
    out[1] = h.flags;
    out[2] = (uint8_t)(h.len >> 8);
    out[3] = (uint8_t)h.len;
    out[4] = (uint8_t)(h.stream >> 24);
    out[5] = (uint8_t)(h.stream >> 16);
    out[6] = (uint8_t)(h.stream >> 8);
    out[7] = (uint8_t)h.stream;
}

size_t mux_open_put(uint8_t out[MUX_OPEN_MAX], const struct mux_open *open)
{
    const struct sock_addr *c = &open->client;
    sa_family_t family = c->len > 0 ? c->u.sa.sa_family : AF_UNSPEC;

    out[0] = (uint8_t)(open->port >> 8);
    out[1] = (uint8_t)open->port;
    out[2] = (uint8_t)open->kind;
    out[3] = 0;
    /* Ports and addresses of a sockaddr are in network order already. */
    if (family == AF_INET) {
        out[3] = 4;
        memcpy(out + 4, &c->u.in.sin_port, 2);
        memcpy(out + 6, &c->u.in.sin_addr, 4);
        return 10;
    }
    if (family == AF_INET6) {
        out[3] = 6;
        memcpy(out + 4, &c->u.in6.sin6_port, 2);
        memcpy(out + 6, &c->u.in6.sin6_addr, 16);
        return 22;
    }
    return 4;
}

enum mux_fault_id mux_open_parse(const uint8_t *in, size_t len, struct mux_open *ret)
{
    struct mux_open open = {0};

    open.port = (uint16_t)(in[0] << 8 | in[1]);
    if (open.port == 0)
        return MUX_FAULT_OPEN_PORT;
    if (in[2] >= MUX_KIND_COUNT)
        return MUX_FAULT_OPEN_KIND;
    open.kind = (enum mux_kind)in[2];
    if (in[3] == 4 && len == 10) {
        open.client.len = sizeof(open.client.u.in);
        open.client.u.in.sin_family = AF_INET;
        memcpy(&open.client.u.in.sin_port, in + 4, 2);
        memcpy(&open.client.u.in.sin_addr, in + 6, 4);
    } else if (in[3] == 6 && len == 22) {
        open.client.len = sizeof(open.client.u.in6);
        open.client.u.in6.sin6_family = AF_INET6;
        memcpy(&open.client.u.in6.sin6_port, in + 4, 2);
        memcpy(&open.client.u.in6.sin6_addr, in + 6, 16);
    } else if (in[3] != 0 || len != 4) {
        return MUX_FAULT_OPEN_CLIENT;
    }
    *ret = open;
    return MUX_FAULT_NONE;
}

uint64_t mux_u64(const uint8_t in[8])
{
    struct wire_rd r = wire_rd_init(in, 8);
    uint64_t high = wire_rd_uint(&r, 4);

    return high << 32 | wire_rd_uint(&r, 4);
}

void mux_u64_put(uint8_t out[8], uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        out[i] = (uint8_t)v;
}
