/* SPDX-License-Identifier: MIT */
#include "agentd/egress/guard/pin_batch.h"

#include <string.h>

#include "agentd/egress/guard/keeper_link.h"
#include "common/mem.h"

struct message {
    struct message *next;
    struct pin_batch *batch; /* borrowed: its owner */
    struct keeper_request *request;
};

struct pin_batch {
    struct ward *ward; /* borrowed */
    pin_batch_fn *fn;
    void *arg;
    struct loop_job end;
    struct message *messages;
    unsigned n_messages, n_open;
    bool is_sent, has_failed;
    struct err why; /* of the first message that could not be sent */
    uint32_t n;
    struct nft_pin pin[CHANNEL_PINS];
};

static void batch_free(struct pin_batch *b)
{
    struct message *m;

    loop_job_cancel(&b->end);
    while ((m = b->messages) != NULL) {
        b->messages = m->next;
        keeper_link_cancel(&m->request);
        mem_free(m);
    }
    mem_free(b);
}

void pin_batch_cancel(struct pin_batch **b)
{
    if (*b)
        batch_free(*b);
    *b = NULL;
}

static void on_end(void *arg)
{
    struct pin_batch *b = arg;
    bool ok = !b->has_failed;
    pin_batch_fn *fn = b->fn;
    void *fn_arg = b->arg;

    batch_free(b);
    fn(fn_arg, ok);
}

static void on_answer(void *arg, struct channel_msg *answer)
{
    struct message *m = arg;
    struct pin_batch *b = m->batch;

    m->request = NULL;
    b->has_failed |= !answer || answer->error;
    if (--b->n_open == 0 && b->is_sent)
        loop_job_defer(&b->end);
}

static int send_message(struct pin_batch *b, struct err *e)
{
    struct channel_msg out;
    struct message *m;

    if (b->n_messages == PIN_BATCH_MESSAGES)
        return err_set(e, ERR_LIMIT, "pins: too many for one change");
    m = mem_zalloc(1, sizeof(*m));
    if (!m)
        return err_set(e, ERR_NOMEM, "pins: no memory");
    channel_msg_init(&out, CHANNEL_PIN, b->ward->index);
    memcpy(out.pin, b->pin, b->n * sizeof(*b->pin));
    out.n_pins = b->n;
    m->batch = b;
    m->request = keeper_link_ask(b->ward->guard->keeper, &out, on_answer, m, e);
    if (!m->request) {
        mem_free(m);
        return -1;
    }
    m->next = b->messages;
    b->messages = m;
    b->n_messages++;
    b->n_open++;
    return 0;
}

static void flush(struct pin_batch *b)
{
    if (b->n > 0 && !b->has_failed && send_message(b, &b->why) < 0)
        b->has_failed = true;
    b->n = 0;
}

void pin_batch_add(struct pin_batch *b, const struct ip_addr *a, uint16_t port,
                   uint64_t left_ms)
{
    if (b->n == CHANNEL_PINS)
        flush(b);
    b->pin[b->n++] = (struct nft_pin){*a, port, (uint32_t)((left_ms + 999) / 1000)};
}

int pin_batch_send(struct pin_batch *b, struct err *e)
{
    flush(b);
    if (b->has_failed) {
        if (e)
            *e = b->why;
        return -1;
    }
    b->is_sent = true;
    if (b->n_open == 0)
        loop_job_defer(&b->end);
    return 0;
}

struct pin_batch *pin_batch_new(struct ward *w, pin_batch_fn *fn, void *arg)
{
    struct pin_batch *b = mem_alloc(sizeof(*b));

    if (!b)
        return NULL;
    memset(b, 0, offsetof(struct pin_batch, pin));
    b->ward = w;
    b->fn = fn;
    b->arg = arg;
    loop_job_init(&b->end, w->guard->loop, on_end, b);
    return b;
}
