/* SPDX-License-Identifier: MIT */
/**
 * keeper_int -- what the keeper's files share.
 *
 *   keeper.c        add, adopt, reload, remove
 *   kept.c          one sandbox, and how each of these ends for it
 *   keeper_guard.c  the guard's process and the channel: started, watched, given everything
 *   keeper_ops.c    the guard's requests, validated
 *   keeper_who.c    whose connection it is
 *   keeper_host.c   the host's side: its addresses, resolvers, table
 *   keeper_news.c   others' changes of nftables
 *   keeper_watch.c  what breaks enforcement, looked at and mended
 *   keeper_state.c  sandboxes remembered over a restart
 *   keeper_status.c what is told of them
 *   sealed.c        a sealed namespace: table, routes, listeners
 */
#ifndef AGENTD_EGRESS_KEEPER_KEEPER_INT_H
#define AGENTD_EGRESS_KEEPER_KEEPER_INT_H

#include <sys/stat.h>

#include "agentd/egress/audit.h"
#include "agentd/egress/channel.h"
#include "agentd/egress/keeper/keeper.h"
#include "agentd/egress/keeper/veth.h"

#define KEEPER_REASON_MAX 200
#define KEEPER_MAY_MAX    256 /* places that the guard may reach although they are floor */
#define KEEPER_FOR_MAX    512 /* different policies that allow networks */
#define KEEPER_VERIFY_MAX 16  /* sandboxes whose rules are compared in a second */
#define KEEPER_ASK_MAX    256 /* sandboxes whose counts are asked for in a second */
#define KEEPER_TURN       64  /* records of the guard in one turn of the loop */
#define KEEPER_MUTE_MAX   300 /* bytes of a reason */

enum kept_state {
    KEPT_ADDING,
    KEPT_IN_FORCE,
    KEPT_CLOSED, /* the guard is gone, or does not have it yet */
    KEPT_REMOVING,
};
enum kept_op {
    OP_NONE,
    OP_ADD,
    OP_RELOAD,
    OP_REMOVE,
};
/* What the guard is still to be sent. */
enum {
    SEND_SANDBOX = 1,
    SEND_POLICY = 2,
    SEND_REMOVE = 4,
    SEND_STATUS = 8,
};

/** At most n a second. */
struct kept_rate {
    uint64_t window_ms;
    unsigned n;
};

/** A sandbox as the keeper keeps it. */
struct kept {
    struct keeper *keeper; /* borrowed */
    struct kept *next, **prev;
    uint32_t index;
    char name[EGRESS_NAME_MAX + 1];
    enum egress_tier tier;
    enum kept_state state;
    struct policy *policy; /* the kernel's */
    struct policy *wanted; /* RELOAD: the one the guard is given first; NULL */
    struct netns *ns;
    struct nft *nft; /* SEALED: its own namespace's; VETH: NULL, the host's is used */
    struct veth veth;
    int fd[CHANNEL_FDS]; /* the guard's, our copies; -1 at CHANNEL_FD_POLICY */
    uint16_t tcp_port, udp_port;
    int rt_fd, diag_fd; /* in its namespace: links, sockets */
    int nsid;           /* SEALED: by which news of its namespace come; -1: by news_fd */
    int news_fd;
    struct loop_io *news_io;
    /* whether it still lives */
    char *ns_path, *iface;
    struct stat ns_stat; /* st_ino 0: not known */
    pid_t pid, last_pid; /* the last one that ASK_WHO found */
    uint64_t pid_start;  /* in the unit of /proc/PID/stat; 0: not known */
    int pid_fd;
    struct loop_io *pid_io;
    /* what is going on */
    enum kept_op op;
    keeper_done_fn *done;
    void *done_arg;
    struct loop_timer deadline;
    struct loop_job removed; /* a removal that needs no answer ends in it */
    unsigned to_send;
    uint32_t seq;      /* of the SANDBOX or POLICY that is being answered; 0: none */
    bool has_rules;    /* in the kernel */
    bool is_given;     /* this guard said IN_FORCE */
    bool wants_verify; /* somebody touched its table */
    bool is_verified;  /* at the last look the kernel's table was what it should be */
    char reason[KEEPER_REASON_MAX]; /* why not, or what else breaks it; "" */
    struct veth_reasons veth_reasons;
    struct ip_addr mute; /* VETH: from there no answer could be sent; family 0: none */
    uint32_t restored;
    struct kept_rate who_rate, reply_rate, log_rate, restore_rate;
    struct channel_counts counts;
};

