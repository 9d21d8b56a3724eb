/* SPDX-License-Identifier: MIT */
/*
 * From a decision to a connection. Every address is decided once more when it is known,
 * since a name may stand for anything; the floor is checked here and nowhere later.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/egress/guard/flow.h"
#include "common/log.h"

static void ask_name(struct flow *f, int family);

void flow_dial_cancel(struct flow *f)
{
    names_cancel(&f->asking);
    happy_cancel(&f->happy);
    flow_proxy_cancel(f);
}

void flow_dial_failed(struct flow *f, enum flow_end end, const char *why)
{
    AUTO(buf_done)
    struct buf words = BUF_INIT;

    log_debug("egress.dial", "sandbox=%s name=%s error=%s", f->flows->ward->name,
              log_q(f->name), log_q(why));
    flow_record(f, end);
    if (!f->gate || flow_words_unreachable(f, why, &words) < 0 ||
        !flow_http_say(f, &words))
        flow_end(f, end);
}

/* -- who is it: the process that asks ------------------------------------------------ */

static void on_who(void *arg, struct channel_msg *m)
{
    struct flow *f = arg;

    f->who = NULL;
    if (m && m->type == CHANNEL_WHO && m->pid != 0) {
        f->pid = m->pid;
        f->uid = m->uid;
        memcpy(f->comm, m->comm, sizeof(f->comm));
        f->comm[sizeof(f->comm) - 1] = '\0';
    }
    if (f->state == FLOW_REFUSING)
        flow_refuse_now(f);
}

/* The keeper does not look more often, and even its "not known" would cost
 * two wake-ups. */
static bool may_ask_who(struct flows *fs)
{
    uint64_t now_ms = loop_now(flows_loop(fs));

    if (fs->who_n == 0 || now_ms - fs->who_since_ms >= 1000) {
        fs->who_since_ms = now_ms;
        fs->who_n = 0;
    }
    if (fs->who_n == CHANNEL_WHO_PER_S)
        return false;
    fs->who_n++;
    return true;
}

/* A job: after the connection is under way. Nobody waits for the answer. */
void flow_ask_who(void *arg)
{
    struct flow *f = arg;
    struct ward *w = f->flows->ward;
    struct channel_msg m;
    struct err e = {0};

    if (!w->guard->keeper || f->who || !may_ask_who(f->flows))
        return;
    channel_msg_init(&m, CHANNEL_ASK_WHO, w->index);
    ip_from_sock(&f->from, &m.from);
    m.from_port = sock_port(&f->from);
    m.to = f->meant;
    m.to_port = f->port;
    m.protocol = IPPROTO_TCP;
    f->who = keeper_link_ask(w->guard->keeper, &m, on_who, f, &e);
}

bool flow_ask_who_first(struct flow *f)
{
    loop_job_cancel(&f->who_later);
    flow_ask_who(f);
    return f->who != NULL;
}

/* -- connecting ---------------------------------------------------------------------- */

/* IPv4 was asked for alone: now the other addresses. */
static void connect_failed(struct flow *f, const struct err *e)
{
    if (!f->first_why[0])
        (void)snprintf(f->first_why, sizeof(f->first_why), "%.127s", e->msg);
    if (f->by == FLOW_BY_NAME && f->asked == AF_INET)
        ask_name(f, AF_INET6);
    else
        flow_dial_failed(f, FLOW_UNREACHABLE, f->first_why);
}

static void on_connected(void *arg, int *take_fd, const struct sock_addr *to,
                         const struct err *e)
{
    struct flow *f = arg;
    struct err why = {0};

    f->happy = NULL;
    if (*take_fd < 0) {
        connect_failed(f, e);
        return;
    }
    ip_from_sock(to, &f->dialed);
    f->outer = conn_new(flows_loop(f->flows), take_fd, &flow_outer_ops, f, &why);
    if (!f->outer)
        flow_end(f, FLOW_NO_MEMORY);
    else
        flow_relay_start(f);
}

static void connect_all(struct flow *f)
{
    struct happy_conf conf = {.timeout_ms = CONNECT_MS, .fn = on_connected, .arg = f};
    struct sock_addr to[CONNECT_ADDRS_MAX];
    struct err e = {0};

    for (size_t i = 0; i < f->n_addr; i++)
        ip_to_sock(&f->addr[i], f->port, &to[i]);
    f->happy = happy_start(flows_loop(f->flows), to, f->n_addr, &conf, &e);
    if (!f->happy)
        flow_dial_failed(f, FLOW_UNREACHABLE, e.msg);
}

