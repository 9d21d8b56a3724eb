/* SPDX-License-Identifier: MIT */
/**
 * control -- the JSON objects in a link's text messages (docs/PROTOCOL.md 4), as structs.
 *            Parsing is strict about types and lenient about unknown members (a newer
 *            agent may send more); printing gives one line.
 */
#ifndef COMMON_CONTROL_H
#define COMMON_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/host.h"

#define CONTROL_VERSION      1
#define CONTROL_INSTANCE_MAX 64
#define CONTROL_PROCESS_MAX  64
#define CONTROL_URL_MAX      320
#define CONTROL_PORTS_MAX    1024 /* published ports of one sandbox */

enum control_type {
    CONTROL_HELLO,   /* agent -> server, first */
    CONTROL_WELCOME, /* server -> agent, the answer */
    CONTROL_PORT,    /* agent -> server: a port is there, or its options changed */
    CONTROL_GONE,    /* agent -> server: a port is gone */
    CONTROL_URL,     /* server -> agent: the port's URL and visibility, or why not */
    CONTROL_GOAWAY,  /* server -> agent: the link will end, why and what to do */
    CONTROL_TYPE_COUNT
};

enum control_visibility {
    CONTROL_DEFAULT, /* the server's default_visibility */
    CONTROL_PRIVATE,
    CONTROL_PUBLIC, /* needs `public` in the token */
};
enum control_host_mode {
    CONTROL_LOCALHOST,
    CONTROL_PRESERVE
};

struct control_msg {
    enum control_type type;
    union {
        struct {
            unsigned version;
            char instance[CONTROL_INSTANCE_MAX + 1]; /* random per agent process */
            char agent[64 + 1];                      /* "agentd/0.1.0" */
            char hostname[64 + 1];                   /* for "replaced by" */
            uint32_t window, max_streams;
            /* ports the agent will never publish: port-closed at once, no hold */
            struct port_list excluded;
        } hello;
        struct {
            unsigned version;
            uint32_t window, max_streams;
            char url_form[CONTROL_URL_MAX + 1]; /* "https://{port}-demo.example.com/" */
        } welcome;
        struct {
            uint16_t port;
            enum control_visibility visibility;
            enum control_host_mode host_mode;
            char name[HOST_LABEL_MAX + 1]; /* "" : none asked */
            char process[CONTROL_PROCESS_MAX + 1];
            char address[64 + 1];
        } port; /* GONE uses only .port */
        struct {
            uint16_t port;
            bool is_refused;
            char why[160 + 1]; /* when refused: a sentence */
            char url[CONTROL_URL_MAX + 1];
            bool is_public;
        } url;
        struct {
            char reason[32 + 1]; /* mux_reason_name() */
            char by[128 + 1];    /* replaced: host name and instance of the other */
            char at[40 + 1];     /* RFC 3339 */
            uint32_t retry_after_ms;
        } goaway;
    } u;
};

/** 0, or -1 with ERR_PROTO naming member and rule. An unknown type is not an error:
 *  returns 1 and sets nothing, the caller ignores the message. */
int control_parse(struct span text, struct control_msg *ret, struct err *e);
int control_print(const struct control_msg *m, struct buf *out); /* 0, or -1: no memory */

#endif
