/* SPDX-License-Identifier: MIT */
#include "tunneld/cli_check.h"

#include <stdio.h>

#include "common/tls.h"
#include "tunneld/cli.h"

static void print_fault(void *arg, const char *place, const char *rule)
{
    UNUSED_ARG(arg);
    (void)fprintf(stderr, "%s: %s\n", place, rule); /* there is nowhere else to say it */
}

struct config *cli_load(const char *file)
{
    return config_load(file, print_fault, NULL);
}

/* Reads the key files as the server would, but makes nothing in state_dir. */
static unsigned check_keys(const char *file, const struct config *conf)
{
    struct token_keys *keys = token_keys_new();
    unsigned n_faults = 0;
    unsigned i;

    for (i = 0; keys != NULL && i < conf->n_keys; i++) {
        const struct config_key *k = &conf->key[i];
        struct err e = {0};

        if (token_keys_add_file(keys, k->kid, k->alg, k->file, k->tenant, &e) == 0)
            continue;
        (void)fprintf(stderr, "%s: keys[%u].file: %s\n", file, i, e.msg);
        n_faults++;
    }
    token_keys_free(keys);
    return n_faults;
}

static void print_cover(const struct tls_cert *cert, const char *name)
{
    (void)printf("certificate: %s %s\n",
                 tls_cert_covers(cert, name) ? "covers" : "does not cover", name);
}

static unsigned check_cert(const char *file, const struct config *conf)
{
    char wildcard[HOST_MAX + 3];
    struct tls_cert *cert;
    struct err e = {0};

    if (conf->tls_cert == NULL)
        return 0;
    cert = tls_cert_load(conf->tls_cert, conf->tls_key, &e);
    if (cert == NULL) {
        (void)fprintf(stderr, "%s: tls: %s\n", file, e.msg);
        return 1;
    }
    (void)snprintf(wildcard, sizeof(wildcard), "*.%s", conf->domain);
    print_cover(cert, conf->domain);
    print_cover(cert, wildcard);
    if (strcmp(conf->control_host, conf->domain) != 0)
        print_cover(cert, conf->control_host);
    tls_cert_unref(cert);
    return 0;
}

int cli_check(const char *file)
{
    struct config *conf = cli_load(file);
    unsigned n_faults;

    if (conf == NULL)
        return CLI_USAGE;
    n_faults = check_keys(file, conf) + check_cert(file, conf);
    config_unref(conf);
    if (n_faults == 0)
        (void)printf("%s: ok\n", file); /* fflush() tells */
    if (fflush(stdout) != 0)
        return CLI_FAILED;
    return n_faults > 0 ? CLI_USAGE : CLI_OK;
}
