/* SPDX-License-Identifier: MIT */
#include "agentd/egress/policy/registries.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/test.h"

struct machine {
    char root[64];
    struct registries found;
};

static const char *home_only(const char *name)
{
    return strcmp(name, "HOME") == 0 ? "/home/dev" : NULL;
}

static const char *with_variables(const char *name)
{
    if (strcmp(name, "PIP_INDEX_URL") == 0)
        return "https://user:secret@pypi.mirror.example:8443/simple";
    if (strcmp(name, "GOPROXY") == 0)
        return "https://go.mirror.example,direct";
    return home_only(name);
}

static int setup(void **state)
{
    struct machine *m = calloc(1, sizeof *m);

    assert_non_null(m);
    strncpy(m->root, "/tmp/registries-XXXXXX", sizeof m->root - 1);
    assert_non_null(mkdtemp(m->root));
    *state = m;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st;
    (void)flag;
    (void)f;
    return remove(path);
}

static int teardown(void **state)
{
    struct machine *m = *state;

    (void)nftw(m->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(m);
    return 0;
}

static void put(struct machine *m, const char *path, const char *text)
{
    char full[512];
    FILE *f;

    assert_true(snprintf(full, sizeof full, "%s%s", m->root, path) < (int)sizeof full);
    for (char *p = full + strlen(m->root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        (void)mkdir(full, 0700); /* it may be there */
        *p = '/';
    }
    f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void search(struct machine *m, const char *(*env)(const char *))
{
    const struct registries_machine machine = {m->root, env};
    struct err e;

    assert_int_equal(registries_search(&machine, &m->found, &e), 0);
}

static bool has(const struct machine *m, const char *client, const char *host,
                unsigned port)
{
    for (size_t i = 0; i < m->found.n; i++) {
        const struct registry *r = &m->found.at[i];

        if (!strcmp(r->client, client) && !strcmp(r->host, host) && r->port == port)
            return true;
    }
    return false;
}

static void a_machine_without_clients_has_no_registries(void **state)
{
    struct machine *m = *state;

    search(m, home_only);
    assert_int_equal(m->found.n, 0);
}

static void each_client_is_read_in_its_own_notation(void **state)
{
    struct machine *m = *state;

    put(m, "/home/dev/.npmrc",
        "; comment=https://no.example/\nregistry=https://npm.example/\n"
        "@acme:registry = "
        "https://npm.acme.example:4873/x/\nproxy=http://proxy.example:3128\n");
    put(m, "/home/dev/.config/pip/pip.conf",
        "[global]\nindex-url = https://pip.example/simple\nextra-index-url =\n"
        "    https://one.example/simple\n    http://two.example/simple\n"
        "cert = /etc/x\n# index-url = https://no.example/\n");
    put(m, "/home/dev/.cargo/config.toml",
        "[source.crates-io]\nreplace-with = \"m\"\n[source.m]\n"
        "registry = \"sparse+https://cargo.example/index/\"\n");
    put(m, "/home/dev/.config/go/env",
        "GOFLAGS=-x\nGOPROXY=https://a.example|https://b.example,direct\n");
    put(m, "/home/dev/.m2/settings.xml",
        "<settings><!-- <mirror><url>https://no.example/</url></mirror> "
        "-->\n<mirrors><mirror>"
        "<id>x</id><url>https://maven.example/m2</url></mirror></mirrors><proxies><proxy>"
        "<url>https://no.example/</url></proxy></proxies></settings>");
    put(m, "/etc/apt/sources.list",
        "# deb http://no.example/ x main\ndeb [signed-by=/k] http://deb.example/debian x "
        "main\n");
    put(m, "/etc/apt/sources.list.d/a.sources",
        "Types: deb\nURIs: http://sec.example/debian\n "
        "https://more.example:8443/debian\nSuites: x\n"
        "\nTypes: deb\nEnabled: no\nURIs: http://no.example/debian\n");
    put(m, "/etc/apt/sources.list.d/b.list.disabled", "deb http://no.example/ x main\n");
    put(m, "/home/dev/.gemrc",
        "---\n:sources:\n- https://gem.example/\n:verbose: true\n");
    put(m, "/home/dev/.yarnrc.yml", "npmRegistryServer: \"https://yarn.example\"\n");
    search(m, home_only);

    assert_true(has(m, "npm", "npm.example", 443));
    assert_true(has(m, "npm", "npm.acme.example", 4873));
    assert_true(has(m, "pip", "pip.example", 443));
    assert_true(has(m, "pip", "one.example", 443));
    assert_true(has(m, "pip", "two.example", 80));
    assert_true(has(m, "cargo", "cargo.example", 443));
    assert_true(has(m, "go", "a.example", 443));
    assert_true(has(m, "go", "b.example", 443));
    assert_true(has(m, "maven", "maven.example", 443));
    assert_true(has(m, "apt", "deb.example", 80));
    assert_true(has(m, "apt", "sec.example", 80));
    assert_true(has(m, "apt", "more.example", 8443));
    assert_true(has(m, "gem", "gem.example", 443));
    assert_true(has(m, "yarn", "yarn.example", 443));
    assert_int_equal(m->found.n, 14);
}

static void what_a_client_has_built_in_counts_until_it_is_configured(void **state)
{
    static const char builtin[] =
        "/usr/lib/python3/dist-packages/pip/_internal/models/index.py";
    struct machine *m = *state;

    put(m, builtin,
        "class PackageIndex:\n\nPyPI = PackageIndex(\"https://built.example/\", "
        "file_storage_domain=\"files.built.example\")\nTestPyPI = PackageIndex(\n"
        "    \"https://no.example/\", file_storage_domain=\"no.example\"\n)\n");
    put(m, "/usr/bin/cargo",
        "\x7f"
        "ELF..sparse+https://crates.example/more text https://no.example/");
    search(m, home_only);
    assert_true(has(m, "pip", "built.example", 443));
    assert_true(has(m, "pip", "files.built.example", 443));
    assert_true(has(m, "cargo", "crates.example", 443));
    assert_int_equal(m->found.n, 3);

    put(m, "/etc/pip.conf", "[global]\nindex-url=https://mirror.example/simple\n");
    search(m, home_only);
    assert_true(has(m, "pip", "mirror.example", 443));
    assert_false(has(m, "pip", "built.example", 443));
}

static void variables_count_and_their_credentials_are_not_kept(void **state)
{
    struct machine *m = *state;

    search(m, with_variables);
    assert_true(has(m, "pip", "pypi.mirror.example", 8443));
    assert_true(has(m, "go", "go.mirror.example", 443));
    assert_int_equal(m->found.n, 2);
    assert_string_equal(m->found.at[0].from, "$PIP_INDEX_URL");
}

static void a_project_cannot_name_registries(void **state)
{
    struct machine *m = *state;

    put(m, "/srv/project/.npmrc", "registry=https://evil.example/\n");
    put(m, "/.npmrc", "registry=https://evil.example/\n");
    search(m, home_only);
    assert_int_equal(m->found.n, 0);
}

static void what_blocks_or_stays_here_is_no_registry(void **state)
{
    struct machine *m = *state;

    put(m, "/home/dev/.m2/settings.xml",
        "<mirror><url>http://0.0.0.0/</url></mirror><mirror><url>file:///srv/m2</url></"
        "mirror>");
    put(m, "/home/dev/.npmrc",
        "registry=http://localhost:4873/\nregistry=https://bad_name.example/\n");
    search(m, home_only);
    assert_int_equal(m->found.n, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_machine_without_clients_has_no_registries),
        T(each_client_is_read_in_its_own_notation),
        T(what_a_client_has_built_in_counts_until_it_is_configured),
        T(variables_count_and_their_credentials_are_not_kept),
        T(a_project_cannot_name_registries),
        T(what_blocks_or_stays_here_is_no_registry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
