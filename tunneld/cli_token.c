/* SPDX-License-Identifier: MIT */
#include "tunneld/cli_token.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tunneld/cli.h"
#include "tunneld/cli_check.h"
#include "tunneld/keys.h"

enum {
    LINK_TTL_S = 86400,
    ACCESS_TTL_S = 300
};

struct wish {
    const char *file;
    int64_t ttl_s; /* 0: the default */
    bool has_sandbox;
    struct token t;
};

static int refuse(const char *fmt, ...) PRINTF_LIKE(1, 2);
static int refuse(const char *fmt, ...)
{
    va_list ap;

    (void)fputs("tunneld token: ", stderr); /* there is nowhere else to say it */
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputs("\n", stderr);
    return CLI_USAGE;
}

int64_t cli_ttl_parse(const char *text)
{
    static const char UNIT[] = "smhd";
    static const int64_t SECONDS[] = {1, 60, 3600, 86400};
    const char *unit;
    int64_t n = 0;
    size_t len = strspn(text, "0123456789");

    if (len == 0 || len > 10)
        return -1;
    for (; len > 0; len--)
        n = n * 10 + (*text++ - '0');
    if (n == 0)
        return -1;
    if (*text == '\0')
        return n;
    unit = strchr(UNIT, *text);
    return unit != NULL && text[1] == '\0' ? n * SECONDS[unit - UNIT] : -1;
}

static int add_name(struct wish *w, const char *name)
{
    if (w->t.n_names == TOKEN_NAMES_MAX)
        return refuse("at most %d names", TOKEN_NAMES_MAX);
    if (!host_name_is_claimable(span_str(name)))
        return refuse("\"%.64s\" can be no name", name);
    (void)snprintf(w->t.names[w->t.n_names++], HOST_LABEL_MAX + 1, "%s", name);
    return 0;
}

/* 0 or the exit code. */
static int apply_option(struct wish *w, int opt, const char *value)
{
    switch (opt) {
    case 'c':
        w->file = value;
        return 0;
    case 's':
        w->has_sandbox = true;
        if (host_id_parse(span_str(value), w->t.sub) < 0)
            return refuse("\"%.64s\" is no sandbox id", value);
        return 0;
    case 'a':
        w->t.aud = TOKEN_ACCESS;
        return 0;
    case 'p':
        w->t.has_ports = true;
        if (port_list_parse(span_str(value), &w->t.ports) < 0)
            return refuse("\"%.64s\" is no list of ports", value);
        return 0;
    case 't':
        w->ttl_s = cli_ttl_parse(value);
        if (w->ttl_s < 0)
            return refuse("\"%.64s\" is no time like 90s, 5m, 24h or 30d", value);
        return 0;
    case 'P':
        w->t.may_public = true;
        return 0;
    case 'n':
        return add_name(w, value);
    default: /* getopt has told what is wrong */
        return CLI_USAGE;
    }
}

static int parse_options(struct wish *w, int argc, char **argv)
{
    static const struct option LONG[] = {
        {"sandbox", required_argument, NULL, 's'},
        {"access", no_argument, NULL, 'a'},
        {"ports", required_argument, NULL, 'p'},
        {"ttl", required_argument, NULL, 't'},
        {"public", no_argument, NULL, 'P'},
        {"name", required_argument, NULL, 'n'},
        {0},
    };
    int opt;

    while ((opt = getopt_long(argc, argv, "c:", LONG, NULL)) != -1) {
        int rc = apply_option(w, opt, optarg);

        if (rc != 0)
            return rc;
    }
    if (optind < argc)
        return refuse("what is \"%.64s\" for?", argv[optind]);
    if (w->file == NULL)
        return refuse("-c FILE is missing");
    if (!w->has_sandbox)
        return refuse("--sandbox ID is missing");
    return 0;
}

/* A token that the server would refuse is not made. */
static int set_end(struct wish *w, const struct config *conf)
{
    bool is_link = w->t.aud == TOKEN_LINK;
    int64_t max = is_link ? conf->limits.link_token_s : conf->limits.access_token_s;
    int64_t ttl = is_link ? LINK_TTL_S : ACCESS_TTL_S;

    if (w->ttl_s > max)
        return refuse("--ttl is over limits.%s, %" PRId64 " s",
                      is_link ? "link_token_s" : "access_token_s", max);
    if (w->ttl_s > 0)
        ttl = w->ttl_s;
    else if (ttl > max)
        ttl = max;
    w->t.exp = (int64_t)time(NULL) + ttl;
    return 0;
}

static int print_token(const struct keys *keys, const struct token *t)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct err e = {0};

    if (token_sign(keys_own(keys), t, &text, &e) < 0) {
        (void)fprintf(stderr, "tunneld token: %s\n", e.msg);
        return CLI_FAILED;
    }
    if (printf("%.*s\n", SPAN_FMT(buf_span(&text))) < 0 || fflush(stdout) != 0) {
        (void)fprintf(stderr, "tunneld token: write: %s\n", strerror(errno));
        return CLI_FAILED;
    }
    return CLI_OK;
}

static int make_token(struct wish *w, const struct config *conf)
{
    struct err e = {0};
    struct keys *keys;
    int rc = set_end(w, conf);

    if (rc != 0)
        return rc;
    keys = keys_load(conf, &e);
    if (keys == NULL) {
        (void)fprintf(stderr, "tunneld token: %s\n", e.msg);
        return e.code == ERR_CONFIG ? CLI_USAGE : CLI_FAILED;
    }
    rc = print_token(keys, &w->t);
    keys_unref(keys);
    return rc;
}

int cli_token(int argc, char **argv)
{
    struct wish w = {.t.aud = TOKEN_LINK};
    struct config *conf;
    int rc = parse_options(&w, argc, argv);

    if (rc != 0)
        return rc;
    conf = cli_load(w.file);
    if (conf == NULL)
        return CLI_USAGE;
    rc = make_token(&w, conf);
    config_unref(conf);
    return rc;
}
