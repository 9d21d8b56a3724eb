/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/registries.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"

enum {
    PLACES_MAX = 12,
    PATTERN_MAX = 1024,
    MATCHES_MAX = 64 /* files of one pattern */
};

/* Where each client looks, in its own documentation. `variables` hold URLs or lists of
 * them. `builtin` is looked at only when nothing else said what replaces it. */
static const struct client {
    const char *name;
    const char *variables[4];
    struct registries_place said[PLACES_MAX];
    struct registries_place builtin[PLACES_MAX];
} clients[] = {
    {"apt",
     {NULL},
     {{"/etc/apt/sources.list", REGISTRIES_APT, NULL},
      {"/etc/apt/sources.list.d/*.list", REGISTRIES_APT, NULL},
      {"/etc/apt/sources.list.d/*.sources", REGISTRIES_DEB822, NULL}},
     {{0}}},
    {"npm",
     {"npm_config_registry", "NPM_CONFIG_REGISTRY"},
     {{"~/.npmrc", REGISTRIES_KEYS, "registry *:registry"},
      {"/etc/npmrc", REGISTRIES_KEYS, "registry *:registry"},
      {"/usr/etc/npmrc", REGISTRIES_KEYS, "registry *:registry"},
      {"/usr/local/etc/npmrc", REGISTRIES_KEYS, "registry *:registry"}},
     {{"/usr/lib/node_modules/npm/node_modules/@npmcli/config/lib/definitions/"
       "definitions.js",
       REGISTRIES_SOURCE, "default: "},
      {"/usr/local/lib/node_modules/npm/node_modules/@npmcli/config/lib/definitions/"
       "definitions.js",
       REGISTRIES_SOURCE, "default: "},
      {"/usr/share/nodejs/@npmcli/config/lib/definitions/definitions.js",
       REGISTRIES_SOURCE, "default: "},
      {"~/.nvm/versions/node/*/lib/node_modules/npm/node_modules/@npmcli/config/lib/"
       "definitions/definitions.js",
       REGISTRIES_SOURCE, "default: "}}},
    {"yarn",
     {"YARN_NPM_REGISTRY_SERVER", "YARN_REGISTRY"},
     {{"~/.yarnrc", REGISTRIES_KEYS, "registry"},
      {"~/.yarnrc.yml", REGISTRIES_KEYS, "npmregistryserver"}},
     {{0}}},
    {"pip",
     {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"},
     {{"/etc/pip.conf", REGISTRIES_KEYS, "index-url extra-index-url"},
      {"/etc/xdg/pip/pip.conf", REGISTRIES_KEYS, "index-url extra-index-url"},
      {"~/.pip/pip.conf", REGISTRIES_KEYS, "index-url extra-index-url"},
      {"~/.config/pip/pip.conf", REGISTRIES_KEYS, "index-url extra-index-url"},
      {"~/.config/uv/uv.toml", REGISTRIES_KEYS, "index-url extra-index-url url"}},
     {{"/usr/lib/python3*/dist-packages/pip/_internal/models/index.py", REGISTRIES_SOURCE,
       "\nPyPI = PackageIndex("},
      {"/usr/local/lib/python3*/*-packages/pip/_internal/models/index.py",
       REGISTRIES_SOURCE, "\nPyPI = PackageIndex("},
      {"~/.local/lib/python3*/site-packages/pip/_internal/models/index.py",
       REGISTRIES_SOURCE, "\nPyPI = PackageIndex("},
      {"~/.pyenv/versions/*/lib/python3*/site-packages/pip/_internal/models/index.py",
       REGISTRIES_SOURCE, "\nPyPI = PackageIndex("}}},
    {"cargo",
     {"CARGO_REGISTRIES_CRATES_IO_INDEX", "CARGO_REGISTRY_INDEX"},
     {{"~/.cargo/config.toml", REGISTRIES_KEYS, "registry index"},
      {"~/.cargo/config", REGISTRIES_KEYS, "registry index"},
      /* An index tells where its packages are. */
      {"~/.cargo/registry/index/*/config.json", REGISTRIES_KEYS, "dl api"}},
     {{"~/.rustup/toolchains/*/bin/cargo", REGISTRIES_PROGRAM, "sparse+"},
      {"/usr/bin/cargo", REGISTRIES_PROGRAM, "sparse+"}}},
    {"go",
     {"GOPROXY"},
     {{"~/.config/go/env", REGISTRIES_KEYS, "goproxy"}},
     {{"/usr/local/go/go.env", REGISTRIES_KEYS, "goproxy"},
      {"/usr/lib/go*/go.env", REGISTRIES_KEYS, "goproxy"}}},
    {"maven",
     {NULL},
     {{"~/.m2/settings.xml", REGISTRIES_MAVEN, NULL},
      {"/etc/maven/settings.xml", REGISTRIES_MAVEN, NULL}},
     {{0}}},
    {"gem",
     {NULL},
     {{"~/.gemrc", REGISTRIES_KEYS, ":sources sources"},
      {"/etc/gemrc", REGISTRIES_KEYS, ":sources sources"}},
     {{0}}},
};

struct search {
    const struct registries_machine *machine;
    struct registries *found;
    const char *client;
    const char *from;
    bool is_full;
};

/* "user:password@" is skipped, and never kept. */
static struct span authority(struct span url, uint16_t *ret_port)
{
    const uint8_t *end;

    *ret_port = 443;
    if (url.len > 7 && memcmp(url.p, "http://", 7) == 0) {
        *ret_port = 80;
        url = span_skip(url, 7);
    } else if (url.len > 8 && memcmp(url.p, "https://", 8) == 0) {
        url = span_skip(url, 8);
    }
    for (size_t i = 0; i < url.len; i++)
        if (strchr("/?#", url.p[i]))
            url.len = i;
    end = url.len ? memrchr(url.p, '@', url.len) : NULL;
    return end ? span_skip(url, (size_t)(end - url.p) + 1) : url;
}

static void found(void *arg, struct span url)
{
    struct search *s = arg;
    struct registries *all = s->found;
    struct registry *r;
    struct host host;
    uint16_t port;

    if (host_parse(authority(url, &port), &host) < 0 || !strchr(host.name, '.') ||
        strcmp(host.name, "0.0.0.0") == 0)
        return; /* a place on this machine, or what blocks (maven's settings have 0.0.0.0) */
    if (host.port)
        port = host.port;
    for (size_t i = 0; i < all->n; i++)
        if (all->at[i].port == port && strcmp(all->at[i].host, host.name) == 0 &&
            strcmp(all->at[i].client, s->client) == 0)
            return;
    if (all->n == REGISTRIES_MAX) {
        s->is_full = true;
        return;
    }
    r = &all->at[all->n++];
    r->client = s->client;
    r->port = port;
    memcpy(r->host, host.name, sizeof r->host);
    (void)snprintf(r->from, sizeof r->from, "%s", s->from); /* cut: for people only */
}

static void read_file(struct search *s, const struct registries_place *place,
                      const char *path)
{
    const off_t max =
        place->syntax == REGISTRIES_PROGRAM ? REGISTRIES_BIN_MAX : REGISTRIES_FILE_MAX;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    void *p;

    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
        st.st_size <= max) {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p != MAP_FAILED) {
            s->from = path + strlen(s->machine->root);
            registries_read(place, span_of(p, (size_t)st.st_size), found, s);
            (void)munmap(p, (size_t)st.st_size); /* cannot fail: it is ours */
        }
    }
    (void)close(fd); /* opened for reading: nothing can be lost */
}

