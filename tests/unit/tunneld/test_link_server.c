/* SPDX-License-Identifier: MIT */
/* The links' server over real TLS on loopback, with libwebsockets' own client as the peer: an
 * implementation of RFC 6455 that is not ours. */
#include "tunneld/tunnel/link_server.h"

#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "tests/support/test.h"
#include "tunneld/tunnel/session.h"

enum {
    DEADLINE_MS = 20000,
    SETTLE_MS = 50
};

#define DOMAIN "preview.example.com"
#define HELLO                                                                            \
    "{\"type\":\"hello\",\"version\":1,\"instance\":\"i1\",\"window\":65536,"            \
    "\"max_streams\":10}"
#define PORT "{\"type\":\"port\",\"port\":3000}"

struct world {
    struct loop *loop;
    struct config *conf;
    struct directory *directory;
    struct token_keys *keys;
    struct tls_cert_slot *certs;
    struct tunnel tunnel;
    struct link_server *links;
    int listener;
    struct sock_addr address;
    struct loop_io *io;
    struct loop_timer deadline;
    char dir[64];
    struct lws_context *client;
    /* what the client saw */
    struct lws *wsi;
    struct buf token;
    unsigned status; /* 101, or of the refusal; 0: none yet */
    bool is_closed;
    bool is_leaving; /* teardown: events do not end run() any more */
    unsigned n_sent;
    char texts[4096];
    size_t n_bytes;
};

/* -- the client ------------------------------------------------------------------------- */

/* Lets run() return. */
static void wake(struct world *w)
{
    if (!w->is_leaving)
        loop_stop(w->loop);
}

static void client_text(struct world *w, struct lws *wsi, const char *text)
{
    uint8_t b[LWS_PRE + 512];
    size_t n = strlen(text);

    memcpy(b + LWS_PRE, text, n);
    assert_int_equal(lws_write(wsi, b + LWS_PRE, n, LWS_WRITE_TEXT), (int)n);
    w->n_sent++;
}

static int client_received(struct world *w, struct lws *wsi, const char *in, size_t len)
{
    size_t have = strlen(w->texts);

    if (lws_frame_is_binary(wsi)) {
        w->n_bytes += len;
    } else {
        (void)snprintf(w->texts + have, sizeof w->texts - have, "%.*s", (int)len, in);
        if (lws_is_final_fragment(wsi))
            wake(w);
    }
    return 0;
}

static int client_header(struct world *w, struct lws *wsi, unsigned char **p, size_t len)
{
    char value[2048];
    int n = snprintf(value, sizeof value, "Bearer %.*s", (int)w->token.len,
                     w->token.len ? (char *)w->token.p : "");

    if (w->token.len == 0)
        return 0;
    return lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_AUTHORIZATION,
                                        (unsigned char *)value, n, p, *p + len);
}

static int on_client(struct lws *wsi, enum lws_callback_reasons reason, void *user,
                     void *in, size_t len)
{
    struct world *w = lws_context_user(lws_get_context(wsi));

    UNUSED_ARG(user);
    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        return client_header(w, wsi, in, len);
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        w->wsi = wsi;
        w->status = 101;
        wake(w);
        return 0;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        client_text(w, wsi, w->n_sent == 0 ? HELLO : PORT);
        return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        return client_received(w, wsi, in, len);
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        w->status = lws_http_client_http_response(wsi);
        w->is_closed = true;
        wake(w);
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED:
        w->is_closed = true;
        w->wsi = NULL;
        wake(w);
        return 0;
    default:
        return 0;
    }
}

static const struct lws_protocols client_protocols[] = {
    {LINK_PROTOCOL, on_client, 0, 65536, 0, NULL, 0}, {NULL, NULL, 0, 0, 0, NULL, 0}};

static void client_new(struct world *w)
{
    struct lws_context_creation_info info;
    void *loops[1] = {loop_uv(w->loop)};
    char ca[128];

    (void)snprintf(ca, sizeof ca, "%s/ca.pem", w->dir);
    memset(&info, 0, sizeof info);
    info.port = CONTEXT_PORT_NO_LISTEN;
    info.options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT | LWS_SERVER_OPTION_LIBUV |
                   LWS_SERVER_OPTION_UV_NO_SIGSEGV_SIGFPE_SPIN;
    info.foreign_loops = loops;
    info.protocols = client_protocols;
    info.client_ssl_ca_filepath = ca;
    info.user = w;
    w->client = lws_create_context(&info);
    assert_non_null(w->client);
}

static void run(struct world *w, uint64_t ms)
{
    loop_timer_start(&w->deadline, ms);
    loop_run(w->loop);
    loop_timer_stop(&w->deadline);
}

struct attempt {
    const char *host, *path, *protocol;
};

