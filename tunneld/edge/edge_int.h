/* SPDX-License-Identifier: MIT */
/**
 * edge_int -- what the files of the edge share: edge.c (the set), client.c (a connection),
 *             exchange.c (a request and its answer), upstream.c (a stream to the app),
 *             relay.c (bytes both ways).
 *
 * Owner    the edge owns its clients; a client its connection, its exchange and the idle
 *          streams; an exchange the stream it uses and the wait for one.
 * Closing  client_close() may be called anywhere; it lets go of everything at once and is
 *          freed in a deferred job. So after any call that may close, look at
 *          client->state before going on.
 */
#ifndef TUNNELD_EDGE_EDGE_INT_H
#define TUNNELD_EDGE_EDGE_INT_H

#include "common/conn.h"
#include "common/http1.h"
#include "common/log.h"
#include "tunneld/edge/access.h"
#include "tunneld/edge/edge.h"
#include "tunneld/edge/errors.h"
#include "tunneld/edge/site.h"

enum {
    EDGE_RX = 65536,       /* read at once */
    EDGE_RECORD = 16384,   /* a TLS record: head and first bytes go out in one */
    EDGE_AHEAD = 16384,    /* pipelined bytes kept while an exchange runs */
    EDGE_TURN = 262144,    /* bytes moved for one client before others have their turn */
    EDGE_KEPT = 4,         /* idle streams of a client */
    EDGE_KEPT_MS = 15000,  /* an idle stream is given up after this */
    EDGE_FRESH_MS = 1000,  /* a kept stream younger than this takes any request */
    EDGE_INTERIM = 32,     /* 1xx answers before the real one */
    EDGE_HALF_MS = 2000,   /* answers to a client that has ended its direction */
    EDGE_LINGER_MS = 2000, /* reading on after the last answer, so that it arrives */
    EDGE_LINGER_BYTES = 1 << 20,
    EDGE_DRAIN_MS =
        1000, /* a stopping server waits so long for an idle client's request */
    EDGE_SCRATCH = 131072, /* scratch memory above this is given back */
};

struct client;

struct edge {
    struct loop *loop;
    struct registry *registry;
    struct config *conf; /* a reference; not changed */
    struct tls_ctx *tls;
    const struct token_keys *keys;
    uint8_t cookie_key[EDGE_COOKIE_KEY_LEN];
    const struct edge_ops *ops;
    void *owner;
    struct client *clients; /* those waiting to be freed included */
    bool is_draining;
    struct loop_job log_job; /* access lines go out once a turn */
    /* Scratch, each used within one call and never across one that could reuse it: */
    uint8_t *rx;                 /* EDGE_RX bytes from a client */
    struct buf tx;               /* gathered for one write */
    struct http1_head *request;  /* parsed from an exchange's raw */
    struct client *parsed;       /* whose that is now; NULL: nobody's */
    struct http1_head *response; /* parsed from the app's bytes */
};

/** A stream to a port of a sandbox. */
struct upstream {
    struct client *client;     /* borrowed: its owner */
    struct mux_stream *stream; /* NULL: not yet, or gone */
    struct upstream *next;     /* among the client's kept ones */
    char id[HOST_ID_MAX + 1];
    uint16_t port;
    bool is_active;   /* of the running exchange, not kept */
    bool is_accepted; /* by the agent */
    bool is_reused;
    bool has_bytes;   /* something came in this exchange */
    bool has_eof;     /* the app ended its direction */
    uint64_t idle_ms; /* since then it is kept */
    struct http1_scan scan;
    struct buf head; /* part of a response head */
};

/** One request and its answer. */
struct exchange {
    struct buf raw; /* the request's head as it came; what follows points into it */
    struct span method, path;
    struct site site;
    struct sock_addr client; /* who asks, through trusted proxies */
    uint64_t started_ms, answered_ms;
    /* access */
    enum access_kind access;
    char tenant[TOKEN_TENANT_MAX + 1];
    /* way to the app */
    enum control_host_mode mode;
    struct dial *dial;
    struct upstream *up;
    bool redials;       /* in the job: dial again */
    bool after_refusal; /* as dial_want */
    bool was_repeated;
    /* request */
    uint8_t minor;
    bool is_reserved; /* /.tunnel/: ours, and answered in JSON */
    bool is_running;  /* a request came, and no line of the log tells of it yet */
    bool is_head, wants_upgrade, keep_alive, is_repeatable;
    struct http1_body rq;
    struct buf pending; /* of a chunked body: encoded, not yet taken by the stream */
    /* answer */
    bool has_head;  /* the app's final head was read */
    bool head_sent; /* and is on its way: no other answer can be given */
    bool is_done;   /* all of it is written or queued */
    bool app_keeps; /* the app keeps its connection */
    unsigned interim, status;
    const char *error; /* Tunnel-Error, or why it ended early; NULL: none */
    const char *rule;  /* what was broken, with its source; NULL: nothing */
    struct http1_body rs;
    enum http1_framing rs_out;
    uint64_t bytes_up, bytes_down;
};

enum client_state {
    CLIENT_HANDSHAKE,
    CLIENT_HEAD,     /* idle, or in the middle of a request head */
    CLIENT_EXCHANGE, /* one runs, or its last bytes are being written */
    CLIENT_MOVING,   /* in the job: to another worker */
    CLIENT_TUNNEL,   /* upgraded: raw bytes both ways */
    CLIENT_LINGER,   /* finished; reads on for a moment */
    CLIENT_CLOSED,   /* everything let go; freed in the job */
};

