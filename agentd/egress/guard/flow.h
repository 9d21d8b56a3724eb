/* SPDX-License-Identifier: MIT */
/**
 * flow -- one connection of a sandbox, and what the files of flows share. Nobody else's.
 *
 *   LOOK ----> NAMES ----> DIAL ----> [ASK_PROXY] ----> RELAY ----> dead
 *     |          |           |             |              |
 *     |          `-----------+-------------+--> REPLY ----+   an HTTP program is told in words,
 *     `---------------------------------------^           `-> and may read them before the end
 *
 * LOOK       bytes of the program are gathered until they name something (TLS, HTTP); other
 *            ports go on at once
 * NAMES      our own resolution of the name
 * DIAL       to one of the addresses, each decided by itself; or to the upstream proxy
 * RELAY      two directions, each with at most one read's bytes in hand
 * REPLY      our answer is being written and read; nothing goes out any more
 *
 * A flow that ends is DEAD at once, in any state and from anywhere, and freed by a job.
 */
#ifndef AGENTD_EGRESS_GUARD_FLOW_H
#define AGENTD_EGRESS_GUARD_FLOW_H

#include "agentd/egress/guard/flow_limit.h"
#include "agentd/egress/guard/flows.h"
#include "agentd/egress/guard/http_gate.h"
#include "agentd/egress/guard/keeper_link.h"
#include "agentd/egress/guard/names.h"
#include "agentd/egress/guard/ward.h"
#include "agentd/link/happy.h"
#include "agentd/link/proxy_connect.h"
#include "common/conn.h"
#include "common/limits.h"
#include "common/loop.h"

struct dns_ask;

#define FLOW_LOOK_PLAIN_MS 1000 /* for a silent program, where its address would do */
#define FLOW_WHO_MS                                                                      \
    20 /* a refusal is told this much later at most, to know whose it is */
#define FLOW_TICK_MS        1000 /* rules that expire */
#define FLOW_REFILL_MS      20   /* directions that wait for their rate */
#define FLOW_KEEPALIVE_S    120 /* a silent outer connection is asked whether it is there */
#define FLOW_LINGER_BYTES   8388608 /* of a refused request, read away for its answer */
#define FLOW_PROXY_CACHE_MS 30000   /* an address of the proxy's name is used so long */
/* Bytes in hand, a sandbox. Over it reads are FLOW_READ_SMALL, and what is not decided
 * yet is refused. */
#define FLOW_HELD_MAX 67108864
#define FLOW_HELD_ALL_MAX                                                                \
    (16 * (size_t)FLOW_HELD_MAX) /* all sandboxes': then each keeps to its part */
#define FLOW_READ_SMALL 4096
#define FLOW_READ_HTTP  65536 /* requests may have to wait, with all that was read */

enum flow_state {
    FLOW_LOOK,
    FLOW_NAMES,
    FLOW_REFUSING, /* it waits, FLOW_WHO_MS at most, to be told whose it is */
    FLOW_DIAL,
    FLOW_ASK_PROXY,
    FLOW_RELAY,
    FLOW_REPLY,
    FLOW_DEAD,
};

/* How a flow ended; the word is in the record. */
enum flow_end {
    FLOW_CLOSED,
    FLOW_RESET,
    FLOW_POLICY,      /* no longer allowed */
    FLOW_LIMIT,       /* its bytes are used up */
    FLOW_GUARD,       /* the guard ended, or refused what came later */
    FLOW_NAME,        /* the name has no address */
    FLOW_UNREACHABLE, /* nobody takes the connection */
    FLOW_PROXY,       /* the upstream proxy does not */
    FLOW_NO_MEMORY,
};

/* By what it was decided. */
enum flow_by {
    FLOW_BY_NOTHING, /* not yet */
    FLOW_BY_NAME,    /* a name that was read: our own addresses of it */
    FLOW_BY_PIN,     /* a name that the address was pinned for: that address */
    FLOW_BY_ADDR,    /* the address */
};

struct flow_pump {
    struct buf held; /* read or made, not yet taken by the other side */
    size_t pos;
    bool has_eof;   /* the source has ended */
    bool is_done;   /* and the sink knows */
    bool is_paused; /* by a rate; in flows->paused */
    bool is_bulk;   /* the last read was long */
    uint64_t bytes; /* read from the source */
};

