/* SPDX-License-Identifier: MIT */
/* Registry and dial against real sessions: their link is a pair of functions here, behind it
 * stands the agent's own mux. */
#include "tunneld/tunnel/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/metrics.h"
#include "tests/support/test.h"
#include "tunneld/tunnel/session.h"

enum {
    DEADLINE_MS = 20000
};

struct agent {
    struct link link;
    struct mux *mux;
    uint8_t out[MUX_BATCH];
    char texts[4096]; /* all that the server said, a line each */
    unsigned n_opened, close_status;
    uint16_t opened_port;
};

struct world {
    struct loop *loop;
    struct config *conf;
    struct directory *directory;
    struct tunnel tunnel;
    struct agent a, b;
    struct loop_timer deadline;
    /* what a dial ended with */
    bool has_result;
    enum dial_result result;
    struct mux_stream *stream;
};

/* -- the agent's end ----------------------------------------------------------------- */

static struct agent *agent_of(struct link *l)
{
    return CONTAINER_OF(l, struct agent, link);
}

static uint8_t *on_begin(struct link *l, size_t *ret_cap)
{
    *ret_cap = sizeof agent_of(l)->out;
    return agent_of(l)->out;
}

static void on_commit(struct link *l, size_t n)
{
    struct agent *a = agent_of(l);

    assert_int_equal(mux_recv(a->mux, span_of(a->out, n), clock_us()), MUX_OK);
}

static int on_text(struct link *l, struct span json)
{
    struct agent *a = agent_of(l);
    size_t have = strlen(a->texts);

    (void)snprintf(a->texts + have, sizeof a->texts - have, "%.*s\n", SPAN_FMT(json));
    return 0;
}

static void on_close(struct link *l, unsigned status, const char *reason)
{
    UNUSED_ARG(reason);
    agent_of(l)->close_status = status;
}

static const struct link_ops agent_ops = {on_begin, on_commit, on_text, on_close};

static void on_opened(void *owner, struct mux_stream *s, const struct mux_open *open)
{
    static const struct mux_stream_ops none = {0};
    struct agent *a = owner;

    a->n_opened++;
    a->opened_port = open->port;
    mux_stream_use(s, &none, a);
    mux_stream_accept(s);
}

static void on_wants_send(void *owner)
{
    UNUSED_ARG(owner);
}

static const struct mux_ops agent_mux_ops = {.opened = on_opened,
                                             .wants_send = on_wants_send};

static void say(struct agent *a, const char *json)
{
    a->link.user_ops->text(a->link.user, span_str(json));
}

static void link_up(struct world *w, struct agent *a, const char *hello,
                    const char *ports)
{
    struct mux_conf conf = {
        .role = MUX_AGENT, .window = 65536, .window_max = 65536, .max_streams = 10};
    struct token *t = mem_zalloc(1, sizeof *t);
    struct sock_addr client;

    assert_non_null(t);
    (void)snprintf(t->sub, sizeof t->sub, "demo");
    t->exp = (int64_t)time(NULL) + 3600;
    if (ports) {
        t->has_ports = true;
        assert_int_equal(port_list_parse(span_str(ports), &t->ports), 0);
    }
    memset(a, 0, sizeof *a);
    a->link.ops = &agent_ops;
    a->mux = mux_new(&conf, &agent_mux_ops, a);
    assert_non_null(a->mux);
    mux_set_peer(a->mux, 65536, 0);
    assert_int_equal(sock_parse("127.0.0.1:5", &client, NULL), 0);
    assert_int_equal(session_new(&w->tunnel, &a->link, &t, &client), 0);
    if (hello)
        say(a, hello);
}

static void link_down(struct agent *a)
{
    if (a->mux)
        a->link.user_ops->closed(a->link.user, "test");
    mux_free(a->mux);
    a->mux = NULL;
}

#define HELLO(instance, more)                                                            \
    "{\"type\":\"hello\",\"version\":1,\"instance\":\"" instance                         \
    "\",\"window\":65536,\"max_streams\":10" more "}"
#define PORT(n) "{\"type\":\"port\",\"port\":" #n "}"

