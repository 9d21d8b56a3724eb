/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/resolvers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "agentd/egress/policy/ip.h"
#include "common/buf.h"
#include "common/file.h"
#include "common/sock.h"

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* The word at *pos of the line, and *pos after it. */
static struct span word(struct span line, size_t *pos)
{
    size_t from;

    while (*pos < line.len && is_blank(line.p[*pos]))
        (*pos)++;
    from = *pos;
    while (*pos < line.len && !is_blank(line.p[*pos]))
        (*pos)++;
    return span_of(line.p + from, *pos - from);
}

static struct span line_of(struct span text)
{
    const uint8_t *nl = text.len > 0 ? memchr(text.p, '\n', text.len) : NULL;

    return span_of(text.p, nl ? (size_t)(nl - text.p) : text.len);
}

/* "nameserver ADDRESS", as resolv.conf(5) has it: the keyword at the line's start. */
static bool parse_line(struct span line, struct ip_addr *ret)
{
    static const char key[] = "nameserver";
    size_t pos = sizeof key - 1;

    if (line.len <= pos || memcmp(line.p, key, pos) != 0 || !is_blank(line.p[pos]))
        return false;
    return ip_parse(word(line, &pos), ret) == 0;
}

void resolvers_parse(struct span file, char ret[RESOLVERS_TEXT_MAX])
{
    char text[SOCK_TEXT_MAX];
    struct sock_addr at;
    struct ip_addr a;
    size_t len = 0;
    unsigned n = 0;

    ret[0] = '\0';
    while (file.len > 0 && n < RESOLVERS_MAX) {
        struct span line = line_of(file);

        file = span_skip(file, line.len + (line.len < file.len ? 1 : 0));
        if (line.len > 0 && line.p[line.len - 1] == '\r')
            line.len--;
        if (!parse_line(line, &a))
            continue;
        ip_to_sock(&a, 53, &at);
        len += (size_t)snprintf(ret + len, RESOLVERS_TEXT_MAX - len, "%s%s",
                                n > 0 ? "," : "", sock_print(&at, text));
        n++;
    }
    if (n == 0)
        (void)snprintf(ret, RESOLVERS_TEXT_MAX, "127.0.0.1:53");
}

int resolvers_read(const char *path, char ret[RESOLVERS_TEXT_MAX], struct err *e)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;

    if (fd < 0 && errno != ENOENT)
        return err_sys(e, "open %s", path);
    if (fd >= 0)
        rc = file_read(fd, path, RESOLVERS_FILE_MAX, &text, e);
    sock_close(&fd);
    if (rc == 0)
        resolvers_parse(buf_span(&text), ret);
    return rc;
}
