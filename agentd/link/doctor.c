/* SPDX-License-Identifier: MIT */
#include "agentd/link/doctor.h"

#include <string.h>
#include <time.h>

#include "agentd/link/dial.h"
#include "common/json.h"
#include "common/token.h"

enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1,
    EXIT_SETTINGS = 2,
    EXIT_TOKEN = 3,
    EXIT_UNREACHED = 4
};

struct doctor {
    const struct doctor_conf *conf;
    struct loop *loop;
    struct dial *dial;
    unsigned passed; /* bit per stage */
    int exit_code;
};

static const struct {
    int exit_code;
    const char *advice;
} stages[] = {
    [DIAL_NAME] =
        {EXIT_UNREACHED,
         "check the domain in --server; its DNS needs a wildcard for names below "
         "it; where only a proxy resolves names, set HTTPS_PROXY or --proxy"},
    [DIAL_CONNECT] =
        {EXIT_UNREACHED,
         "check that the server runs and the port is right; where the network "
         "lets only a proxy out, set HTTPS_PROXY or --proxy"},
    [DIAL_PROXY] = {EXIT_UNREACHED,
                    "check the proxy's address, its credentials (percent-encoded in the "
                    "URL), and that it may connect to this host and port"},
    [DIAL_TLS] =
        {EXIT_FAILED,
         "where the network inspects TLS, give its CA with --ca-file; else check "
         "the server's certificate for *.DOMAIN"},
    [DIAL_UPGRADE] = {EXIT_FAILED,
                      "check that --server is a tunneld and that nothing on the way "
                      "refuses WebSockets"},
    [DIAL_TOKEN] = {EXIT_TOKEN, "get a new link token for this sandbox"},
};

static void put_member(struct buf *b, const char *name, const char *value)
{
    /* A line that memory runs out for is cut short; it is not valid JSON then. */
    if (buf_addf(b, "%s\"%s\":", b->len > 1 ? "," : "", name) == 0)
        (void)json_put_str(b, span_str(value));
}

static void report(struct doctor *d, enum dial_stage stage, const char *result,
                   const char *finding, const char *advice)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;

    if (!d->conf->json) {
        (void)fprintf(d->conf->out, "%-8s %-8s %s\n", result, dial_stage_name(stage),
                      finding);
        if (advice)
            (void)fprintf(d->conf->out, "%-8s %-8s -> %s\n", "", "", advice);
        return;
    }
    if (buf_adds(&b, "{") == 0) {
        put_member(&b, "check", dial_stage_name(stage));
        put_member(&b, "result", result);
        put_member(&b, "finding", finding);
        if (advice)
            put_member(&b, "advice", advice);
        (void)fprintf(d->conf->out, "%.*s}\n", SPAN_FMT(buf_span(&b)));
    }
}

/* What does the token itself say against being taken? For people: nothing is verified. */
static const char *token_fault(const struct doctor *d)
{
    struct token t;

    if (token_peek(d->conf->token, &t, NULL) < 0)
        return "it is no JSON Web Token: check the token file";
    if (t.aud != TOKEN_LINK)
        return "it is not for links (aud must be tunnel:link)";
    if (strcasecmp(t.sub, d->conf->id) != 0)
        return "it is for another sandbox than --sandbox says";
    if (t.exp <= (int64_t)time(NULL))
        return "it has expired: get a new one";
    return stages[DIAL_TOKEN].advice;
}

static void on_passed(void *owner, enum dial_stage stage, const char *finding)
{
    struct doctor *d = owner;

    d->passed |= 1u << stage;
    report(d, stage, "ok", finding, NULL);
}

static void on_opened(void *owner, struct conn **take_conn)
{
    struct doctor *d = owner;

    d->dial = NULL;
    conn_close(take_conn);
    d->exit_code = EXIT_OK;
    loop_stop(d->loop);
}

static void on_failed(void *owner, const struct dial_failure *why)
{
    struct doctor *d = owner;
    unsigned s;

    d->dial = NULL;
    report(d, why->stage, "fail", why->err.msg,
           why->stage == DIAL_TOKEN ? token_fault(d) : stages[why->stage].advice);
    for (s = why->stage + 1; s < DIAL_STAGE_COUNT; s++)
        if (s != DIAL_CONNECT && s != DIAL_PROXY)
            report(d, (enum dial_stage)s, "skipped", "not reached", NULL);
    d->exit_code = stages[why->stage].exit_code;
    loop_stop(d->loop);
}

static const struct dial_ops ops = {
    .passed = on_passed,
    .opened = on_opened,
    .failed = on_failed,
};

int doctor_run(const struct doctor_conf *conf, struct err *e)
{
    struct doctor d = {.conf = conf, .exit_code = EXIT_SETTINGS};
    struct dialer_conf dialer = {.ca_file = conf->ca_file, .proxy = conf->proxy};
    struct server_url server;
    struct dial_conf dc = {.server = &server, .id = conf->id, .token = conf->token};

    if (server_url_parse(conf->server, &server, e) < 0)
        return EXIT_SETTINGS;
    d.loop = loop_new(e);
    if (!d.loop)
        return EXIT_FAILED;
    dc.dialer = dialer_new(d.loop, &dialer, e);
    if (dc.dialer)
        d.dial = dial_start(&dc, &ops, &d, e);
    if (d.dial)
        loop_run(d.loop);
    dialer_free(dc.dialer);
    loop_free(d.loop);
    return d.exit_code;
}