struct flow {
    struct flows *flows;
    struct flow *next, **prev;
    struct sock_addr from, to;  /* the program; what it meant */
    uint64_t started_ms;        /* wall clock */
    struct conn *inner, *outer; /* the program; the world. NULL where there is none */
    struct loop_timer deadline;
    struct buf in;  /* of the program, not yet used */
    size_t in_held; /* of it, counted in flows->held */
    uint64_t look_until_ms;
    enum flow_state state;
    enum policy_check check;
    enum flow_by by;
    int asked; /* names: the family */

    struct verdict verdict;   /* the one it goes by */
    struct policy *policy;    /* the verdict's; counted */
    struct flow_limit *limit; /* the rule's; NULL: none. Borrowed from flows */

    struct http_gate *gate; /* HTTP that is understood; NULL: else */
    struct buf words;       /* our answer, once it may be said */
    size_t drained;         /* REPLY: read away */

    struct names_ask *asking;
    struct happy *happy;
    size_t n_addr, next_addr; /* of addr[] */

    struct proxy_url proxy;
    struct proxy_connect proxy_talk;
    struct dns_ask *proxy_asking;

    struct flow_pump up, down;
    struct flow *paused_next, **paused_prev;

    struct loop_job who_later;
    struct keeper_request *who;
    int32_t pid;
    uint32_t uid;
    char comm[16];

    char name[HOST_MAX + 1]; /* read or pinned; "": none */
    char first_why[128]; /* why its addresses failed, while the other family is asked */
    uint16_t port;
    struct ip_addr meant, dialed;
    struct ip_addr addr[CONNECT_ADDRS_MAX]; /* to try, decided */
    bool may_fall_back; /* the address meant would do where the name has none */
    bool is_holding;    /* a pin */
    bool would_refuse;
    bool is_recorded;
    bool is_counted; /* in flows' own limit */
    bool has_proxy;
};

struct flows {
    struct ward *ward;
    int fd[2];
    struct sock_addr at[2]; /* where they listen */
    struct loop_io *io[2];
    struct loop_timer accept_pause, tick, refill;
    struct loop_job reap;
    uint64_t who_since_ms; /* the second in which who_n were asked for */
    unsigned who_n;
    struct flow *open, *dead;
    struct flow *paused;     /* list: a direction waits for its rate */
    size_t count;            /* open */
    size_t held;             /* bytes in hand, all flows */
    struct flow_limit *all;  /* the sandbox's */
    struct flow_limit *rule; /* list: of rules in use */
    struct buf out;          /* scratch for what a gate writes */
    int pipe[2];             /* flow_pipe.c; -1: none. Empty between two uses */

    char proxy_key[PROXY_TEXT_MAX]; /* proxy_addr is for this one */
    struct ip_addr proxy_addr[CONNECT_ADDRS_MAX];
    size_t n_proxy_addr;
    uint64_t proxy_until_ms;
    struct tls_ctx *proxy_tls; /* to https:// proxies; NULL: not made */
};

/* -- flow_pipe.c --------------------------------------------------------------------- */

/** Move at most n bytes without a copy. False: nothing was done, read and write. True:
 *  done; the flow may have ended. */
bool flow_pipe_move(struct flow *f, enum flow_way way, size_t n);
/** So much was read and written. */
void flow_pipe_read(struct flow_pump *p, size_t n);
void flow_pipe_done(struct flows *fs);

/* -- flows.c ------------------------------------------------------------------------- */

/** A connection that was accepted. For flows.c itself and for tests, which
 *  have no TPROXY.
 *  @to  the address the program meant */
void flows_take(struct flows *fs, int *take_fd, const struct sock_addr *from,
                const struct sock_addr *to);
struct loop *flows_loop(const struct flows *fs);
/** So many bytes more, and so many less, are in hand. */
void flows_hold(struct flows *fs, size_t more, size_t less);
/** More than a sandbox may while others want memory too. */
bool flows_hold_much(const struct flows *fs);

/* -- flow.c: life, verdicts, records ------------------------------------------------- */

/** NULL: no memory; the descriptor is gone. */
struct flow *flow_new(struct flows *fs, int *take_fd, const struct sock_addr *from,
                      const struct sock_addr *to);
void flow_set_state(struct flow *f, enum flow_state s);
/** Records what is not yet recorded, closes (FLOW_CLOSED) or resets both sides. */
void flow_end(struct flow *f, enum flow_end end);
void flow_free(struct flow *f); /* a dead one */
/** May this name (NULL: none) at this address (NULL: any) be reached on the
 *  flow's port? */