static void connect_as(struct world *w, struct attempt a)
{
    struct lws_client_connect_info info;

    memset(&info, 0, sizeof info);
    info.context = w->client;
    info.address = "127.0.0.1";
    info.port = sock_port(&w->address);
    info.path = a.path ? a.path : LINK_PATH;
    info.host = a.host ? a.host : "0-demo." DOMAIN;
    info.origin = info.host;
    info.protocol = a.protocol ? a.protocol : LINK_PROTOCOL;
    info.local_protocol_name = LINK_PROTOCOL;
    info.ssl_connection = LCCSCF_USE_SSL;
    w->status = 0;
    w->is_closed = false;
    w->n_sent = 0;
    w->texts[0] = '\0';
    assert_non_null(lws_client_connect_via_info(&info));
    run(w, DEADLINE_MS);
}

/* -- the server ---------------------------------------------------------------------------- */

static int on_admit(void *owner, const struct link_request *rq, void **ret_pass,
                    struct link_refusal *ret)
{
    struct world *w = owner;
    struct token *t = mem_alloc(sizeof *t);

    assert_non_null(t);
    if (admit(&w->tunnel, rq, (int64_t)time(NULL), t, ret) < 0) {
        mem_free(t);
        return -1;
    }
    *ret_pass = t;
    return 0;
}

static int on_opened(void *owner, struct link *l, void *pass,
                     const struct sock_addr *client)
{
    struct world *w = owner;
    struct token *t = pass;

    return session_new(&w->tunnel, l, &t, client);
}

static void on_dropped(void *owner, void *pass)
{
    UNUSED_ARG(owner);
    mem_free(pass);
}

static const struct link_server_ops server_ops = {on_admit, on_opened, on_dropped};

static void on_accept(void *arg, unsigned events)
{
    struct world *w = arg;
    struct sock_addr client;
    int fd = sock_accept(w->listener, &client);

    UNUSED_ARG(events);
    if (fd >= 0)
        link_server_take(w->links, &fd, true, (struct span){0}, &client);
}

static void on_fault(void *arg, const char *place, const char *rule)
{
    UNUSED_ARG(arg);
    fprintf(stderr, "%s: %s\n", place, rule);
}

static struct config *make_config(const char *dir)
{
    static const char text[] =
        "{\"domain\":\"" DOMAIN "\",\"workers\":1,\"state_dir\":\"/nonexistent\","
        "\"listen\":[{\"address\":\"127.0.0.1:0\",\"tls\":false}],"
        "\"trusted_proxies\":[\"127.0.0.1\"]}";
    char path[128];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/tunneld.json", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return config_load(path, on_fault, NULL);
}

static void on_deadline(void *arg)
{
    struct world *w = arg;

    loop_stop(w->loop);
}

static void make_certs(struct world *w, struct err *e)
{
    char command[256], cert_file[128], key_file[128];
    struct tls_cert *cert;

    (void)snprintf(w->dir, sizeof w->dir, "/tmp/test_link_server.XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    (void)snprintf(command, sizeof command, "sh certs/make-dev.sh %s %s >/dev/null",
                   w->dir, DOMAIN);
    assert_int_equal(system(command), 0);
    (void)snprintf(cert_file, sizeof cert_file, "%s/cert.pem", w->dir);
    (void)snprintf(key_file, sizeof key_file, "%s/key.pem", w->dir);
    cert = tls_cert_load(cert_file, key_file, e);
    assert_non_null(cert);
    w->certs = tls_cert_slot_new(&cert);
}

/* Everything but sub is what a platform would put in. */
static void make_token(struct world *w, const char *sub, enum token_aud aud)
{
    struct token t = {.aud = aud, .exp = (int64_t)time(NULL) + 60};
    struct err e = {0};

    (void)snprintf(t.sub, sizeof t.sub, "%s", sub);
    buf_done(&w->token);
    assert_int_equal(token_sign(token_keys_find(w->keys, "own"), &t, &w->token, &e), 0);
}

static int setup(void **state)
{
    struct world *w = mem_zalloc(1, sizeof *w);
    struct ed25519 *ed = ed25519_generate(NULL);
    struct err e = {0};

    *state = w;
    make_certs(w, &e);
    w->conf = make_config(w->dir);
    w->keys = token_keys_new();
    assert_int_equal(token_keys_add(w->keys, "own", &ed, &e), 0);
    w->loop = loop_new(&e);
    w->directory = directory_new();
    w->tunnel = (struct tunnel){.loop = w->loop,
                                .conf = w->conf,
                                .keys = w->keys,
                                .directory = w->directory,
                                .budget = {.max_bytes = 1 << 20}};
    w->tunnel.registry = registry_new(w->loop, w->conf, &e);
    w->links = link_server_new(w->loop, w->certs, &server_ops, w, &e);
    client_new(w);
    loop_timer_init(&w->deadline, w->loop, on_deadline, w);
    assert_int_equal(sock_parse("127.0.0.1:0", &w->address, &e), 0);
    w->listener = sock_listen(&w->address, &e);
    assert_int_equal(sock_local(w->listener, &w->address), 0);
    w->io = loop_io_start(w->loop, w->listener, on_accept, w, &e);
    loop_io_want(w->io, LOOP_READ);
    make_token(w, "demo", TOKEN_LINK);
    return w->links ? 0 : -1;
}