/* -- the world ------------------------------------------------------------------------ */

static void on_fault(void *arg, const char *place, const char *rule)
{
    UNUSED_ARG(arg);
    fprintf(stderr, "%s: %s\n", place, rule);
}

static struct config *make_config(void)
{
    static const char text[] =
        "{\"domain\":\"preview.example.com\",\"workers\":1,\"state_dir\":\"/"
        "nonexistent\","
        "\"listen\":[{\"address\":\"127.0.0.1:0\",\"tls\":false}],"
        "\"trusted_proxies\":[\"127.0.0.1\"],\"limits\":{\"holds\":2}}";
    char path[] = "/tmp/test_registry.XXXXXX";
    struct config *c;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    c = config_load(path, on_fault, NULL);
    unlink(path);
    return c;
}

static void on_deadline(void *arg)
{
    struct world *w = arg;

    loop_stop(w->loop);
}

static int setup(void **state)
{
    struct world *w = mem_zalloc(1, sizeof *w);
    struct err e = {0};

    *state = w;
    w->loop = loop_new(&e);
    w->conf = make_config();
    w->directory = directory_new();
    w->tunnel = (struct tunnel){.loop = w->loop,
                                .conf = w->conf,
                                .directory = w->directory,
                                .budget = {.max_bytes = 1 << 20}};
    w->tunnel.registry = registry_new(w->loop, w->conf, &e);
    loop_timer_init(&w->deadline, w->loop, on_deadline, w);
    return w->tunnel.registry ? 0 : -1;
}

static int teardown(void **state)
{
    struct world *w = *state;

    link_down(&w->a);
    link_down(&w->b);
    registry_free(w->tunnel.registry);
    loop_timer_stop(&w->deadline);
    loop_free(w->loop);
    directory_free(w->directory);
    config_unref(w->conf);
    mem_free(w);
    return 0;
}

static void on_dialled(void *arg, enum dial_result r, struct mux_stream *s)
{
    struct world *w = arg;

    assert_false(w->has_result);
    w->has_result = true;
    w->result = r;
    w->stream = s;
    loop_stop(w->loop);
}

static struct dial *dial(struct world *w, uint16_t port, uint64_t hold_ms, bool refused)
{
    static const struct mux_stream_ops none = {0};
    struct dial_want want = {.id = "demo",
                             .open = {.port = port, .kind = MUX_KIND_HTTP},
                             .until_ms = loop_now(w->loop) + hold_ms,
                             .after_refusal = refused,
                             .ops = &none,
                             .user = w};

    w->has_result = false;
    w->stream = NULL;
    return dial_start(w->tunnel.registry, &want, on_dialled, w, &w->stream, &w->result);
}

static void wait_result(struct world *w)
{
    loop_timer_start(&w->deadline, DEADLINE_MS);
    loop_run(w->loop);
    loop_timer_stop(&w->deadline);
    assert_true(w->has_result);
}

static int64_t holds(void)
{
    return atomic_load(&metrics_value[METRIC_HOLDS]);
}

/* -- tests ----------------------------------------------------------------------------- */

static void a_sandbox_never_seen_is_waited_for(void **state)
{
    struct world *w = *state;

    assert_null(dial(w, 3000, 0, false));
    assert_int_equal(w->result, DIAL_OFFLINE);
    assert_non_null(dial(w, 3000, 30, false));
    assert_int_equal(atomic_load(&metrics_value[METRIC_HOLDS]), 1);
    wait_result(w);
    assert_int_equal(w->result, DIAL_OFFLINE);
    assert_int_equal(atomic_load(&metrics_value[METRIC_HOLDS]), 0);
}

