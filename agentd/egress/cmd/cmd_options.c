/* SPDX-License-Identifier: MIT */
#include "agentd/egress/cmd/cmd_options.h"

#include <string.h>

#include "agentd/egress/tell.h"

static const struct cmd_option *find(const char *word, const struct cmd_option *o,
                                     size_t n)
{
    size_t len = strcspn(word, "=");

    for (size_t i = 0; i < n; i++)
        if (strlen(o[i].name) == len && memcmp(o[i].name, word, len) == 0)
            return word[len] == '=' && !o[i].value ? NULL : &o[i];
    return NULL;
}

static int take(const char *command, const struct cmd_option *o, const char *value)
{
    if (!value || !value[0]) {
        tell(command, "%s needs a value", o->name);
        return -1;
    }
    if (!o->n) {
        if (*o->value) {
            tell(command, "%s is given twice", o->name);
            return -1;
        }
        *o->value = value;
        return 0;
    }
    if (*o->n == o->max) {
        tell(command, "%s is given more than %u times", o->name, o->max);
        return -1;
    }
    o->value[(*o->n)++] = value;
    return 0;
}

int cmd_options(int argc, char **argv, int at, const struct cmd_option *o, size_t n)
{
    for (; at < argc && argv[at][0] == '-' && strcmp(argv[at], "--") != 0; at++) {
        const struct cmd_option *it = find(argv[at], o, n);
        const char *value = strchr(argv[at], '=');

        if (!it) {
            tell(argv[0], "%.100s is no option; see agentd egress help", argv[at]);
            return -1;
        }
        if (!it->value) {
            *it->is_set = true;
            continue;
        }
        if (value)
            value++;
        else if (at + 1 < argc)
            value = argv[++at];
        if (take(argv[0], it, value) < 0)
            return -1;
    }
    return at;
}

int cmd_options_only(int argc, char **argv, const struct cmd_option *o, size_t n)
{
    int at = cmd_options(argc, argv, 1, o, n);

    if (at < 0)
        return -1;
    if (at < argc) {
        tell(argv[0], "not understood: %.60s", argv[at]);
        return -1;
    }
    return 0;
}