static void on_stopped(void *arg)
{
    struct world *w = arg;

    loop_stop(w->loop);
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];

    loop_io_stop(&w->io);
    sock_close(&w->listener);
    w->is_leaving = true;
    lws_context_destroy(w->client); /* its handles close in the next turns */
    run(w, SETTLE_MS);
    lws_context_destroy(w->client);
    link_server_stop(w->links, on_stopped, w);
    run(w, DEADLINE_MS);
    link_server_free(w->links);
    registry_free(w->tunnel.registry);
    loop_free(w->loop);
    directory_free(w->directory);
    tls_cert_slot_free(w->certs);
    token_keys_free(w->keys);
    config_unref(w->conf);
    buf_done(&w->token);
    (void)snprintf(command, sizeof command, "rm -r %s", w->dir);
    assert_int_equal(system(command), 0);
    mem_free(w);
    return 0;
}

/* -- tests ------------------------------------------------------------------------------------ */

static void a_token_opens_a_link_that_says_welcome_and_urls(void **state)
{
    struct world *w = *state;

    connect_as(w, (struct attempt){0});
    assert_int_equal(w->status, 101);
    lws_callback_on_writable(w->wsi);
    run(w, DEADLINE_MS);
    assert_non_null(strstr(w->texts, "\"type\":\"welcome\""));
    lws_callback_on_writable(w->wsi);
    run(w, DEADLINE_MS);
    assert_non_null(strstr(w->texts, "http://3000-demo." DOMAIN));
    assert_int_equal(registry_links(w->tunnel.registry), 1);
    assert_true(registry_publishes(w->tunnel.registry, "demo", 3000));
}

static void end_one(struct session *s, void *arg)
{
    UNUSED_ARG(arg);
    session_end(s, MUX_REASON_DRAIN);
}

static void the_end_is_told_in_words_in_a_frame_and_by_a_close(void **state)
{
    struct world *w = *state;

    connect_as(w, (struct attempt){0});
    lws_callback_on_writable(w->wsi);
    run(w, DEADLINE_MS);
    w->n_bytes = 0;
    registry_each(w->tunnel.registry, end_one, NULL);
    while (!w->is_closed)
        run(w, DEADLINE_MS);
    assert_non_null(strstr(w->texts, "\"reason\":\"drain\""));
    assert_int_equal(w->n_bytes, 9); /* the mux's GOAWAY */
    run(w, SETTLE_MS);
    assert_int_equal(registry_links(w->tunnel.registry), 0);
}

static void wrong_or_missing_tokens_get_401(void **state)
{
    struct world *w = *state;

    buf_done(&w->token);
    connect_as(w, (struct attempt){0});
    assert_int_equal(w->status, 401);
    assert_int_equal(buf_adds(&w->token, "no.real.token"), 0);
    connect_as(w, (struct attempt){0});
    assert_int_equal(w->status, 401);
    make_token(w, "demo", TOKEN_ACCESS);
    connect_as(w, (struct attempt){0});
    assert_int_equal(w->status, 401);
}

static void a_token_for_another_sandbox_gets_403(void **state)
{
    struct world *w = *state;

    make_token(w, "other", TOKEN_LINK);
    connect_as(w, (struct attempt){0});
    assert_int_equal(w->status, 403);
}

static void another_tenants_sandbox_gets_403(void **state)
{
    struct world *w = *state;

    assert_int_equal(directory_own(w->directory, "demo", "acme"), DIRECTORY_OK);
    connect_as(w, (struct attempt){0});
    assert_int_equal(w->status, 403);
}

static void a_host_that_is_no_link_gets_421(void **state)
{
    struct world *w = *state;

    connect_as(w, (struct attempt){.host = "3000-demo." DOMAIN});
    assert_int_equal(w->status, 421);
    connect_as(w, (struct attempt){.host = DOMAIN});
    assert_int_equal(w->status, 421);
}

static void another_path_gets_404_and_another_subprotocol_400(void **state)
{
    struct world *w = *state;

    connect_as(w, (struct attempt){.path = "/"});
    assert_int_equal(w->status, 404);
    connect_as(w, (struct attempt){.protocol = "tunnel.v2"});
    assert_int_equal(w->status, 400);
}

static void a_server_that_goes_down_says_503(void **state)
{
    struct world *w = *state;

    w->tunnel.is_draining = true;
    connect_as(w, (struct attempt){0});
    assert_int_equal(w->status, 503);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_token_opens_a_link_that_says_welcome_and_urls),
        TEST(the_end_is_told_in_words_in_a_frame_and_by_a_close),
        TEST(wrong_or_missing_tokens_get_401),
        TEST(a_token_for_another_sandbox_gets_403),
        TEST(another_tenants_sandbox_gets_403),
        TEST(a_host_that_is_no_link_gets_421),
        TEST(another_path_gets_404_and_another_subprotocol_400),
        TEST(a_server_that_goes_down_says_503),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