static void read_places(struct search *s, const struct registries_place *places)
{
    const char *home = s->machine->env("HOME");
    char pattern[PATTERN_MAX];
    glob_t g;
    int n;

    for (size_t i = 0; i < PLACES_MAX && places[i].pattern; i++) {
        bool is_home = places[i].pattern[0] == '~';

        if (is_home && !home)
            continue;
        n = snprintf(pattern, sizeof pattern, "%s%s%s", s->machine->root,
                     is_home ? home : "", places[i].pattern + is_home);
        if (n < 0 || (size_t)n >= sizeof pattern || glob(pattern, 0, NULL, &g) != 0)
            continue;
        for (size_t k = 0; k < g.gl_pathc && k < MATCHES_MAX; k++)
            read_file(s, &places[i], g.gl_pathv[k]);
        globfree(&g);
    }
}

static void read_variables(struct search *s, const char *const names[4])
{
    const struct registries_place value = {"", REGISTRIES_KEYS, "value"};
    char from[64], text[4096];

    for (size_t i = 0; i < 4 && names[i]; i++) {
        const char *set = s->machine->env(names[i]);
        int n = set ? snprintf(text, sizeof text, "value=%s", set) : 0;

        if (n <= 0 || (size_t)n >= sizeof text)
            continue;
        (void)snprintf(from, sizeof from, "$%s", names[i]); /* ours: they fit */
        s->from = from;
        registries_read(&value, span_of(text, (size_t)n), found, s);
    }
}

int registries_search(const struct registries_machine *machine, struct registries *ret,
                      struct err *e)
{
    struct search s = {machine, ret, NULL, NULL, false};

    ret->n = 0;
    for (size_t i = 0; i < sizeof clients / sizeof clients[0]; i++) {
        size_t before = ret->n;

        s.client = clients[i].name;
        read_variables(&s, clients[i].variables);
        read_places(&s, clients[i].said);
        if (ret->n == before)
            read_places(&s, clients[i].builtin);
    }
    if (s.is_full)
        return err_set(e, ERR_LIMIT,
                       "this machine's clients name more than %d registries",
                       REGISTRIES_MAX);
    return 0;
}

static const char *from_env(const char *name)
{
    return getenv(name);
}

static bool is_first(const struct registries *r, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (r->at[k].port == r->at[i].port && strcmp(r->at[k].host, r->at[i].host) == 0)
            return false;
    return true;
}

int registries_find(struct buf *ret, struct err *e)
{
    const struct registries_machine machine = {"", from_env};
    struct registries *r = mem_zalloc(1, sizeof *r);
    int rc;

    if (!r)
        return err_set(e, ERR_NOMEM, "no memory for registries");
    rc = registries_search(&machine, r, e);
    for (size_t i = 0; i < r->n && rc == 0; i++)
        if (is_first(r, i) && buf_addf(ret, "%s:%u\n", r->at[i].host, r->at[i].port) < 0)
            rc = err_set(e, ERR_NOMEM, "no memory for registries");
    mem_free(r);
    return rc;
}
