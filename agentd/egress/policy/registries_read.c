/* SPDX-License-Identifier: MIT */
#include <ctype.h>

#include "agentd/egress/policy/registries.h"

static struct span line_next(struct span *text)
{
    const uint8_t *end = text->len ? memchr(text->p, '\n', text->len) : NULL;
    size_t n = end ? (size_t)(end - text->p) : text->len;
    struct span line = span_of(text->p, n);

    *text = span_skip(*text, end ? n + 1 : n);
    if (line.len > 0 && line.p[line.len - 1] == '\r')
        line.len--;
    return line;
}

static struct span trim(struct span s)
{
    while (s.len > 0 && isspace(s.p[0]))
        s = span_skip(s, 1);
    while (s.len > 0 && isspace(s.p[s.len - 1]))
        s.len--;
    return s;
}

static const uint8_t *find(struct span in, const char *what)
{
    return in.len ? memmem(in.p, in.len, what, strlen(what)) : NULL;
}

static bool ends_url(uint8_t c)
{
    return c <= ' ' || c >= 0x7f || strchr("\"'`<>,|\\{}()", c);
}

/* Each http or https URL in the text; "sparse+https://..." counts as its second half. */
static void each_url(struct span text, registries_fn *fn, void *arg)
{
    for (;;) {
        const uint8_t *at = find(text, "http");
        struct span url;

        if (!at)
            return;
        text = span_skip(text, (size_t)(at - text.p));
        url = text;
        url.len = 0;
        while (url.len < text.len && !ends_url(text.p[url.len]))
            url.len++;
        if (find(url, "http://") == url.p || find(url, "https://") == url.p)
            fn(arg, url);
        text = span_skip(text, url.len > 4 ? url.len : 4);
    }
}

static bool key_matches(struct span key, struct span want)
{
    if (want.len > 0 && want.p[0] == '*') {
        want = span_skip(want, 1);
        return key.len >= want.len &&
               strncasecmp((const char *)key.p + key.len - want.len, (const char *)want.p,
                           want.len) == 0;
    }
    return key.len == want.len &&
           strncasecmp((const char *)key.p, (const char *)want.p, want.len) == 0;
}

static bool is_wanted(struct span key, const char *keys)
{
    while (*keys) {
        size_t n = strcspn(keys, " ");

        if (key_matches(key, span_of(keys, n)))
            return true;
        keys += n + (keys[n] == ' ');
    }
    return false;
}

/* A key of npm may hold a colon itself ("@scope:registry"): the sign that splits is the
 * first "=", else the last colon before the value's, else white space. */
static size_t key_len(struct span line)
{
    const uint8_t *eq = memchr(line.p, '=', line.len);
    const uint8_t *url = find(line, "http");
    size_t end = eq ? (size_t)(eq - line.p) : line.len;

    if (url && (size_t)(url - line.p) < end)
        end = (size_t)(url - line.p);
    while (end > 0 && (isspace(line.p[end - 1]) || strchr(":\"'[+", line.p[end - 1])))
        end--;
    return end;
}

static struct span unquote(struct span key)
{
    key = trim(key);
    while (key.len > 0 && strchr("-\"' ", key.p[0]))
        key = span_skip(key, 1);
    return key;
}

static void read_keys(const char *keys, struct span text, registries_fn *fn, void *arg)
{
    bool is_on = false;

    while (text.len > 0) {
        struct span line = line_next(&text), rest = trim(line);

        if (rest.len == 0 || rest.p[0] == '#' || rest.p[0] == ';')
            continue;
        /* An indented line, or an item of a list, goes on with the key above it. */
        if (!(is_on && (isspace(line.p[0]) || rest.p[0] == '-') &&
              !memchr(rest.p, '=', rest.len)))
            is_on = is_wanted(unquote(span_of(rest.p, key_len(rest))), keys);
        if (is_on)
            each_url(rest, fn, arg);
    }
}

static void read_apt(struct span text, registries_fn *fn, void *arg)
{
    while (text.len > 0) {
        struct span line = trim(line_next(&text));
        const uint8_t *end = line.len ? memchr(line.p, '#', line.len) : NULL;

        if (end)
            line.len = (size_t)(end - line.p);
        if (line.len > 4 && memcmp(line.p, "deb", 3) == 0 &&
            (isspace(line.p[3]) || line.p[3] == '-'))
            each_url(line, fn, arg);
    }
}

