/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/agent.h"
#include "agentd/egress/egress.h"
#include "agentd/link/doctor.h"
#include "agentd/oneshot.h"
#include "agentd/options.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/token.h"

enum {
    HEAP_KEEP = 1 << 20 /* an agent is small; a transfer's buffers fit */
};

static enum agent_exit wrong(const struct err *e)
{
    (void)fprintf(stderr, "agentd: %s\n", e->msg); /* nowhere else to say it */
    return AGENT_USAGE;
}

static enum agent_exit say(const char *text)
{
    return fputs(text, stdout) < 0 || fflush(stdout) != 0 ? AGENT_FAILED : AGENT_DONE;
}

/* `up`, or `http` where no agent runs that could do it. */
static enum agent_exit serve(struct options **o, const struct agent_source *source)
{
    enum agent_exit code;
    struct err e;

    /* The sandbox is the token's, so that an agent of another one is not asked. For asking,
     * neither server nor token is needed. */
    if ((*o)->command == OPTIONS_HTTP) {
        (void)agent_identify(*o, &e); /* what is missing is told below */
        if (oneshot_http(*o, &code))
            return code;
    }
    if (agent_identify(*o, &e) < 0)
        return wrong(&e);
    return agent_run(o, source);
}

static enum agent_exit doctor(struct options *o)
{
    AUTO(secret_done)
    struct secret token = {0};
    struct doctor_conf conf = {.json = o->json, .out = stdout};
    struct err e = {0};
    int code;

    if (agent_identify(o, &e) < 0)
        return wrong(&e);
    if (o->token_file && secret_read(&token, o->token_file, TOKEN_TEXT_MAX, &e) < 0)
        return wrong(&e);
    conf.server = o->server;
    conf.id = o->id;
    conf.ca_file = o->ca_file;
    conf.proxy = o->proxy;
    conf.token = secret_span(o->token_file ? &token : &o->token);
    code = doctor_run(&conf, &e);
    return code == AGENT_USAGE ? wrong(&e) : (enum agent_exit)code;
}

static enum agent_exit run(struct options **o, const struct agent_source *source)
{
    switch ((*o)->command) {
    case OPTIONS_HELP:
        return say(options_usage);
    case OPTIONS_VERSION:
        return say("agentd " VERSION "\n");
    case OPTIONS_PORTS:
        return oneshot_ports(*o);
    case OPTIONS_DOCTOR:
        return doctor(*o);
    case OPTIONS_UP:
    case OPTIONS_HTTP:
        break;
    }
    return serve(o, source);
}

static const char *from_env(const char *name)
{
    return getenv(name);
}

int main(int argc, char **argv)
{
    const struct agent_source source = {.argc = argc, .argv = argv, .env = from_env};
    struct options *o;
    enum agent_exit code;
    struct err e = {.msg = "no memory"};

    mem_tune(HEAP_KEEP);
    if (argc > 1 && strcmp(argv[1], "egress") == 0) {
        log_setup(false, LOG_INFO);
        return egress_main(argc - 1, argv + 1);
    }
    o = mem_zalloc(1, sizeof *o);
    if (!o) {
        (void)wrong(&e);
        return AGENT_FAILED;
    }
    if (options_load(o, argc, argv, from_env, &e) < 0) {
        mem_free(o);
        return (int)wrong(&e);
    }
    log_setup(o->log_json, o->log_level);
    code = run(&o, &source);
    if (o)
        options_done(o);
    mem_free(o);
    return (int)code;
}