/** What the timer stands for. */
enum client_wait {
    WAIT_NONE,
    WAIT_HANDSHAKE,
    WAIT_IDLE,
    WAIT_KEPT, /* as IDLE, and then the kept streams go */
    WAIT_HEAD,
    WAIT_CONNECT,  /* the agent's answer to OPEN */
    WAIT_BODY,     /* more of the request */
    WAIT_RESPONSE, /* the app's head */
    WAIT_FLUSH,    /* the client to take the last bytes */
    WAIT_LINGER,
};

struct client {
    struct edge *edge;
    struct client *next, **prev;
    struct conn *conn; /* NULL: closed */
    struct sock_addr from;
    enum client_state state;
    bool is_trusted; /* what it says of its clients is believed */
    bool is_shared;  /* a balancer's: perhaps many clients; streams are not kept */
    bool is_listed;  /* a TLS listener's */
    bool has_eof;    /* it ended its direction */
    bool is_behind;  /* the stream keeps bytes for it */
    bool moves_link; /* MOVING: to the link server */
    enum client_wait wait;
    uint64_t due_ms, half_due_ms, half_bytes;
    uint64_t accepted_ms;
    struct loop_timer timer;
    struct loop_job job;
    struct http1_scan scan;
    struct buf in;   /* read, not yet used */
    struct bufq out; /* to be written */
    size_t lingered;
    struct upstream *kept;
    struct exchange x;
};

/* -- client.c -------------------------------------------------------------------------- */

/** Takes the guest; NULL when it was closed instead. */
struct client *client_new(struct edge *e, struct worker_guest *take);
/** Close in order. */
void client_close(struct client *c);
/** Close so that it is seen as a cut. */
void client_cut(struct client *c, const char *why);
void client_free(struct client *c);
/** Wait for this, for so long at most. */
void client_wait(struct client *c, enum client_wait what, int64_t ms);
/** The same for the next request: limits.idle_ms, or EDGE_DRAIN_MS in a stopping server. */
void client_wait_idle(struct client *c);
/** Tell the connection what we want of it now. */
void client_watch(struct client *c);
/** Write now what the connection takes and queue the rest. false: the client is closed. */
bool client_send(struct client *c, struct span bytes);
/** Write directly; *ret_n <= bytes.len were taken, fewer: it is behind. false: closed. */
bool client_write(struct client *c, struct span bytes, size_t *ret_n);

/* -- intake.c -------------------------------------------------------------------------- */

void intake_readable(struct client *c);
/** @bytes  from a head's first byte: all of c->in, or all that was read with c->in empty */
void intake_feed(struct client *c, struct span bytes);
/** The client ended its direction (CONN_EOF), or is gone. */
void intake_end(struct client *c, enum conn_result r);
/** The exchange is over and its bytes are written: the next, or the end. */
void client_next(struct client *c);

/* -- exchange.c ------------------------------------------------------------------------ */

/** A whole head lies in x.raw. */
void exchange_begin(struct client *c);
/** What came is no request: answer and close. */
void exchange_refuse(struct client *c, enum http1_result r, const char *rule);
/** Answer with an error of ours, or cut when an answer has begun. */
void exchange_fail(struct client *c, enum error_code code);
/** The request's head, parsed from x.raw into the edge's scratch; NULL: none was kept. */
const struct http1_head *exchange_head(struct client *c);
/** The app broke a rule. */
void exchange_bad_answer(struct client *c, const char *rule);
/** The whole answer was given to the client or its queue. */
void exchange_done(struct client *c);
/** Let go of stream, wait and memory. */
void exchange_drop(struct client *c, enum mux_reason why);
void exchange_log(struct client *c);

/* -- dialing.c ------------------------------------------------------------------------- */

/** A kept stream or a new one; then the request goes out. */
void exchange_dial(struct client *c);
/** The stream ended (NONE: in order) before the answer did. */
void exchange_lost(struct client *c, enum mux_reason why);
/** The agent accepted the stream. */
void exchange_accepted(struct client *c);

/* -- upstream.c ------------------------------------------------------------------------ */

extern const struct mux_stream_ops upstream_ops;
struct upstream *upstream_new(struct client *c, const struct site *s);
/** The dial gave this stream. */
void upstream_open(struct upstream *u, struct mux_stream *s);
/** A kept stream to there, idle for at most max_ms; NULL: none. */
struct upstream *upstream_take(struct client *c, const struct site *s, uint64_t max_ms);
void upstream_keep(struct upstream **take);
/** Reset what is open, and free. NULL is fine. */
void upstream_drop(struct upstream **take, enum mux_reason why);
void upstream_drop_kept(struct client *c);

/* -- relay.c --------------------------------------------------------------------------- */

enum relay_result {
    RELAY_MORE,
    RELAY_DONE,   /* the answer is complete */
    RELAY_BAD,    /* *ret_rule was broken; nothing of these bytes was sent */
    RELAY_CLOSED, /* the client is */
};
/** Bytes from the app; *ret_used of them were taken. */
enum relay_result relay_down(struct client *c, struct span bytes, size_t *ret_used,
                             const char **ret_rule);
/** Bytes that the stream keeps, now that the client takes some. */
void relay_pull(struct client *c);
/** Act on what relay_down() said. */
void relay_act(struct client *c, enum relay_result r, const char *rule);
/** The app ended its direction and all before was taken. */
void relay_eof(struct client *c);
/** Body or tunnel bytes from the client, while there are some and the stream has room. */
void relay_up(struct client *c);

/* -- answer.c -------------------------------------------------------------------------- */

/** The app's head, into e->tx. */
enum relay_result answer_head(struct client *c, struct span *bytes,
                              const char **ret_rule);

#endif