struct keeper_guard {
    pid_t pid; /* 0: none runs */
    int fd, pid_fd;
    struct loop_io *io, *pid_io;
    struct loop_timer timer; /* READY's deadline, or the pause before the next start */
    bool is_ready;
    bool
        has_answer; /* `answer` waits for room in the channel; nothing is read meanwhile */
    struct channel_msg answer;
    unsigned restarts, deaths; /* deaths: in a row, each soon after its start */
    uint64_t started_ms, heard_ms;
    bool wants_floor; /* FLOOR is to be sent */
    bool has_more;    /* somebody has something to be sent, since it all was */
};

struct keeper {
    struct loop *loop; /* borrowed */
    struct keeper_conf conf;
    char *state_dir;
    struct audit *audit;
    /* What guards could not write: the ones before, and the one of so many restarts. */
    uint64_t guards_lost, guard_lost;
    unsigned guard_lost_restarts;
    struct keeper_guard guard;
    struct kept *kept;
    struct kept **by_index;         /* CHANNEL_INDEX_MAX + 1 */
    uint32_t last_index, top_index; /* the highest ever given */
    unsigned n;
    uint32_t seq;
    /* the host's side: keeper_host.c */
    struct ip_net floor[CHANNEL_FLOOR_MAX];
    size_t n_floor;
    bool is_floor_cut; /* the host has more addresses than that */
    char resolvers[CHANNEL_TEXT_MAX];
    struct stat resolv_stat;
    struct nft *host;  /* NULL: no rules in the host's namespace */
    uint32_t nft_port; /* of all our nftables sockets, where it was free */
    int host_rt_fd, host_rt_news_fd, host_nflog_fd;
    struct loop_io *host_rt_io;
    bool is_host_stale, wants_host_verify;
    /* Remembered sandboxes are being adopted: the host's table waits for all. */
    bool is_loading;
    char host_reason[KEEPER_REASON_MAX];
    struct sock_addr may[KEEPER_MAY_MAX];
    size_t n_may;
    const struct policy *guard_for[KEEPER_FOR_MAX]; /* borrowed, until the next change */
    size_t n_guard_for;
    uint64_t guard_for_sum;
    struct kept_rate who_rate, restore_rate;
    uint64_t who_window_ms, who_spent_us;
    /* keeper_news.c */
    int news_fd;
    bool has_all_news; /* of all namespaces, not only of ours */
    struct loop_io *news_io;
    struct kept_rate news_rate;
    uint32_t hurry; /* sandboxes that are to be compared because news were lost */
    /* keeper_watch.c */
    struct loop_timer check, step;
    uint32_t rounds;
    uint32_t verify_at, ask_at; /* the sandbox after which the next step goes on */
};

/* -- kept.c -------------------------------------------------------------------------- */

/** A sandbox of before a restart, while is_loading. Not enforced at once, but never open.
 *  @was  VETH: what its rules were made from */
int keeper_adopt(struct keeper *k, const struct keeper_add *a, const struct veth *was,
                 struct err *e);
/** Takes *ns in all cases but no memory (NULL). */
struct kept *kept_new(struct keeper *k, const struct keeper_add *a, struct netns **ns);
void kept_link(struct kept *s); /* it gets its number */
void kept_free(struct kept *s);
char *kept_text(const char *text); /* a copy; NULL: no memory */
void kept_begin(struct kept *s, enum kept_op op, keeper_done_fn *fn, void *arg,
                uint64_t ms);
void kept_drop_rules(struct kept *s);
void kept_remove(struct kept *s, keeper_done_fn *fn, void *arg);
struct kept *keeper_find(struct keeper *k, const char *name);
struct kept *keeper_by_index(struct keeper *k, uint32_t index); /* NULL: none */
/** The guard's answers. */
void kept_in_force(struct kept *s, uint32_t seq);
void kept_refused(struct kept *s, uint32_t seq, const char *why);
void kept_removed(struct kept *s);
/** The namespace is gone. */
void kept_vanished(struct kept *s, const char *why);
void kept_fill(const struct kept *s, const struct policy *p, struct nft_sandbox *ret);
struct nft *kept_nft(const struct kept *s);
void keeper_event(struct keeper *k, const struct kept *s, const char *event,
                  const char *text);
