/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/oci_args.h"

#include <string.h>

struct option {
    const char *name; /* without dashes */
    bool has_value;
    bool is_bundle;
};

static const struct option before_command[] = {
    {"root", true, false},
    {"log", true, false},
    {"log-format", true, false},
    {"log-level", true, false},
    {"criu", true, false},
    {"rootless", true, false},
    {"cgroup-manager", true, false},
    {"debug", false, false},
    {"systemd-cgroup", false, false},
    {"help", false, false},
    {"h", false, false},
    {"version", false, false},
    {"v", false, false},
    {NULL, false, false},
};
static const struct option of_start[] = {
    {"bundle", true, true},
    {"b", true, true},
    {"console-socket", true, false},
    {"pid-file", true, false},
    {"preserve-fds", true, false},
    {"no-pivot", false, false},
    {"no-new-keyring", false, false},
    {"no-subreaper", false, false},
    {"keep", false, false},
    {"detach", false, false},
    {"d", false, false},
    {"help", false, false},
    {"h", false, false},
    {NULL, false, false},
};

/* Read the options from argv[*i] on; *i is then the first word that is none. */
static int read_options(int argc, char *const *argv, int *i, const struct option *table,
                        const char **ret_bundle, struct err *e)
{
    while (*i < argc && argv[*i][0] == '-' && argv[*i][1] != '\0') {
        const char *word = argv[*i] + (argv[*i][1] == '-' ? 2 : 1);
        const size_t n = strcspn(word, "=");
        const struct option *o = table;
        const char *value = NULL;

        ++*i;
        if (n == 0)
            return err_set(e, ERR_CONFIG, "\"%.40s\" is no option", argv[*i - 1]);
        while (o->name && (strlen(o->name) != n || memcmp(o->name, word, n) != 0))
            o++;
        if (!o->name)
            return err_set(e, ERR_CONFIG,
                           "the runtime's option \"%.40s\" is not known here, so not "
                           "which container it is for",
                           argv[*i - 1]);
        if (word[n] == '=')
            value = word + n + 1;
        else if (o->has_value && *i < argc)
            value = argv[(*i)++];
        if (o->has_value && !value)
            return err_set(e, ERR_CONFIG, "option \"%.40s\" has no value", word);
        if (o->is_bundle && value)
            *ret_bundle = value;
    }
    return 0;
}

int oci_args_read(int argc, char *const *argv, struct oci_args *ret, struct err *e)
{
    struct oci_args a = {.bundle = "."};
    int i = 0;

    if (read_options(argc, argv, &i, before_command, &a.bundle, e) < 0)
        return -1;
    if (i < argc && !strcmp(argv[i], "restore"))
        return err_set(e, ERR_DENIED,
                       "a container cannot be restored: no hook would run for it");
    a.starts = i < argc && (!strcmp(argv[i], "create") || !strcmp(argv[i], "run"));
    i++;
    if (a.starts && read_options(argc, argv, &i, of_start, &a.bundle, e) < 0)
        return -1;
    if (a.starts && i + 1 < argc)
        return err_set(e, ERR_CONFIG, "\"%.40s\" stands after the container's id",
                       argv[i + 1]);
    if (a.starts && a.bundle[0] == '\0')
        return err_set(e, ERR_CONFIG, "the bundle has no name");
    *ret = a;
    return 0;
}