static void a_published_port_gives_a_stream_at_once(void **state)
{
    struct world *w = *state;
    struct registry_port look;

    link_up(w, &w->a, HELLO("i1", ""), NULL);
    assert_non_null(strstr(w->a.texts, "\"welcome\""));
    say(&w->a, PORT(3000));
    assert_non_null(strstr(w->a.texts, "\"url\":\"http://3000-demo.preview.example.com"));
    registry_look(w->tunnel.registry, "demo", 3000, &look);
    assert_true(look.is_linked && look.is_published && !look.is_public);
    assert_null(dial(w, 3000, 10000, false));
    assert_int_equal(w->result, DIAL_OK);
    assert_non_null(w->stream);
    loop_timer_start(&w->deadline, 1);
    loop_run(w->loop); /* the flush */
    assert_int_equal(w->a.n_opened, 1);
    assert_int_equal(w->a.opened_port, 3000);
}

static void a_dial_waits_for_the_port_and_then_for_the_link(void **state)
{
    struct world *w = *state;
    struct dial *d;

    link_up(w, &w->a, HELLO("i1", ""), NULL);
    d = dial(w, 3000, DEADLINE_MS, false);
    assert_non_null(d);
    assert_int_equal(holds(), 1);
    say(&w->a, PORT(3000));
    assert_false(w->has_result); /* never inside somebody else's event */
    wait_result(w);
    assert_int_equal(w->result, DIAL_OK);
    assert_int_equal(holds(), 0);

    link_down(&w->a);
    d = dial(w, 3000, DEADLINE_MS, false);
    assert_non_null(d);
    link_up(w, &w->b, HELLO("i2", ""), NULL);
    say(&w->b, PORT(3000));
    wait_result(w);
    assert_int_equal(w->result, DIAL_OK);
}

static void the_end_of_the_hold_says_what_was_missing(void **state)
{
    struct world *w = *state;

    link_up(w, &w->a, HELLO("i1", ""), NULL);
    assert_non_null(dial(w, 3000, 20, false));
    wait_result(w);
    assert_int_equal(w->result, DIAL_PORT_CLOSED);
    link_down(&w->a);
    assert_non_null(dial(w, 3000, 20, false));
    wait_result(w);
    assert_int_equal(w->result, DIAL_OFFLINE);
    assert_null(dial(w, 3000, 0, false)); /* no hold at all */
    assert_int_equal(w->result, DIAL_OFFLINE);
}

static void an_excluded_port_is_closed_at_once(void **state)
{
    struct world *w = *state;

    link_up(w, &w->a, HELLO("i1", ",\"excluded\":\"22,9000-9100\""), "1-8999");
    assert_null(dial(w, 22, 10000, false));
    assert_int_equal(w->result, DIAL_PORT_CLOSED);
    assert_null(dial(w, 9500, 10000, false)); /* not in the token */
    assert_int_equal(w->result, DIAL_PORT_CLOSED);
    say(&w->a, PORT(9500));
    assert_non_null(strstr(w->a.texts, "does not allow port 9500"));
    assert_false(registry_publishes(w->tunnel.registry, "demo", 9500));
}

static void after_a_refusal_a_dial_waits_for_news_or_a_quarter_second(void **state)
{
    struct world *w = *state;
    uint64_t t0 = clock_us();

    link_up(w, &w->a, HELLO("i1", ""), NULL);
    say(&w->a, PORT(3000));
    assert_non_null(dial(w, 3000, DEADLINE_MS, true));
    wait_result(w);
    assert_int_equal(w->result, DIAL_OK);
    assert_true(clock_us() - t0 >= 200000);
    assert_non_null(dial(w, 3000, DEADLINE_MS, true));
    say(&w->a, PORT(3000)); /* news */
    wait_result(w);
    assert_int_equal(w->result, DIAL_OK);
}

static void holds_are_bounded_and_a_cancelled_dial_is_silent(void **state)
{
    struct world *w = *state;
    struct dial *one, *two;

    link_up(w, &w->a, HELLO("i1", ""), NULL);
    one = dial(w, 3000, DEADLINE_MS, false);
    two = dial(w, 3001, DEADLINE_MS, false);
    assert_non_null(one);
    assert_non_null(two);
    assert_null(dial(w, 3002, DEADLINE_MS, false));
    assert_int_equal(w->result, DIAL_LIMIT);
    say(&w->a, PORT(3000)); /* its job is queued now */
    dial_cancel(&one);
    dial_cancel(&two);
    assert_null(one);
    assert_int_equal(holds(), 0);
    loop_timer_start(&w->deadline, 1);
    loop_run(w->loop);
    assert_false(w->has_result);
}