/* The next address; f->outer is none. */
static void dial_next(struct flow *f)
{
    if (f->has_proxy)
        flow_proxy_dial(f);
    else
        connect_all(f);
}

static void learn(struct flow *f)
{
    struct target t = {.name = f->name[0] ? f->name : NULL,
                       .addr = f->addr[0],
                       .port = f->port,
                       .protocol = IPPROTO_TCP};

    ward_learn(f->flows->ward, &t);
}

/* f->addr are decided. */
static void start(struct flow *f)
{
    struct err e = {0};

    f->next_addr = 0;
    flow_set_state(f, FLOW_DIAL);
    if (flow_proxy_choose(f, &e) < 0) {
        flow_dial_failed(f, FLOW_PROXY, e.msg);
        return;
    }
    learn(f);
    dial_next(f);
    if (f->state == FLOW_DIAL)
        loop_job_defer(&f->who_later);
}

/* -- addresses ----------------------------------------------------------------------- */

static void dial_meant(struct flow *f)
{
    f->by = FLOW_BY_ADDR;
    f->addr[0] = f->meant;
    f->n_addr = 1;
    start(f);
}

/* The one that the program chose, when it is ours as well; then its family;
 * then others. */
static int rank(const struct flow *f, const struct ip_addr *a)
{
    if (ip_eq(a, &f->meant))
        return 0;
    return a->family == f->meant.family ? 1 : 2;
}

/* Keeps those that may be reached. *ret_no: why the last of the others may not. */
static void keep_addrs(struct flow *f, const struct names_answer *a,
                       struct verdict *ret_no)
{
    struct verdict v;
    bool would_refuse;

    f->n_addr = 0;
    for (int want = 0; want < 3; want++) {
        for (size_t i = 0; i < a->n && f->n_addr < CONNECT_ADDRS_MAX; i++) {
            if (rank(f, &a->addr[i]) != want)
                continue;
            if (flow_may(f, f->name, &a->addr[i], &v, &would_refuse))
                f->addr[f->n_addr++] = a->addr[i];
            else
                *ret_no = v;
        }
    }
}

static void no_address(struct flow *f, const struct names_answer *a)
{
    static const char *const words[] = {
        [NAMES_EMPTY] = "the name has no address",
        [NAMES_NOT_FOUND] = "the name does not exist (NXDOMAIN)",
        [NAMES_FAILED] = "the name server gives no usable answer",
    };

    if (f->first_why[0])
        flow_dial_failed(f, FLOW_UNREACHABLE, f->first_why);
    else if (a->why && (a->result == NAMES_FLOOR || a->result == NAMES_LIMIT))
        flow_refuse(f, a->why);
    else if (f->may_fall_back)
        dial_meant(f);
    else
        flow_dial_failed(f, FLOW_NAME,
                         a->result < COUNT_OF(words) && words[a->result]
                             ? words[a->result]
                             : "the name has no address that may be reached");
}

static void on_names(void *arg, const struct names_answer *a)
{
    struct flow *f = arg;
    struct verdict no = {0};

    f->asking = NULL;
    if (a->result != NAMES_OK) {
        if (a->result == NAMES_EMPTY && f->asked == AF_INET)
            ask_name(f, AF_INET6);
        else
            no_address(f, a);
        return;
    }
    keep_addrs(f, a, &no);
    if (f->n_addr == 0)
        flow_refuse(f, &no);
    else
        start(f);
}

static void ask_name(struct flow *f, int family)
{
    struct err e = {0};

    flow_set_state(f, FLOW_NAMES);
    f->asked = family;
    f->asking = names_ask(f->flows->ward->names, f->name, family, on_names, f, &e);
    if (!f->asking)
        flow_dial_failed(f, FLOW_NAME, e.msg);
}

void flow_dial(struct flow *f)
{
    loop_timer_stop(&f->deadline);
    conn_want(f->inner, 0);
    if (f->by != FLOW_BY_NAME) {
        f->addr[0] = f->meant;
        f->n_addr = 1;
        start(f);
        return;
    }
    /* What the name server has just told the program is at hand; a second family
     * would be one more question on the way. With IPv6 both: the program may have an
     * IPv6 that the host has not, and then cannot fall back by itself, since we take
     * every connection. */
    ask_name(f, f->meant.family == AF_INET ? AF_INET : AF_UNSPEC);
}