bool flow_may(const struct flow *f, const char *name, const struct ip_addr *addr,
              struct verdict *ret, bool *ret_would_refuse);
/** Go by this verdict: keeps it and its policy, and enters the rule's limits. False: a
 *  limit says no, and the flow has been refused. */
bool flow_adopt(struct flow *f, const struct verdict *v, bool would_refuse);
/** A verdict of the guard's own. */
void flow_verdict(struct verdict *ret, enum verdict_stage stage, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/** Record it, and end: reset, or the words for an HTTP program. */
void flow_refuse(struct flow *f, const struct verdict *v);
/** REFUSING is over. */
void flow_refuse_now(struct flow *f);
/** Ask whose it is; false: there is nobody to ask, or it was asked too often. */
bool flow_ask_who_first(struct flow *f);
/** The connection's own record, now; only once. */
void flow_record(struct flow *f, enum flow_end end);
/** Is what it goes by still allowed? */
bool flow_may_still(const struct flow *f, struct verdict *ret, bool *ret_would_refuse);
/** The record of a refusal alone. */
void flow_record_refusal(struct flow *f, const struct verdict *v, const char *name);
/** The flow is decided as if it came now; cut when it is not allowed any more. */
void flow_decide_again(struct flow *f);

/* -- flow_look.c: what does it want? ------------------------------------------------- */

void flow_begin(struct flow *f);
void flow_look(struct flow *f); /* the program may have sent something */
void flow_look_deadline(struct flow *f);
/** A name was read, canonical: decide by it, and dial or refuse. */
void flow_by_name(struct flow *f, const char *name);
/** None was. @why  what there was instead; NULL: none is due on this port */
void flow_by_addr(struct flow *f, const char *why);
bool flow_may_by_addr(const struct flow *f);

/* -- flow_http.c --------------------------------------------------------------------- */

/** LOOK: bytes came. */
void flow_http_look(struct flow *f);
/** RELAY: what is in f->in, as far as it may go, is appended to `out`. Where it may not,
 *  our answer is in f->words. False: ended. */
bool flow_http_up(struct flow *f, struct buf *out);
/** May more of the program's bytes be read? */
bool flow_http_wants(const struct flow *f);
/** RELAY: bytes of the server's that pass. False: ended. */
bool flow_http_down(struct flow *f, struct span bytes);
/** Our answer (moved) goes out as soon as it can be understood. False: it never can. */
bool flow_http_say(struct flow *f, struct buf *take_words);
/** It can now: flow_reply(). */
bool flow_http_may_say(const struct flow *f);
/** The words. Each appends a whole response. 0 or -1. */
int flow_words_refused(const struct flow *f, const struct verdict *v, struct buf *out);
int flow_words_other_host(const struct flow *f, struct buf *out);
int flow_words_bad(const struct flow *f, const char *rule, struct buf *out);
int flow_words_unreachable(const struct flow *f, const char *why, struct buf *out);

/* -- flow_dial.c --------------------------------------------------------------------- */

/** Decided, by name or address: connect. */
void flow_dial(struct flow *f);
/** It cannot be: tell the program, end. */
void flow_dial_failed(struct flow *f, enum flow_end end, const char *why);
void flow_dial_cancel(struct flow *f);
/** The job who_later. */
void flow_ask_who(void *arg);

/* -- flow_proxy.c -------------------------------------------------------------------- */

/** Is a proxy in the way to what was decided? 1 with f->proxy, 0, -1 with *e. */
int flow_proxy_choose(struct flow *f, struct err *e);
/** Connect to the proxy, and ask it for the address that is next. */
void flow_proxy_dial(struct flow *f);
void flow_proxy_readable(struct flow *f);
void flow_proxy_writable(struct flow *f);
void flow_proxy_secured(struct flow *f, const struct err *e);
void flow_proxy_cancel(struct flow *f);

/* -- flow_relay.c -------------------------------------------------------------------- */

extern const struct conn_ops flow_inner_ops, flow_outer_ops;
/** f->outer speaks to the target. */
void flow_relay_start(struct flow *f);
/** What each side is waited for, computed from the state. */
void flow_want(struct flow *f);
/** Write our words (f->words) to the program, read away what it sends, end. */
void flow_reply(struct flow *f);
/** So many bytes of the program's or the world's were read. */
void flow_count(struct flow *f, enum flow_way way, size_t n);
/** f->in has changed. */
void flow_count_in(struct flow *f);
/** No direction waits for its rate any more. */
void flow_unpause(struct flow *f);

#endif
