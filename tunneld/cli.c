/* SPDX-License-Identifier: MIT */
#include "tunneld/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tunneld/cli_check.h"
#include "tunneld/cli_token.h"

#ifndef VERSION
#define VERSION "unknown"
#endif

static const char USAGE[] =
    "usage: tunneld [serve] -c FILE\n"
    "       tunneld check -c FILE\n"
    "       tunneld token -c FILE --sandbox ID [--access] [--ports LIST] [--ttl 24h]\n"
    "                     [--public] [--name NAME]...\n"
    "       tunneld version\n";

static int usage(void)
{
    (void)fputs(USAGE, stderr); /* there is nowhere else to say it */
    return CLI_USAGE;
}

/* -c FILE and nothing else; NULL after the usage was told. */
static const char *parse_config_option(int argc, char **argv)
{
    static const struct option NONE[] = {{0}};
    const char *file = NULL;
    int opt;

    while ((opt = getopt_long(argc, argv, "c:", NONE, NULL)) != -1) {
        if (opt != 'c' || file != NULL)
            return NULL;
        file = optarg;
    }
    return optind == argc ? file : NULL;
}

static int run_check(int argc, char **argv)
{
    const char *file = parse_config_option(argc, argv);

    return file != NULL ? cli_check(file) : usage();
}

static int run_version(int argc)
{
    if (argc > 1)
        return usage();
    return puts("tunneld " VERSION) < 0 || fflush(stdout) != 0 ? CLI_FAILED : CLI_OK;
}

int cli_main(int argc, char **argv, int (*serve)(const char *config_path))
{
    const char *word = argc > 1 ? argv[1] : "";
    const char *file;

    if (word[0] == '-' || strcmp(word, "serve") == 0) {
        int skip = word[0] != '-';

        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
            return fputs(USAGE, stdout) < 0 ? CLI_FAILED : CLI_OK;
        file = parse_config_option(argc - skip, argv + skip);
        return file != NULL ? serve(file) : usage();
    }
    if (strcmp(word, "check") == 0)
        return run_check(argc - 1, argv + 1);
    if (strcmp(word, "token") == 0)
        return cli_token(argc - 1, argv + 1);
    if (strcmp(word, "version") == 0)
        return run_version(argc - 1);
    if (strcmp(word, "key") == 0) {
        (void)fputs(
            "tunneld: \"key\" is not built yet: put keys into the configuration's "
            "\"keys\"\n",
            stderr);
        return CLI_USAGE;
    }
    if (word[0] != '\0')
        (void)fprintf(stderr, "tunneld: no command \"%.64s\"\n", word);
    return usage();
}