bool kept_rate_ok(struct kept_rate *r, uint64_t now_ms, unsigned per_s);

/* -- keeper_guard.c ------------------------------------------------------------------ */

int guard_start(struct keeper *k, struct err *e);
/** Ends it and waits for it, bounded. */
void guard_stop(struct keeper *k);
/** End it because of what it did or did not do; another is started. */
void guard_kill(struct keeper *k, const char *why);
/** Something is to be sent. */
void guard_push(struct keeper *k);
/** Send an answer to a request; when there is no room now it is kept, and nothing is read
 *  until it is gone. Closes its descriptors. */
void guard_answer(struct keeper *k, struct channel_msg *m);

/* -- keeper_ops.c, keeper_who.c ------------------------------------------------------ */

/** A record of the guard. False: no guard sends such; it is ended. */
bool keeper_request(struct keeper *k, struct channel_msg *m);
void keeper_who(struct kept *s, const struct channel_msg *ask, struct channel_msg *ret);
/** VETH: does a program of the host hold the port that answers about names are sent from,
 *  at this moment? True: *ret says so. */
bool keeper_is_mute(const struct kept *s, char ret[KEEPER_MUTE_MAX]);

/* -- keeper_host.c ------------------------------------------------------------------- */

int host_start(struct keeper *k, struct err *e);
/** At the end: takes the host's table away when no sandbox needs it. */
void host_leave(struct keeper *k);
void host_stop(struct keeper *k);
/** What may have changed: addresses, resolvers, places the guard may reach. Cheap when
 *  nothing did. -1 with *e: the kernel does not have it; it is tried again. */
int host_update(struct keeper *k, struct err *e);
/** The base table of the host's namespace as it should be. */
void host_base(struct keeper *k, struct nft_base *ret);
/** Put the host's table there again, with all sandboxes of the veth tier. */
int host_restore(struct keeper *k, struct err *e);
/** What is in that table, to be freed with mem_free(); NULL: no memory. */
struct nft_sandbox *host_sandboxes(struct keeper *k, size_t *ret_n);

/* -- keeper_watch.c ------------------------------------------------------------------ */

void watch_start(struct keeper *k);
void watch_stop(struct keeper *k);
/** Watch a new sandbox: its namespace, its process, its table. */
int watch_kept(struct kept *s, struct err *e);
void watch_forget(struct kept *s);
/** Compare now, and mend: after somebody's change. */
void watch_sealed(struct kept *s);
void watch_host(struct keeper *k);

/* -- keeper_news.c ------------------------------------------------------------------- */

uint32_t news_port(void); /* one by chance */
int news_start(struct keeper *k, struct err *e);
void news_stop(struct keeper *k);
/** Once a round: goes on where there were too many. */
void news_resume(struct keeper *k);
/** SEALED: others' changes of its table. */
int news_watch(struct kept *s, struct err *e);
void news_forget(struct kept *s);
/** An nftables socket with our port id, if that is free there. */
int news_nft_socket(struct keeper *k, struct netns *ns, struct err *e);

/* -- keeper_state.c ------------------------------------------------------------------ */

/** Best effort; what cannot be kept is logged: after a restart it would stay closed. */
void state_save(const struct kept *s);
void state_forget(const struct kept *s);
/** Adopt what is remembered. -1: one whose rules stand in the host's table could not be,
 *  and would be open without them. */
int state_load(struct keeper *k, struct err *e);
/** When the process started, in clock ticks since boot; 0: not known. */
uint64_t state_pid_start(pid_t pid);

/* -- sealed.c ------------------------------------------------------------------------ */

/** The table first, everything refused; then routes, NFLOG, listeners. */
int sealed_make(struct kept *s, struct err *e);
/** What the guard listens to and pins by; @device  NULL, or bound to it. */
int sealed_listen(struct kept *s, bool has_ip6, const char *device, struct err *e);
/** A socket for the guard, in the sandbox's namespace or, VETH, in ours. */
int kept_socket(const struct kept *s, int family, int type, struct err *e);

#endif