static void another_instance_takes_over_and_the_old_one_is_told(void **state)
{
    struct world *w = *state;
    struct registry_port look;

    link_up(w, &w->a, HELLO("i1", ""), NULL);
    say(&w->a, PORT(3000));
    link_up(w, &w->b, HELLO("i2", ",\"hostname\":\"box\""), NULL);
    assert_non_null(strstr(w->a.texts, "\"goaway\""));
    assert_non_null(strstr(w->a.texts, "\"replaced\""));
    assert_non_null(strstr(w->a.texts, "box (i2)"));
    assert_int_equal(w->a.close_status, 1008);
    assert_int_equal(registry_links(w->tunnel.registry), 1);
    link_down(&w->a);
    registry_look(w->tunnel.registry, "demo", 3000, &look);
    assert_true(look.is_linked);
    assert_false(look.is_published);
}

static void the_same_instance_takes_over_silently(void **state)
{
    struct world *w = *state;

    link_up(w, &w->a, HELLO("i1", ""), NULL);
    link_up(w, &w->b, HELLO("i1", ""), NULL);
    assert_null(strstr(w->a.texts, "goaway"));
    assert_int_equal(w->a.close_status, 1000);
}

static void what_breaks_the_protocol_closes_the_link(void **state)
{
    static const char *const bad[] = {
        PORT(3000),          /* before hello */
        HELLO("i1", "") "x", /* no JSON */
        "{\"type\":\"welcome\",\"version\":1,\"window\":1,\"max_streams\":0," /* ours */
        "\"url_form\":\"x\"}",
        "{\"type\":\"hello\",\"version\":9,\"instance\":\"i\",\"window\":1,\"max_"
        "streams\":1}",
    };
    struct world *w = *state;

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        link_up(w, &w->a, bad[i], NULL);
        assert_int_equal(w->a.close_status, 1002);
        link_down(&w->a);
    }
    link_up(w, &w->a, NULL, NULL);
    w->a.link.user_ops->bytes(w->a.link.user, span_str("x")); /* before hello */
    assert_int_equal(w->a.close_status, 1002);
    link_down(&w->a);
    link_up(w, &w->a, HELLO("i1", ""), NULL);
    say(&w->a, HELLO("i1", "")); /* a second one */
    assert_int_equal(w->a.close_status, 1002);
}

static void a_public_port_needs_the_tokens_word(void **state)
{
    struct world *w = *state;
    struct registry_port look;

    link_up(w, &w->a, HELLO("i1", ""), NULL);
    say(&w->a, "{\"type\":\"port\",\"port\":3000,\"visibility\":\"public\"}");
    assert_non_null(strstr(w->a.texts, "does not allow public"));
    registry_look(w->tunnel.registry, "demo", 3000, &look);
    assert_false(look.is_published);
    say(&w->a, "{\"type\":\"port\",\"port\":3000,\"name\":\"shop\"}");
    assert_non_null(strstr(w->a.texts, "does not allow the name shop"));
    say(&w->a, "{\"type\":\"port\",\"port\":3000,\"name\":\"www\"}");
    assert_non_null(strstr(w->a.texts, "cannot be used: www"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_sandbox_never_seen_is_waited_for),
        TEST(a_published_port_gives_a_stream_at_once),
        TEST(a_dial_waits_for_the_port_and_then_for_the_link),
        TEST(the_end_of_the_hold_says_what_was_missing),
        TEST(an_excluded_port_is_closed_at_once),
        TEST(after_a_refusal_a_dial_waits_for_news_or_a_quarter_second),
        TEST(holds_are_bounded_and_a_cancelled_dial_is_silent),
        TEST(another_instance_takes_over_and_the_old_one_is_told),
        TEST(the_same_instance_takes_over_silently),
        TEST(what_breaks_the_protocol_closes_the_link),
        TEST(a_public_port_needs_the_tokens_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