/* A stanza with "Enabled: no" gives nothing. */
static void read_deb822(struct span text, registries_fn *fn, void *arg)
{
    while (text.len > 0) {
        struct span stanza = text, lines;
        const uint8_t *end = find(text, "\n\n");
        bool is_off = false;

        if (end)
            stanza.len = (size_t)(end - text.p) + 1;
        text = span_skip(text, end ? stanza.len + 1 : stanza.len);
        for (lines = stanza; lines.len > 0;) {
            struct span line = trim(line_next(&lines));

            is_off = is_off || (line.len > 8 && span_is(span_of(line.p, 8), "enabled:") &&
                                span_is(trim(span_skip(line, 8)), "no"));
        }
        if (!is_off)
            read_keys("uris", stanza, fn, arg);
    }
}

/* The text of <url> inside <mirror>, <repository> and <pluginRepository>; comments left
 * out. The file is the operator's; what is no XML gives nothing. */
static void read_maven(struct span text, registries_fn *fn, void *arg)
{
    bool is_in = false;

    while (text.len > 0) {
        const uint8_t *at = memchr(text.p, '<', text.len);

        if (!at)
            return;
        text = span_skip(text, (size_t)(at - text.p));
        if (find(text, "<!--") == text.p) {
            const uint8_t *end = find(text, "-->");

            if (!end)
                return;
            text = span_skip(text, (size_t)(end - text.p) + 3);
            continue;
        }
        if (find(text, "<mirror>") == text.p || find(text, "<repository>") == text.p ||
            find(text, "<pluginRepository>") == text.p)
            is_in = true;
        if (find(text, "</mirror>") == text.p || find(text, "</repository>") == text.p ||
            find(text, "</pluginRepository>") == text.p)
            is_in = false;
        if (is_in && find(text, "<url>") == text.p) {
            const uint8_t *end = find(text, "</url>");

            if (!end)
                return;
            each_url(span_of(text.p + 5, (size_t)(end - text.p) - 5), fn, arg);
        }
        text = span_skip(text, 1);
    }
}

/* A host that stands beside a URL, as pip's own source tells where its files are:
 * PackageIndex("https://index.example/", file_storage_domain="files.example"). */
static void each_quoted_host(struct span line, registries_fn *fn, void *arg)
{
    while (line.len > 0) {
        const uint8_t quote = line.p[0];
        const uint8_t *end;

        line = span_skip(line, 1);
        if (quote != '"' && quote != '\'')
            continue;
        end = memchr(line.p, quote, line.len);
        if (!end)
            return;
        if (memchr(line.p, '.', (size_t)(end - line.p)) &&
            !memchr(line.p, '/', (size_t)(end - line.p)))
            fn(arg, span_of(line.p, (size_t)(end - line.p)));
        line = span_skip(line, (size_t)(end - line.p) + 1);
    }
}

/* What a client has built in: what stands on the marker's line, after it. In a program,
 * which has no lines, that is the one URL the marker begins. */
static void read_builtin(const struct registries_place *place, struct span text,
                         registries_fn *fn, void *arg)
{
    const uint8_t *at;

    while ((at = find(text, place->keys)) != NULL) {
        struct span line = span_skip(text, (size_t)(at - text.p) + strlen(place->keys));
        struct span rest = line;

        if (place->syntax == REGISTRIES_PROGRAM) {
            line.len = 0;
            while (line.len < rest.len && !ends_url(rest.p[line.len]))
                line.len++;
        } else {
            line = line_next(&(struct span){rest.p, rest.len});
            each_quoted_host(line, fn, arg);
        }
        each_url(line, fn, arg);
        text = rest;
    }
}

void registries_read(const struct registries_place *place, struct span text,
                     registries_fn *fn, void *arg)
{
    switch (place->syntax) {
    case REGISTRIES_KEYS:
        read_keys(place->keys, text, fn, arg);
        break;
    case REGISTRIES_APT:
        read_apt(text, fn, arg);
        break;
    case REGISTRIES_DEB822:
        read_deb822(text, fn, arg);
        break;
    case REGISTRIES_MAVEN:
        read_maven(text, fn, arg);
        break;
    case REGISTRIES_SOURCE:
    case REGISTRIES_PROGRAM:
        read_builtin(place, text, fn, arg);
        break;
    }
}
